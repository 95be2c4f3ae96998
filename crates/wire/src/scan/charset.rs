//! Texts in the sets of Specific Character Set (0008,0005) (PS3.5 section 6.1, PS3.3 section C.12.1.1.2).
//!
//! Sets of ISO 2022 are designated by escape sequences to the left half of the code table (G0, bytes below 0x80) or to the right one (G1). A
//! sequence holds up to the next one or to a delimiter, behind which the first declared set is in force again. UTF-8, GB18030 and GBK know no
//! sequences. Nothing fails: what does not fit is read by the likeliest set, and that is said.

use encoding_rs::{self as enc, Encoding};

const ESCAPE: u8 = 0x1B;
/// Bytes of an escape sequence between ESC and its last one.
const INTERMEDIATES_MAX: usize = 3;

/// A set that is designated to a half of the code table.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Set {
    /// ISO-IR 6, and ISO-IR 14, which has yen and overline where ASCII has `\` and `~`; delimiters stay what they are.
    Ascii,
    /// ISO-IR 13, JIS X 0201 katakana.
    Katakana,
    /// The right half of an eight-bit table.
    Table(&'static Encoding),
    /// Two bytes a character.
    Double(Double),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Double {
    /// ISO-IR 87, JIS X 0208.
    Kanji,
    /// ISO-IR 159, JIS X 0212.
    SupplementaryKanji,
    /// ISO-IR 149, KS X 1001.
    Hangul,
    /// ISO-IR 58, GB 2312.
    Hanzi,
}

impl Double {
    /// A character of two bytes, both in the right half. Bytes of the extensions by other makers are read too: their second byte is in the left.
    fn decode(self, lead: u8, trail: u8) -> Option<String> {
        let (encoding, bytes): (_, &[u8]) = match self {
            Self::Kanji => (enc::EUC_JP, &[lead, trail]),
            Self::SupplementaryKanji => (enc::EUC_JP, &[0x8F, lead, trail]),
            Self::Hangul => (enc::EUC_KR, &[lead, trail]),
            Self::Hanzi => (enc::GB18030, &[lead, trail]),
        };
        strict(encoding, bytes)
    }

    /// Whether a byte may be the second one of a character whose first is in the right half. Never a delimiter.
    fn is_trail(self, byte: u8) -> bool {
        match byte {
            0x80.. => true,
            b'\\' | b'^' | 0x7F => false,
            // unified hangul code and gbk
            _ => match self {
                Self::Hangul => byte.is_ascii_alphabetic(),
                Self::Hanzi => byte >= 0x40,
                Self::Kanji | Self::SupplementaryKanji => false,
            },
        }
    }
}

/// What a defined term stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Term {
    /// A set of ISO 2022.
    Set(Set),
    /// An encoding without escape sequences.
    Whole(&'static Encoding),
}

impl Term {
    /// Spellings differ in the field: `ISO_IR 100`, `ISO-IR 100`, `ISO2022 IR 100`.
    fn of(name: &str) -> Option<Self> {
        let folded: String =
            name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect();
        let number = folded.strip_prefix("ISO2022IR").or_else(|| folded.strip_prefix("ISOIR"));
        Some(match number.unwrap_or(&folded) {
            "" | "6" | "14" => Self::Set(Set::Ascii),
            "13" => Self::Set(Set::Katakana),
            "87" => Self::Set(Set::Double(Double::Kanji)),
            "159" => Self::Set(Set::Double(Double::SupplementaryKanji)),
            "149" => Self::Set(Set::Double(Double::Hangul)),
            "58" => Self::Set(Set::Double(Double::Hanzi)),
            "192" => Self::Whole(enc::UTF_8),
            "GB18030" | "GBK" => Self::Whole(enc::GB18030),
            number => match table(number) {
                Some(encoding) => Self::Set(Set::Table(encoding)),
                None => Self::Whole(Encoding::for_label(name.trim().as_bytes())?),
            },
        })
    }
}

/// Single-byte tables by the number of their right half.
fn table(number: &str) -> Option<&'static Encoding> {
    Some(match number {
        "100" => enc::WINDOWS_1252,
        "101" => enc::ISO_8859_2,
        "109" => enc::ISO_8859_3,
        "110" => enc::ISO_8859_4,
        "144" => enc::ISO_8859_5,
        "127" => enc::ISO_8859_6,
        "126" => enc::ISO_8859_7,
        "138" => enc::ISO_8859_8,
        "148" => enc::WINDOWS_1254,
        "203" => enc::ISO_8859_15,
        "166" => enc::WINDOWS_874,
        _ => return None,
    })
}

