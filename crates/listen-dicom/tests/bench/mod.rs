//! A door on a free port over a store of its own, and a peer that speaks in raw PDUs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hilum_intake::Intake;
use hilum_intake::normalise::Rules;
use hilum_intake::store::{BlobId, Config, Site, Store, SubmissionRow};
use hilum_listen::{Limits, Listener, Settings};
use hilum_wire::dimse::{Answer, Command, pdvs};
use hilum_wire::part10::Head;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

pub(crate) const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
pub(crate) const EXPLICIT: &str = "1.2.840.10008.1.2.1";
pub(crate) const WORKLIST: &str = "1.2.840.10008.5.1.4.31";
pub(crate) const VERIFICATION: &str = "1.2.840.10008.1.1";
const PATIENCE: Duration = Duration::from_secs(20);

/// A running door.
pub(crate) struct Bench {
    pub(crate) address: SocketAddr,
    pub(crate) store: Store,
    pub(crate) site: Site,
    pub(crate) dir: TempDir,
    stop: CancellationToken,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Bench {
    pub(crate) async fn open(limits: Limits, free_bytes_min: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { free_bytes_min, ..Config::new(dir.path().to_owned()) };
        let store = Store::open(config).await.unwrap();
        let settings = serde_json::json!({ "id": "s", "ae_titles": ["EDGE"] });
        store.control().put_site(serde_json::from_value(settings).unwrap()).unwrap();
        let site = store.control().site("s").unwrap().unwrap();
        let intake = Intake::new(store.clone(), Rules::compile(&[]).unwrap());
        let settings = Settings {
            name: "dicom".into(),
            connections_max: limits.dicom.associations_max,
            per_peer_max: limits.dicom.per_peer_max,
            tls_handshake_timeout: PATIENCE,
            drain_timeout: PATIENCE,
            tls: None,
        };
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), settings).unwrap();
        let (address, stop) = (listener.address(), CancellationToken::new());
        let door = Arc::new(hilum_listen_dicom::Dicom::new(intake, &limits));
        tokio::spawn(listener.serve(door, stop.clone()));
        Self { address, store, site, dir, stop }
    }

    /// A connection that has said nothing yet.
    pub(crate) async fn connect(&self) -> Peer {
        Peer(TcpStream::connect(self.address).await.unwrap())
    }

    /// An association with context 1 for CT, 3 for Verification.
    pub(crate) async fn associate(&self) -> Peer {
        let mut peer = self.connect().await;
        let accepted = peer.ask(&request("EDGE", &[(1, CT), (3, VERIFICATION)], &[])).await;
        assert_eq!(accepted[0], 2, "A-ASSOCIATE-AC");
        peer
    }

    /// Nothing that was tried before has done harm.
    pub(crate) async fn still_serves(&self) {
        assert_eq!(self.associate().await.echo().await, 0);
    }

    pub(crate) async fn newest(&self) -> Option<SubmissionRow> {
        self.store.submissions(&self.site, None, 1).await.unwrap().pop()
    }

    /// The data set in a blob.
    pub(crate) async fn data_set(&self, blob: &BlobId) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut reader = self.store.blob(&self.site, blob).await.unwrap().unwrap();
        reader.reader.read_to_end(&mut bytes).await.unwrap();
        let at = Head::read(&bytes).unwrap().data_set_at;
        bytes.split_off(at)
    }
}

/// The other end.
pub(crate) struct Peer(pub(crate) TcpStream);

impl Peer {
    pub(crate) async fn say(&mut self, bytes: &[u8]) {
        // the door may have closed already
        let _ = self.0.write_all(bytes).await;
    }

    /// The next PDU with its header; empty when the connection was closed.
    pub(crate) async fn hear(&mut self) -> Vec<u8> {
        let reading = async {
            let mut pdu = vec![0; 6];
            if self.0.read_exact(&mut pdu).await.is_err() {
                return Vec::new();
            }
            let length = u32::from_be_bytes([pdu[2], pdu[3], pdu[4], pdu[5]]) as usize;
            pdu.resize(6 + length, 0);
            self.0.read_exact(&mut pdu[6..]).await.unwrap();
            pdu
        };
        tokio::time::timeout(PATIENCE, reading).await.unwrap()
    }

