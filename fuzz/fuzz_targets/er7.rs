//! HL7 v2: every byte of a decoded message is accounted for, and every message can be answered.
#![no_main]

use hilum_wire::er7::{Ack, AckCode, Header, Limits, Message, acknowledge, split_batch, unframed};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    for message in split_batch(unframed(bytes), &limits).messages {
        let header = Header::read(message);
        let _ = acknowledge(header.as_ref(), &Ack { code: AckCode::AE, faults: &[], control_id: "1", time: "2024" });
        let Some(read) = Message::read(message, &limits) else { continue };
        let segments: usize = read.segments.iter().map(|s| s.range.len()).sum();
        if !read.faults.iter().any(|f| f.rejects) {
            assert_eq!(segments + read.other_bytes, read.text.len());
        }
        for leaf in read.segments.iter().flat_map(|s| &s.leaves) {
            let _ = read.value(leaf);
        }
    }
});