/// The sets a data set or an item declares.
#[derive(Clone, Debug)]
pub(super) struct Charsets {
    /// The encoding of whole values, where one is declared.
    whole: Option<&'static Encoding>,
    /// In force at the begin of a value and behind each delimiter.
    g0: Set,
    g1: Option<Set>,
    declared: Vec<Set>,
}

impl Charsets {
    /// By the value of (0008,0005), which may be empty.
    pub(super) fn declared(value: &[u8]) -> Self {
        let names = String::from_utf8_lossy(value);
        let terms: Vec<Option<Term>> =
            names.split('\\').map(|name| Term::of(name.trim_matches([' ', '\0']))).collect();
        let first = terms.first().copied().flatten().unwrap_or(Term::Set(Set::Ascii));
        let whole = terms.iter().flatten().find_map(|term| match term {
            Term::Whole(encoding) => Some(*encoding),
            Term::Set(_) => None,
        });
        let declared = terms.iter().flatten().filter_map(|term| match term {
            Term::Set(set) => Some(*set),
            Term::Whole(_) => None,
        });
        // sets of the left half are never in force at the begin
        let g1 = match first {
            Term::Set(Set::Ascii | Set::Double(Double::Kanji | Double::SupplementaryKanji)) => None,
            Term::Set(set) => Some(set),
            Term::Whole(_) => None,
        };
        Self {
            whole: whole.filter(|_| matches!(first, Term::Whole(_) | Term::Set(Set::Ascii))),
            g0: Set::Ascii,
            g1,
            declared: declared.filter(|set| *set != Set::Ascii).collect(),
        }
    }

    /// The text of a value, or of several with their `\`, without control characters but tabs and line ends; and whether it fits.
    /// `is_name` = VR PN, whose components are delimited by `^` and `=`.
    pub(super) fn decode(&self, bytes: &[u8], is_name: bool) -> (String, bool) {
        let (text, fits) = match self.whole {
            Some(encoding) if !bytes.is_ascii() => decode_whole(encoding, bytes),
            _ => self.decode_sets(bytes, is_name),
        };
        (text.chars().filter(|c| !c.is_control() || matches!(c, '\t' | '\n' | '\r')).collect(), fits)
    }

    fn decode_sets(&self, bytes: &[u8], is_name: bool) -> (String, bool) {
        let mut reading = Reading {
            charsets: self,
            is_name,
            g0: self.g0,
            g1: self.g1,
            designated: None,
            text: String::with_capacity(bytes.len()),
            fits: true,
        };
        reading.read(bytes);
        // shift-jis is often declared as its half
        let is_shift_jis = !reading.fits && self.g1 == Some(Set::Katakana) && !bytes.contains(&ESCAPE);
        match strict(enc::SHIFT_JIS, bytes).filter(|_| is_shift_jis) {
            Some(text) => (text, false),
            None => (reading.text, reading.fits),
        }
    }
}

/// A value being read.
struct Reading<'c> {
    charsets: &'c Charsets,
    is_name: bool,
    g0: Set,
    g1: Option<Set>,
    /// What was last designated to the right half, also before a delimiter.
    designated: Option<Set>,
    text: String,
    fits: bool,
}