    pub(crate) async fn ask(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.say(bytes).await;
        self.hear().await
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        let pdu = self.hear().await;
        assert_eq!(pdu.first(), Some(&4), "P-DATA-TF expected: {pdu:?}");
        Answer::read(pdvs(&pdu[6..]).unwrap()[0].bytes).unwrap()
    }

    pub(crate) async fn echo(&mut self) -> u16 {
        self.say(&pdata(&[value(3, 3, &Command::echo(99))])).await;
        self.answer().await.status
    }

    /// C-STORE on context 1, the data set in pieces.
    pub(crate) async fn store(&mut self, sop_class: &str, sop_instance: &str, data_set: &[u8]) -> Answer {
        self.say(&pdata(&[value(1, 3, &Command::store(7, sop_class, sop_instance))])).await;
        let pieces: Vec<&[u8]> = data_set.chunks(30_000).collect();
        for (number, piece) in pieces.iter().enumerate() {
            let last = if number + 1 == pieces.len() { 2 } else { 0 };
            self.say(&pdata(&[value(1, last, piece)])).await;
        }
        if pieces.is_empty() {
            self.say(&pdata(&[value(1, 2, &[])])).await;
        }
        self.answer().await
    }
}

/// A presentation data value: length, context, flags (1 command, 2 last), bytes.
pub(crate) fn value(context: u8, flags: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len() + 2).unwrap().to_be_bytes();
    [&length[..], &[context, flags], bytes].concat()
}

/// P-DATA-TF.
pub(crate) fn pdata(values: &[Vec<u8>]) -> Vec<u8> {
    pdu(4, &values.concat())
}

pub(crate) fn pdu(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 0][..], &u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
}

pub(crate) fn item(kind: u8, bytes: &[u8]) -> Vec<u8> {
    [&[kind, 0][..], &u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// A-ASSOCIATE-RQ with contexts (id, SOP class) in explicit little endian, and more user items.
pub(crate) fn request(called: &str, contexts: &[(u8, &str)], user: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 1, 0, 0];
    body.extend(format!("{called:<16}{:<16}", "PEER").bytes());
    body.extend([0; 32]);
    body.extend(item(0x10, b"1.2.840.10008.3.1.1.1"));
    for (id, class) in contexts {
        let syntaxes = [item(0x30, class.as_bytes()), item(0x40, EXPLICIT.as_bytes())].concat();
        body.extend(item(0x20, &[&[*id, 0, 0, 0][..], &syntaxes].concat()));
    }
    body.extend(item(
        0x50,
        &[item(0x51, &16384_u32.to_be_bytes()), item(0x52, b"1.2.3"), user.to_vec()].concat(),
    ));
    pdu(1, &body)
}

/// An explicit little endian element.
pub(crate) fn element(group: u16, number: u16, vr: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = [group.to_le_bytes(), number.to_le_bytes()].concat();
    bytes.extend(vr.as_bytes());
    if vr == "OB" {
        bytes.extend([0, 0]);
        bytes.extend(u32::try_from(value.len()).unwrap().to_le_bytes());
    } else {
        bytes.extend(u16::try_from(value.len()).unwrap().to_le_bytes());
    }
    [bytes, value.to_vec()].concat()
}

/// A small CT image.
pub(crate) fn image(sop_instance: &str) -> Vec<u8> {
    [
        element(0x0008, 0x0016, "UI", b"1.2.840.10008.5.1.4.1.1.2\0"),
        element(0x0008, 0x0018, "UI", sop_instance.as_bytes()),
        element(0x0010, 0x0020, "LO", b"P1"),
        element(0x0020, 0x000D, "UI", b"1.2.3\0"),
        element(0x0020, 0x000E, "UI", b"1.2.3.4\0"),
        element(0x7FE0, 0x0010, "OB", &[7; 100]),
    ]
    .concat()
}
