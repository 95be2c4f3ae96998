//! An HTTP/1.1 client that shows what was said.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

/// Bodies larger than this wait for `100 Continue`, as curl does.
const EXPECT_BYTES: usize = 64 * 1024;

/// What came back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    /// A header by its lower-case name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; `null` when it is none.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// One request on a connection of its own. Status 0: the connection ended without an answer.
pub(crate) fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[&str],
    body: impl AsRef<[u8]>,
) -> Reply {
    let sent = Connection::open(address)
        .and_then(|mut connection| connection.send(method, path, headers, body.as_ref()));
    sent.unwrap_or_default()
}

/// A connection that is kept open.
pub(crate) struct Connection {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        Some(Self { address, stream: BufReader::new(stream) })
    }

    /// From now on what is written waits for the acknowledgement of what was written before (Nagle's algorithm), as with many peers.
    pub(crate) fn wait_for_acknowledgements(&self) {
        self.stream.get_ref().set_nodelay(false).unwrap();
    }

    /// A request and its answer; `None` when the connection ended first.
    pub(crate) fn send(&mut self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Option<Reply> {
        if body.len() > EXPECT_BYTES {
            if let Some(early) = self.begin(method, path, headers, body.len())? {
                return Some(early);
            }
            return self.finish(method, body);
        }
        let mut request = self.head(method, path, headers, body.len()).into_bytes();
        request.extend_from_slice(body);
        self.stream.get_mut().write_all(&request).ok()?;
        self.reply(method)
    }

    /// Sends bytes as they are and reads the answer, which may come before all are sent.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Option<Reply> {
        let _ = self.stream.get_mut().write_all(bytes);
        self.reply("GET")
    }

    /// Sends the head alone and waits until the other side reads the body; an answer instead means that it will not.
    pub(crate) fn begin(
        &mut self,
        method: &str,
        path: &str,
        headers: &[&str],
        length: usize,
    ) -> Option<Option<Reply>> {
        let expect: Vec<&str> = headers.iter().copied().chain(["Expect: 100-continue"]).collect();
        let head = self.head(method, path, &expect, length);
        self.stream.get_mut().write_all(head.as_bytes()).ok()?;
        let reply = self.reply(method)?;
        Some((reply.status != 100).then_some(reply))
    }

    /// A request in three writes, and its answer.
    pub(crate) fn send_in_pieces(
        &mut self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &[u8],
    ) -> Option<Reply> {
        let head = self.head(method, path, headers, body.len());
        let (first, rest) = body.split_at(body.len() / 2);
        self.write(head.as_bytes())?;
        self.write(first)?;
        self.finish(method, rest)
    }

    /// A part of a body that was begun.
    pub(crate) fn write(&mut self, part: &[u8]) -> Option<()> {
        self.stream.get_mut().write_all(part).ok()
    }

    /// The rest of a body that was begun, and the answer.
    pub(crate) fn finish(&mut self, method: &str, rest: &[u8]) -> Option<Reply> {
        self.write(rest)?;
        self.reply(method)
    }

    fn head(&self, method: &str, path: &str, headers: &[&str], length: usize) -> String {
        let named = headers.iter().any(|header| header.starts_with("Host:"));
        let headers: String = headers.iter().map(|h| format!("{h}\r\n")).collect();
        let host = if named { String::new() } else { format!("Host: {}\r\n", self.address) };
        format!("{method} {path} HTTP/1.1\r\n{host}Content-Length: {length}\r\n{headers}\r\n")
    }

    fn reply(&mut self, method: &str) -> Option<Reply> {
        let status = self.line()?.get(9..12)?.parse().ok()?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut reply = Reply { status, headers, body: String::new() };
        let length = reply.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        if method != "HEAD" && status != 304 {
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).ok()?;
            reply.body = String::from_utf8_lossy(&body).into_owned();
        }
        Some(reply)
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).ok()?;
        (read > 0).then(|| line.trim_end().to_owned())
    }
}
