//! Small DICOM objects in every encoding, made here: nothing is copied from elsewhere.

use std::io::Write;

use hilum_wire::part10;

pub(crate) const IMPLICIT: &str = "1.2.840.10008.1.2";
pub(crate) const EXPLICIT: &str = "1.2.840.10008.1.2.1";
pub(crate) const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
pub(crate) const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
pub(crate) const JPEG: &str = "1.2.840.10008.1.2.4.50";
pub(crate) const STUDY: &str = "1.2.826.0.1.3680043.8.498.7";
const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
const UNDEFINED: u32 = u32::MAX;

/// A data set, and what its file says of it.
#[derive(Clone)]
pub(crate) struct Object {
    pub(crate) name: &'static str,
    pub(crate) sop_class: String,
    pub(crate) sop_instance: String,
    pub(crate) transfer_syntax: &'static str,
    pub(crate) data_set: Vec<u8>,
}

impl Object {
    /// The Part 10 file.
    pub(crate) fn file(&self) -> Vec<u8> {
        let mut file =
            part10::head(&self.sop_class, &self.sop_instance, self.transfer_syntax, ("2.25.1", "TEST"));
        file.extend(&self.data_set);
        file
    }
}

/// Writes elements in an encoding.
pub(crate) struct Writer {
    explicit: bool,
    big_endian: bool,
    pub(crate) bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(transfer_syntax: &str) -> Self {
        Self {
            explicit: transfer_syntax != IMPLICIT,
            big_endian: transfer_syntax == BIG_ENDIAN,
            bytes: Vec::new(),
        }
    }

    fn u16(&mut self, number: u16) {
        self.bytes.extend(if self.big_endian { number.to_be_bytes() } else { number.to_le_bytes() });
    }

    fn u32(&mut self, number: u32) {
        self.bytes.extend(if self.big_endian { number.to_be_bytes() } else { number.to_le_bytes() });
    }

    /// Tag, VR and length.
    pub(crate) fn open(&mut self, group: u16, element: u16, vr: &str, length: u32) {
        self.u16(group);
        self.u16(element);
        let long = matches!(vr, "OB" | "OW" | "SQ" | "UN" | "UT");
        if self.explicit {
            self.bytes.extend(vr.as_bytes());
        }
        match (self.explicit, long) {
            (true, true) => {
                self.u16(0);
                self.u32(length);
            }
            (true, false) => self.u16(u16::try_from(length).unwrap()),
            (false, _) => self.u32(length),
        }
    }

    pub(crate) fn value(&mut self, group: u16, element: u16, vr: &str, value: &[u8]) {
        let odd = value.len() % 2;
        self.open(group, element, vr, u32::try_from(value.len() + odd).unwrap());
        self.bytes.extend(value);
        let pad: &[u8] = if vr == "UI" || vr.starts_with('O') { b"\0" } else { b" " };
        self.bytes.extend(&pad[..odd]);
    }

    pub(crate) fn text(&mut self, group: u16, element: u16, vr: &str, value: &str) {
        self.value(group, element, vr, value.as_bytes());
    }

    pub(crate) fn number(&mut self, group: u16, element: u16, number: u16) {
        self.open(group, element, "US", 2);
        self.u16(number);
    }

    /// An item or a delimiter.
    pub(crate) fn mark(&mut self, element: u16, length: u32) {
        self.u16(0xFFFE);
        self.u16(element);
        self.u32(length);
    }

    pub(crate) fn item_end(&mut self) {
        self.mark(0xE00D, 0);
    }

    pub(crate) fn sequence_end(&mut self) {
        self.mark(0xE0DD, 0);
    }
}

/// What every image says of itself, its series and its study.
pub(crate) fn header(writer: &mut Writer, sop_class: &str, sop_instance: &str, study: &str, number: usize) {
    writer.text(0x0008, 0x0005, "CS", "ISO_IR 100");
    writer.text(0x0008, 0x0016, "UI", sop_class);
    writer.text(0x0008, 0x0018, "UI", sop_instance);
    writer.text(0x0008, 0x0020, "DA", "20240301");
    writer.text(0x0008, 0x0050, "SH", "ACC7");
    writer.text(0x0008, 0x0060, "CS", if number.is_multiple_of(2) { "CT" } else { "MR" });
    // sequences of undefined length, one in the other
    writer.open(0x0008, 0x1140, "SQ", UNDEFINED);
    writer.mark(0xE000, UNDEFINED);
    writer.text(0x0008, 0x1150, "UI", CT);
    writer.open(0x0040, 0xA170, "SQ", UNDEFINED);
    writer.mark(0xE000, UNDEFINED);
    writer.text(0x0008, 0x0100, "SH", "121322");
    writer.item_end();
    writer.sequence_end();
    writer.item_end();
    writer.sequence_end();
    writer.text(0x0010, 0x0010, "PN", "Imaged^Ida");
    writer.text(0x0010, 0x0020, "LO", "DCM7");
    writer.text(0x0020, 0x000D, "UI", study);
    writer.text(0x0020, 0x000E, "UI", &format!("{study}.{}", number % 2));
    writer.text(0x0020, 0x0013, "IS", &number.to_string());
    writer.number(0x0028, 0x0010, 2);
}

fn native(name: &'static str, number: usize, syntax: &'static str, class: &str, pixels: &[u8]) -> Object {
    let sop_instance = format!("{STUDY}.9.{number}");
    let mut writer = Writer::new(syntax);
    header(&mut writer, class, &sop_instance, STUDY, number);
    writer.value(0x7FE0, 0x0010, "OW", pixels);
    Object { name, sop_class: class.into(), sop_instance, transfer_syntax: syntax, data_set: writer.bytes }
}

