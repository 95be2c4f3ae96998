//! DICOM bytes: commands, answers, file heads; and the data-set scanner, to which pieces of any size give the same verdict.
#![no_main]

use hilum_wire::dimse::{Answer, Command, pdvs};
use hilum_wire::part10::Head;
use hilum_wire::scan::{Limits, Scanner};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = (Command::read(bytes), Answer::read(bytes), pdvs(bytes), Head::read(bytes));
    for syntax in ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"] {
        let verdict = |piece: usize| {
            let mut scanner = Scanner::new(syntax, Limits::default());
            bytes.chunks(piece).for_each(|piece| scanner.feed(piece));
            scanner.finish().is_ok()
        };
        assert_eq!(verdict(3), verdict(usize::MAX));
    }
});
