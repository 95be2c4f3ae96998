//! The MSH segment, read from bytes: enough for the answer, the duplicate key and routing, whatever the rest of the message is.

use super::charset;

/// The separators of a message, MSH-1 and MSH-2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Separators {
    /// MSH-1, `|`.
    pub field: u8,
    /// `^`.
    pub component: u8,
    /// `~`.
    pub repetition: u8,
    /// `\`.
    pub escape: u8,
    /// `&`.
    pub subcomponent: u8,
    /// `#` of 2.7, when declared.
    pub truncation: Option<u8>,
}

impl Default for Separators {
    fn default() -> Self {
        Self {
            field: b'|',
            component: b'^',
            repetition: b'~',
            escape: b'\\',
            subcomponent: b'&',
            truncation: None,
        }
    }
}

impl Separators {
    /// Whether all are different and none is a letter or digit.
    pub fn are_usable(&self) -> bool {
        let all = [
            Some(self.field),
            Some(self.component),
            Some(self.repetition),
            Some(self.escape),
            Some(self.subcomponent),
            self.truncation,
        ];
        let all: Vec<u8> = all.into_iter().flatten().collect();
        let distinct = all.iter().enumerate().all(|(at, one)| !all[..at].contains(one));
        distinct && all.iter().all(|b| b.is_ascii_graphic() && !b.is_ascii_alphanumeric())
    }
}

/// The header of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// MSH-1 and MSH-2.
    pub separators: Separators,
    /// Where `MSH` starts.
    pub offset: usize,
    fields: Vec<Vec<u8>>,
}

impl Header {
    /// Finds and reads MSH. A byte order mark and blanks before it are skipped. `None` when there is no MSH.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let body = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
        let blank = body.iter().take_while(|b| b.is_ascii_whitespace() || **b == 0).count();
        let offset = bytes.len() - body.len() + blank;
        let rest = bytes.get(offset..)?;
        let field = *rest.strip_prefix(b"MSH")?.first()?;
        if field.is_ascii_alphanumeric() || field.is_ascii_whitespace() || !field.is_ascii() {
            return None;
        }
        let end = rest.iter().position(|b| *b == b'\r' || *b == b'\n').unwrap_or(rest.len());
        // number the fields so that MSH-1 is the separator itself
        let fields: Vec<Vec<u8>> = rest[..end].split(|b| *b == field).map(<[u8]>::to_vec).collect();
        let declared = fields.get(1).cloned().unwrap_or_default();
        let mut separators = Separators { field, ..Separators::default() };
        let places = [
            &mut separators.component,
            &mut separators.repetition,
            &mut separators.escape,
            &mut separators.subcomponent,
        ];
        for (place, byte) in places.into_iter().zip(&declared) {
            *place = *byte;
        }
        separators.truncation = declared.get(4).copied();
        Some(Self { separators, offset, fields })
    }

    /// MSH-n as bytes; MSH-1 is the separator.
    pub fn field(&self, number: usize) -> &[u8] {
        match number {
            0 => b"MSH",
            1 => std::slice::from_ref(&self.separators.field),
            _ => self.fields.get(number - 1).map_or(&[], Vec::as_slice),
        }
    }

    /// Component n (from 1) of MSH-n.
    pub fn component(&self, number: usize, component: usize) -> &[u8] {
        let separator = self.separators.component;
        self.field(number).split(|b| *b == separator).nth(component.saturating_sub(1)).unwrap_or_default()
    }

    /// MSH-n as text: decoded leniently, for comparison and identities only.
    pub fn text(&self, number: usize) -> String {
        charset::lenient(self.field(number))
    }

    /// MSH-10, byte for byte, without framing bytes.
    pub fn control_id(&self) -> Vec<u8> {
        self.field(10).iter().copied().filter(|b| !matches!(b, 0x0B | 0x1C | b'\r')).collect()
    }

    /// MSH-9.1 and MSH-9.2.
    pub fn message_type(&self) -> (String, String) {
        (charset::lenient(self.component(9, 1)), charset::lenient(self.component(9, 2)))
    }

    /// Who sent it: `MSH-3|MSH-4`.
    pub fn sender(&self) -> String {
        format!("{}|{}", self.text(3), self.text(4))
    }

    /// Whether the message is itself an acknowledgement, which is never acknowledged.
    pub fn is_acknowledgement(&self) -> bool {
        self.component(9, 1) == b"ACK"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_numbered_as_in_the_standard() {
        let header = Header::read(
            b"\xEF\xBB\xBF\r\nMSH|^~\\&#|RIS|SITE|HILUM|EDGE|2024||ADT^A08^ADT_A01|77|P|2.7\rPID|1",
        )
        .unwrap();
        assert_eq!(header.offset, 5);
        assert_eq!(header.separators.truncation, Some(b'#'));
        assert_eq!(
            (header.field(1), header.field(2), header.field(3)),
            (&b"|"[..], &b"^~\\&#"[..], &b"RIS"[..])
        );
        assert_eq!(header.message_type(), ("ADT".into(), "A08".into()));
        assert_eq!(header.control_id(), b"77");
        assert_eq!(header.field(12), b"2.7");
        assert_eq!(header.field(99), b"");
        assert_eq!(header.sender(), "RIS|SITE");
    }

    #[test]
    fn what_is_no_header_is_none() {
        for bytes in [&b""[..], b"PID|1", b"MSH", b"MSHA", b"<xml/>", b"\x00\x01"] {
            assert_eq!(Header::read(bytes), None);
        }
        assert!(!Header::read(b"MSH|^^\\&|").unwrap().separators.are_usable());
        assert!(Header::read(b"MSH|").unwrap().separators.are_usable(), "missing ones take the usual");
    }
}