/// JPEG in fragments, behind an offset table: pixel data of undefined length, and an element behind it.
fn encapsulated(number: usize) -> Object {
    let sop_instance = format!("{STUDY}.9.{number}");
    let mut writer = Writer::new(JPEG);
    header(&mut writer, CT, &sop_instance, STUDY, number);
    writer.open(0x7FE0, 0x0010, "OB", UNDEFINED);
    writer.mark(0xE000, 4);
    writer.bytes.extend([0; 4]);
    for fragment in [vec![0xFF, 0xD8, 0xFF, 0xE0], vec![0x55; 70_001 * 2], vec![0xFF, 0xD9]] {
        writer.mark(0xE000, u32::try_from(fragment.len()).unwrap());
        writer.bytes.extend(fragment);
    }
    writer.sequence_end();
    writer.value(0xFFFC, 0xFFFC, "OB", &[0; 8]);
    Object {
        name: "encapsulated",
        sop_class: CT.into(),
        sop_instance,
        transfer_syntax: JPEG,
        data_set: writer.bytes,
    }
}

/// Compressed, with a compressed icon in an item of the header (PS3.3 section C.7.6.1.1.6).
fn icon(number: usize) -> Object {
    let plain = encapsulated(number);
    let mut writer = Writer::new(JPEG);
    writer.open(0x0088, 0x0200, "SQ", UNDEFINED);
    writer.mark(0xE000, UNDEFINED);
    writer.number(0x0028, 0x0010, 8);
    writer.open(0x7FE0, 0x0010, "OB", UNDEFINED);
    for fragment in [&[][..], &[0xFF, 0xD8, 0xFF, 0xDB, 0x00, 0x43], &[0xFE, 0xFF, 0x0D, 0xE0]] {
        writer.mark(0xE000, u32::try_from(fragment.len()).unwrap());
        writer.bytes.extend(fragment);
    }
    writer.sequence_end();
    writer.item_end();
    writer.sequence_end();
    let mut data_set = plain.data_set;
    let at = data_set.windows(4).position(|w| w == [0xE0, 0x7F, 0x10, 0x00]).unwrap();
    data_set.splice(at..at, writer.bytes);
    Object { name: "icon", data_set, ..plain }
}

/// An instance of a study of its own: a name in its sets, then whatever `fill` writes behind it.
pub(crate) fn named(
    name: &'static str,
    number: usize,
    (charset, patient): (&str, &[u8]),
    fill: impl FnOnce(&mut Writer),
) -> Object {
    let study = format!("{STUDY}.8.{number}");
    let sop_instance = format!("{study}.1");
    let mut writer = Writer::new(EXPLICIT);
    writer.text(0x0008, 0x0005, "CS", charset);
    writer.text(0x0008, 0x0016, "UI", CT);
    writer.text(0x0008, 0x0018, "UI", &sop_instance);
    writer.text(0x0008, 0x0060, "CS", "CT");
    writer.value(0x0010, 0x0010, "PN", patient);
    writer.text(0x0010, 0x0020, "LO", &format!("NAMED{number}"));
    writer.text(0x0020, 0x000D, "UI", &study);
    writer.text(0x0020, 0x000E, "UI", &format!("{study}.2"));
    fill(&mut writer);
    Object { name, sop_class: CT.into(), sop_instance, transfer_syntax: EXPLICIT, data_set: writer.bytes }
}

fn deflated(number: usize) -> Object {
    let plain = native("deflated", number, EXPLICIT, CT, &[9; 4000]);
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&plain.data_set).unwrap();
    Object { transfer_syntax: DEFLATED, data_set: encoder.finish().unwrap(), ..plain }
}

/// One object of each kind, all of one study.
pub(crate) fn one_of_each() -> Vec<Object> {
    let mut unknown = native("unknown_vr", 8, EXPLICIT, CT, &[1; 10]);
    // UN of undefined length holds implicit items whatever the data set is
    let mut writer = Writer::new(EXPLICIT);
    writer.open(0x0009, 0x1010, "UN", UNDEFINED);
    writer.bytes.extend([0xFE, 0xFF, 0x00, 0xE0, 0xFF, 0xFF, 0xFF, 0xFF]);
    writer.bytes.extend([0x08, 0x00, 0x00, 0x01, 4, 0, 0, 0, b'A', b'B', b'C', b'D']);
    writer.item_end();
    writer.sequence_end();
    let at = unknown.data_set.windows(4).position(|w| w == [0x10, 0x00, 0x10, 0x00]).unwrap();
    unknown.data_set.splice(at..at, writer.bytes);
    let mut lying = native("implicit_called_explicit", 9, IMPLICIT, CT, &[2; 10]);
    lying.transfer_syntax = EXPLICIT;
    vec![
        native("explicit", 0, EXPLICIT, CT, &[3; 100]),
        native("implicit", 1, IMPLICIT, CT, &[4; 100]),
        native("big_endian", 2, BIG_ENDIAN, CT, &[5; 100]),
        deflated(3),
        encapsulated(4),
        native("large", 5, EXPLICIT, CT, &vec![6; 1_500_000]),
        native("private_syntax", 6, "1.2.826.0.1.3680043.8.498.99.1", CT, &[7; 100]),
        native("private_class", 7, EXPLICIT, "1.2.826.0.1.3680043.8.498.99.2", &[8; 100]),
        unknown,
        lying,
        icon(10),
    ]
}
