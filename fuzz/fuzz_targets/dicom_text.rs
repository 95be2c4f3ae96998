//! Texts of a data set in any declared character sets: nothing panics, and no escape sequence is taken for text.
#![no_main]

use hilum_wire::scan::{Limits, Scanner, Tag};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (charset, name) = input;
    let mut scanner = Scanner::new("1.2.840.10008.1.2", Limits::default());
    for (tag, value) in [([8, 0, 5, 0], &charset), ([0x10, 0, 0x10, 0], &name), ([0x10, 0, 0x21, 0], &name)] {
        scanner.feed(&tag);
        scanner.feed(&u32::try_from(value.len()).unwrap_or(0).to_le_bytes());
        scanner.feed(value);
    }
    let Ok(header) = scanner.finish() else { return };
    for tag in [Tag::new(0x0010, 0x0010), Tag::new(0x0010, 0x0021)] {
        assert!(header.values(tag).iter().all(|text| !text.contains('\u{1b}')));
    }
});
