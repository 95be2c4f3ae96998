//! A C-STORE SCU written by hand (PS3.7, PS3.8): one presentation context, CT Image Storage in explicit little endian.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

const CT_IMAGE: &str = "1.2.840.10008.5.1.4.1.1.2";
const EXPLICIT_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2.1";
const CONTEXT: u8 = 1;
/// Bytes of the data set in one P-DATA-TF.
const SLICE_BYTES: usize = 16_000;

/// What came back for a C-STORE-RQ.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stored {
    pub(crate) status: u16,
    /// Error Comment (0000,0902).
    pub(crate) comment: String,
}

/// Why there is no association, or no answer.
#[derive(Debug, PartialEq)]
pub(crate) enum Refused {
    /// A-ASSOCIATE-RJ: result, source, reason.
    Rejected([u8; 3]),
    /// A-ABORT: source, reason.
    Aborted([u8; 2]),
    Closed,
}

/// An accepted association.
pub(crate) struct Association {
    stream: TcpStream,
    messages: u16,
}

impl Association {
    pub(crate) fn request(address: SocketAddr, calling: &str) -> Result<Self, Refused> {
        let stream = TcpStream::connect(address).map_err(|_| Refused::Closed)?;
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut association = Self { stream, messages: 0 };
        association.write(&associate(calling))?;
        match association.pdu()? {
            (2, _) => Ok(association),
            (kind, _) => panic!("PDU {kind} instead of an answer to the request"),
        }
    }

    /// From now on what is written waits for the acknowledgement of what was written before (Nagle's algorithm), as with many peers.
    pub(crate) fn wait_for_acknowledgements(&self) {
        self.stream.set_nodelay(false).unwrap();
    }

    /// C-STORE of one data set.
    pub(crate) fn store(&mut self, instance: &str, data_set: &[u8]) -> Result<Stored, Refused> {
        self.begin(instance)?;
        self.finish(data_set)
    }

    /// The command set of a C-STORE-RQ.
    pub(crate) fn begin(&mut self, instance: &str) -> Result<(), Refused> {
        self.messages += 1;
        let elements = [
            command(0x0002, &padded(CT_IMAGE, 0)),
            command(0x0100, &1_u16.to_le_bytes()),
            command(0x0110, &self.messages.to_le_bytes()),
            command(0x0700, &0_u16.to_le_bytes()),
            command(0x0800, &1_u16.to_le_bytes()),
            command(0x1000, &padded(instance, 0)),
        ]
        .concat();
        let length = u32::try_from(elements.len()).unwrap().to_le_bytes();
        self.write(&data(3, &[command(0, &length), elements].concat()))
    }

    /// A part of the data set that is not the last.
    pub(crate) fn part(&mut self, part: &[u8]) -> Result<(), Refused> {
        part.chunks(SLICE_BYTES).try_for_each(|slice| self.write(&data(0, slice)))
    }

    /// The rest of the data set, and the response.
    pub(crate) fn finish(&mut self, rest: &[u8]) -> Result<Stored, Refused> {
        let last = rest.len().saturating_sub(SLICE_BYTES);
        self.part(&rest[..last])?;
        self.write(&data(2, &rest[last..]))?;
        let (_, body) = self.pdu()?;
        // PDV header of six bytes, then the command set: implicit little endian, flat
        let mut stored = Stored { status: 0xFFFF, comment: String::new() };
        let mut rest = &body[6..];
        while let [g0, g1, e0, e1, l0, l1, l2, l3, after @ ..] = rest {
            let length = usize::try_from(u32::from_le_bytes([*l0, *l1, *l2, *l3])).unwrap();
            let value = &after[..length];
            match [*g0, *g1, *e0, *e1] {
                [0, 0, 0x00, 0x09] => stored.status = u16::from_le_bytes([value[0], value[1]]),
                [0, 0, 0x02, 0x09] => stored.comment = String::from_utf8_lossy(value).trim().to_owned(),
                _ => {}
            }
            rest = &after[length..];
        }
        Ok(stored)
    }

    /// A-RELEASE, both ways.
    pub(crate) fn release(mut self) {
        let _ = self.write(&[5, 0, 0, 0, 0, 4, 0, 0, 0, 0]);
        let _ = self.pdu();
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        self.stream.write_all(bytes).map_err(|_| Refused::Closed)
    }