impl Reading<'_> {
    fn read(&mut self, mut bytes: &[u8]) {
        while let Some(first) = bytes.first() {
            let taken = match *first {
                ESCAPE => self.escape(bytes),
                0x80.. => self.right(bytes),
                byte => self.left(byte, bytes.get(1).copied()),
            };
            bytes = &bytes[taken..];
        }
    }

    /// An escape sequence: no text, whether it is known or not.
    fn escape(&mut self, bytes: &[u8]) -> usize {
        let sequence = &bytes[1..];
        let intermediates =
            sequence.iter().take(INTERMEDIATES_MAX).take_while(|b| matches!(b, b'!'..=b'/')).count();
        let Some(b'0'..=b'~') = sequence.get(intermediates) else {
            self.fits = false;
            return 1;
        };
        if !self.designate(&sequence[..=intermediates]) {
            self.fits = false;
        }
        intermediates + 2
    }

    /// PS3.3 tables C.12-3 and C.12-4. False for a sequence that is not known.
    fn designate(&mut self, sequence: &[u8]) -> bool {
        let (half, set) = match sequence {
            [b'(', b'B' | b'J'] => ('0', Some(Set::Ascii)),
            [b')', b'I'] => ('1', Some(Set::Katakana)),
            [b'-', last] => ('1', table_of(*last).map(Set::Table)),
            [b'$', last] | [b'$', b'(', last] => ('0', double_of(*last).map(Set::Double)),
            [b'$', b')', last] => ('1', double_of(*last).map(Set::Double)),
            _ => return false,
        };
        match (half, set) {
            ('0', Some(set)) => self.g0 = set,
            (_, Some(set)) => {
                self.g1 = Some(set);
                self.designated = Some(set);
            }
            _ => return false,
        }
        true
    }

    /// A character of the left half, or a delimiter.
    fn left(&mut self, byte: u8, next: Option<u8>) -> usize {
        if let (Set::Double(set), b'!'..=b'~', Some(next @ b'!'..=b'~')) = (self.g0, byte, next) {
            let character = set.decode(byte | 0x80, next | 0x80);
            self.fits &= character.is_some();
            self.text.push_str(character.as_deref().unwrap_or("\u{FFFD}"));
            return 2;
        }
        if byte < b' ' || byte == b'\\' || (self.is_name && matches!(byte, b'^' | b'=')) {
            (self.g0, self.g1) = (self.charsets.g0, self.charsets.g1);
        }
        self.text.push(char::from(byte));
        1
    }

    /// Characters of the right half, as many as there are in a row: of the set in force; else of what was designated before, UTF-8 of eastern
    /// scripts (by chance hardly in any other set), what is declared, and what nothing tells of.
    fn right(&mut self, bytes: &[u8]) -> usize {
        if let Some((text, taken)) = self.g1.and_then(|set| run(set, bytes)) {
            self.text.push_str(&text);
            return taken;
        }
        self.fits = false;
        let length = bytes.iter().take_while(|byte| !byte.is_ascii()).count();
        let eastern = || {
            let text = strict(enc::UTF_8, &bytes[..length])?;
            text.chars().all(|c| c >= '\u{800}').then_some((text, length))
        };
        let declared = || self.charsets.declared.iter().find_map(|set| run(*set, bytes));
        let found = self.designated.and_then(|set| run(set, bytes)).or_else(eastern).or_else(declared);
        let (text, taken) = found.unwrap_or_else(|| (undeclared(&bytes[..length]), length));
        self.text.push_str(&text);
        taken
    }
}

/// The characters of the right half that bytes begin with, and how many bytes they are; `None` when one is not in the set.
fn run(set: Set, bytes: &[u8]) -> Option<(String, usize)> {
    let (mut text, mut taken) = (String::new(), 0);
    while let Some(byte @ 0x80..) = bytes.get(taken).copied() {
        let next = bytes.get(taken + 1).copied();
        match (set, next) {
            (Set::Katakana, _) if (0xA1..=0xDF).contains(&byte) => {
                text.push(char::from_u32(0xFF61 + u32::from(byte - 0xA1))?);
            }
            (Set::Table(encoding), _) => text.push_str(&strict(encoding, &[byte])?),
            (Set::Double(set), Some(next)) if set.is_trail(next) => {
                text.push_str(&set.decode(byte, next)?);
                taken += 1;
            }
            _ => return None,
        }
        taken += 1;
    }
    Some((text, taken))
}

