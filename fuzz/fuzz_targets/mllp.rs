//! MLLP framing: pieces of any size give the same frames.
#![no_main]

use bytes::BytesMut;
use hilum_wire::mllp::{Codec, Frame, Limits};
use libfuzzer_sys::fuzz_target;
use tokio_util::codec::Decoder;

fn frames(bytes: &[u8], piece: usize) -> Vec<Frame> {
    let mut codec = Codec::new(Limits { frame_bytes_max: 4096, junk_bytes_max: usize::MAX });
    let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
    for piece in bytes.chunks(piece) {
        buffer.extend_from_slice(piece);
        while let Ok(Some(frame)) = codec.decode(&mut buffer) {
            found.push(frame);
        }
    }
    found.extend(codec.decode_eof(&mut buffer).ok().flatten());
    found
}

fuzz_target!(|bytes: &[u8]| {
    if bytes.len() < 4000 {
        assert_eq!(frames(bytes, 1), frames(bytes, 5000));
    }
});