    /// The next PDU: its type and what follows its length.
    fn pdu(&mut self) -> Result<(u8, Vec<u8>), Refused> {
        let mut head = [0; 6];
        self.stream.read_exact(&mut head).map_err(|_| Refused::Closed)?;
        let length = u32::from_be_bytes([head[2], head[3], head[4], head[5]]);
        let mut body = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut body).map_err(|_| Refused::Closed)?;
        match head[0] {
            3 => Err(Refused::Rejected([body[1], body[2], body[3]])),
            7 => Err(Refused::Aborted([body[2], body[3]])),
            kind => Ok((kind, body)),
        }
    }
}

/// A CT image of `pixel_bytes` (even) whose pixels differ from those of other UIDs.
pub(crate) fn image(uid: &str, patient: &str, name: &str, pixel_bytes: usize) -> Vec<u8> {
    image_of(uid, &study_of(uid), &format!("{uid}.2"), (patient, name), pixel_bytes)
}

/// As [`image`], of a study and series; the patient is its identifier and name.
pub(crate) fn image_of(
    uid: &str,
    study: &str,
    series: &str,
    (patient, name): (&str, &str),
    pixel_bytes: usize,
) -> Vec<u8> {
    let pixels: Vec<u8> = uid.bytes().cycle().take(pixel_bytes).collect();
    let mut image = [
        element(0x0008, 0x0016, "UI", &padded(CT_IMAGE, 0)),
        element(0x0008, 0x0018, "UI", &padded(uid, 0)),
        element(0x0008, 0x0060, "CS", b"CT"),
        element(0x0010, 0x0010, "PN", &padded(name, b' ')),
        element(0x0010, 0x0020, "LO", &padded(patient, b' ')),
        element(0x0020, 0x000D, "UI", &padded(study, 0)),
        element(0x0020, 0x000E, "UI", &padded(series, 0)),
    ]
    .concat();
    image.extend([0xE0, 0x7F, 0x10, 0x00, b'O', b'W', 0, 0]);
    image.extend(u32::try_from(pixels.len()).unwrap().to_le_bytes());
    image.extend(pixels);
    image
}

/// The study of the image of a UID.
pub(crate) fn study_of(uid: &str) -> String {
    format!("{uid}.1")
}

fn associate(calling: &str) -> Vec<u8> {
    let item = |kind: u8, value: &[u8]| {
        let length = u16::try_from(value.len()).unwrap().to_be_bytes();
        [&[kind, 0], &length[..], value].concat()
    };
    let title = |text: &str| format!("{text:<16}").into_bytes();
    let context = [
        vec![CONTEXT, 0, 0, 0],
        item(0x30, CT_IMAGE.as_bytes()),
        item(0x40, EXPLICIT_LITTLE_ENDIAN.as_bytes()),
    ]
    .concat();
    let user = [item(0x51, &16_384_u32.to_be_bytes()), item(0x52, b"2.25.1")].concat();
    let body = [
        vec![0, 1, 0, 0],
        title("HILUM"),
        title(calling),
        vec![0; 32],
        item(0x10, b"1.2.840.10008.3.1.1.1"),
        item(0x20, &context),
        item(0x50, &user),
    ]
    .concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[1, 0], &length[..], &body].concat()
}

/// A P-DATA-TF with one value; flags: 1 = command, 2 = last.
fn data(flags: u8, value: &[u8]) -> Vec<u8> {
    let length = |extra: usize| u32::try_from(value.len() + extra).unwrap().to_be_bytes();
    [&[4, 0], &length(6)[..], &length(2)[..], &[CONTEXT, flags], value].concat()
}

/// An element of a command set.
fn command(number: u16, value: &[u8]) -> Vec<u8> {
    let length = u32::try_from(value.len()).unwrap().to_le_bytes();
    [&[0, 0], &number.to_le_bytes()[..], &length, value].concat()
}

/// An element in explicit little endian with a short length.
pub(crate) fn element(group: u16, number: u16, vr: &str, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_le_bytes();
    [&group.to_le_bytes()[..], &number.to_le_bytes(), vr.as_bytes(), &length, value].concat()
}

/// A value of even length.
pub(crate) fn padded(text: &str, with: u8) -> Vec<u8> {
    let mut value = text.as_bytes().to_vec();
    if value.len() % 2 == 1 {
        value.push(with);
    }
    value
}