/// The right half of an eight-bit table by the last byte of its sequence.
fn table_of(last: u8) -> Option<&'static Encoding> {
    table(match last {
        b'A' => "100",
        b'B' => "101",
        b'C' => "109",
        b'D' => "110",
        b'F' => "126",
        b'G' => "127",
        b'H' => "138",
        b'L' => "144",
        b'M' => "148",
        b'T' => "166",
        b'b' => "203",
        _ => return None,
    })
}

/// A set of two bytes by the last byte of its sequence; `@` is the first edition of JIS X 0208.
fn double_of(last: u8) -> Option<Double> {
    Some(match last {
        b'@' | b'B' => Double::Kanji,
        b'D' => Double::SupplementaryKanji,
        b'C' => Double::Hangul,
        b'A' => Double::Hanzi,
        _ => return None,
    })
}

/// A value in one encoding. One that was cut within a character loses that one.
fn decode_whole(encoding: &'static Encoding, bytes: &[u8]) -> (String, bool) {
    if let Some(text) = strict(encoding, bytes) {
        return (text, true);
    }
    if encoding == enc::UTF_8
        && let Err(error) = std::str::from_utf8(bytes)
        && error.error_len().is_none()
    {
        return (String::from_utf8_lossy(&bytes[..error.valid_up_to()]).into_owned(), true);
    }
    (undeclared(bytes), false)
}

/// What nothing tells of: UTF-8 when valid, else Latin 1.
fn undeclared(bytes: &[u8]) -> String {
    strict(enc::UTF_8, bytes).or_else(|| strict(enc::WINDOWS_1252, bytes)).unwrap_or_default()
}

