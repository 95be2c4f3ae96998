//! An MLLP sender.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::{PATIENCE, SENDER};

/// A message about one patient.
pub(crate) fn message(control: &str, id: &str, family: &str) -> String {
    format!("MSH|^~\\&|{SENDER}|NORTH|||20240101||ADT^A08|{control}|P|2.5\rPID|1||{id}||{family}^Given\r")
}

/// A connection.
pub(crate) struct Connection(TcpStream);

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        Some(Self(stream))
    }

    /// From now on what is written waits for the acknowledgement of what was written before (Nagle's algorithm), as with many peers.
    pub(crate) fn wait_for_acknowledgements(&self) {
        self.0.set_nodelay(false).unwrap();
    }

    /// Sends a frame and reads the answer; `None` when the connection ends.
    pub(crate) fn send(&mut self, message: impl AsRef<[u8]>) -> Option<String> {
        self.write(&framed(message))?;
        self.read()
    }

    /// Sends bytes as they are.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Option<()> {
        self.0.write_all(bytes).ok()
    }

    /// The next frame, without its framing.
    pub(crate) fn read(&mut self) -> Option<String> {
        let mut answer = Vec::new();
        let mut byte = [0];
        while self.0.read(&mut byte).ok()? == 1 {
            answer.push(byte[0]);
            if answer.ends_with(b"\x1C\r") {
                let inner = answer.strip_prefix(b"\x0B")?.strip_suffix(b"\x1C\r")?;
                return Some(String::from_utf8_lossy(inner).into_owned());
            }
        }
        None
    }
}

/// A message in its frame.
pub(crate) fn framed(message: impl AsRef<[u8]>) -> Vec<u8> {
    [b"\x0B", message.as_ref(), b"\x1C\r"].concat()
}