fn strict(encoding: &'static Encoding, bytes: &[u8]) -> Option<String> {
    encoding.decode_without_bom_handling_and_without_replacement(bytes).map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(declared: &str, bytes: &[u8]) -> (String, bool) {
        Charsets::declared(declared.as_bytes()).decode(bytes, true)
    }

    /// Names of the annexes H to K of PS3.5, and of others by the same rules.
    #[test]
    fn names_switch_between_the_declared_sets() {
        let cases: [(&str, &[u8], &str); 17] = [
            (
                r"\ISO 2022 IR 87",
                b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
                "Yamada^Tarou=山田^太郎=やまだ^たろう",
            ),
            (
                r"ISO 2022 IR 13\ISO 2022 IR 87",
                b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
                "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
            ),
            (
                r"\ISO 2022 IR 149",
                b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
                "Hong^Gildong=洪^吉洞=홍^길동",
            ),
            (
                r"\ISO 2022 IR 58",
                b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=",
                "Zhang^XiaoDong=张^小东=",
            ),
            ("ISO_IR 192", "Wang^XiaoDong=王^小东".as_bytes(), "Wang^XiaoDong=王^小东"),
            ("GB18030", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab", "Wang^XiaoDong=王^小东"),
            // second bytes that look like delimiters
            ("GBK", b"\x81\x5c^\x81\x5e", "乗^乛"),
            ("GB18030", b"\x81\x30\x81\x36\x81\x5c", "\u{86}乗"),
            (
                r"ISO 2022 IR 100\ISO 2022 IR 144\ISO 2022 IR 126",
                b"Buc^J\xe9r\xf4me\\\x1b-F\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2\\\x1b-L\xbb\xee\xda\xe1\xd5\xdc\xd1\xe3\xe0\xd3",
                r"Buc^Jérôme\Διονυσιος\Люксембург",
            ),
            // three sets in one value, and both halves at work
            (
                r"\ISO 2022 IR 87\ISO 2022 IR 159\ISO 2022 IR 149",
                b"\x1b$B;3\x1b$(D0!\x1b(B!\x1b$)C\xc8\xab\x1b$BED\xc8\xab\x1b(B",
                "山丂!홍田홍",
            ),
            ("ISO_IR 127", b"\xe2\xc8\xc7\xe6\xea^\xe4\xe6\xd2\xc7\xd1", "قباني^لنزار"),
            ("ISO_IR 138", b"\xf9\xf8\xe5\xef^\xe3\xe1\xe5\xf8\xe4", "שרון^דבורה"),
            (r"\ISO 2022 IR 166", b"Somchai=\x1b-T\xca\xc1\xaa\xd2\xc2", "Somchai=สมชาย"),
            (r"ISO 2022 IR 6\ISO 2022 IR 101", b"\x1b-BDvo\xf8\xe1k", "Dvořák"),
            ("ISO_IR 148", b"\xdeeker^\xddpek", "Şeker^İpek"),
            ("ISO-IR 203", b"\xbcuvre^\xa4", "Œuvre^€"),
            // unified hangul code, whose second bytes are letters
            (r"\ISO 2022 IR 149", b"\x1b$)C\x8c\x63^A", "똠^A"),
        ];
        for (declared, bytes, text) in cases {
            let text: String = text.chars().filter(|c| !c.is_control()).collect();
            assert_eq!(name(declared, bytes), (text, true), "{declared}");
        }
    }

    #[test]
    fn the_first_set_is_in_force_again_behind_a_delimiter() {
        let charsets = Charsets::declared(br"ISO 2022 IR 100\ISO 2022 IR 144");
        for delimiter in ["\\", "^", "=", "\r\n", "\t"] {
            let bytes = [b"\x1b-L\xbb", delimiter.as_bytes(), b"\xbb"].concat();
            assert_eq!(charsets.decode(&bytes, true), (format!("Л{delimiter}»"), true));
        }
        // only names have components
        assert_eq!(charsets.decode(b"\x1b-L\xbb^\xbb=\xbb", false), ("Л^Л=Л".into(), true));
        // a set of the left half that was left on: a character needs two bytes
        let charsets = Charsets::declared(br"\ISO 2022 IR 87");
        assert_eq!(charsets.decode(b"\x1b$B;3^\x1b$BED\x1b(B=A", true), ("山^田=A".into(), true));
    }

    #[test]
    fn what_does_not_fit_is_read_by_the_likeliest_set_and_said() {
        let cases: [(&str, &[u8], &str); 10] = [
            ("", "Müller^Zoë".as_bytes(), "Müller^Zoë"),
            ("", b"M\xfcller", "Müller"),
            ("ISO_IR 192", b"M\xfcller", "Müller"),
            ("no such set", b"M\xfcller", "Müller"),
            // declared but not designated, and designated once for several components
            (r"\ISO 2022 IR 149", b"\xc8\xab^\xb1\xe6\xb5\xbf", "홍^길동"),
            ("ISO 2022 IR 6", b"\x1b$)C\xc8\xab^\xb1\xe6\xb5\xbf", "홍^길동"),
            (r"\ISO 2022 IR 149", "홍^길동".as_bytes(), "홍^길동"),
            // shift-jis called by its half
            ("ISO_IR 13", b"\x8e\x52\x93\x63^\xc0\xdb\xb3", "山田^ﾀﾛｳ"),
            // sequences that are none
            ("ISO_IR 100", b"M\x1b%G\xfcller\x1b", "Müller"),
            (r"\ISO 2022 IR 87", b"\x1b$B\x2f\x21\x1b(BA", "\u{FFFD}A"),
        ];
        for (declared, bytes, text) in cases {
            assert_eq!(name(declared, bytes), (text.to_owned(), false), "{declared} {text}");
        }
        assert_eq!(name("ISO_IR 192", &"Zoë".as_bytes()[..3]), ("Zo".into(), true), "cut within a character");
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_no_escape_is_left(
            declared in proptest::sample::select(vec![
                "", r"\ISO 2022 IR 87\ISO 2022 IR 159", r"ISO 2022 IR 13\ISO 2022 IR 149", r"\ISO 2022 IR 58", "ISO_IR 192", "GBK", r"\ISO_IR 192",
            ]),
            parts in proptest::collection::vec(
                prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..8),
                    proptest::sample::select(vec![b"\x1b$B".to_vec(), b"\x1b$)C".to_vec(), b"\x1b$(D".to_vec(), b"\x1b-F".to_vec(), b"\x1b(J".to_vec()]),
                ],
                0..20,
            ),
        ) {
            let (text, _) = name(declared, &parts.concat());
            prop_assert!(!text.contains(char::from(ESCAPE)));
        }
    }
}
