//! Reading what peers send: MLLP frames, an HL7 v2 message, a DICOM data set. Aims: 10 us for an ORU, 2 GB/s of pixels passed by.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hilum_wire::{er7, mllp, scan};
use tokio_util::codec::Decoder;

const ORU: &[u8] = include_bytes!("../../../fixtures/v2/oru_r01.in.er7");
const EXPLICIT_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2.1";
/// A P-DATA-TF fragment as most peers send it.
const PIECE_BYTES: usize = 16 * 1024;

fn message(c: &mut Criterion) {
    let mut group = c.benchmark_group("read");
    group.throughput(Throughput::Bytes(ORU.len() as u64));
    group.bench_function("er7/oru", |b| {
        b.iter(|| er7::Message::read(black_box(ORU), &er7::Limits::default()).unwrap())
    });
    let frame = [b"\x0b", ORU, b"\x1c\r"].concat();
    group.bench_function("mllp/oru", |b| {
        let mut codec = mllp::Codec::new(mllp::Limits { frame_bytes_max: 1 << 20, junk_bytes_max: 1024 });
        b.iter(|| codec.decode(&mut BytesMut::from(black_box(&frame[..]))).unwrap().unwrap())
    });
    group.finish();
}

fn image(c: &mut Criterion) {
    let mut group = c.benchmark_group("read/scan");
    for private in [0, 400] {
        let bytes = data_set(private, 512 * 1024);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_with_input(BenchmarkId::new("private elements", private), &bytes, |b, bytes| {
            b.iter(|| {
                let mut scanner = scan::Scanner::new(EXPLICIT_LITTLE_ENDIAN, scan::Limits::default());
                bytes.chunks(PIECE_BYTES).for_each(|piece| scanner.feed(black_box(piece)));
                scanner.finish().unwrap()
            })
        });
    }
    group.finish();
}

/// What the record needs, so many private elements, and pixels.
fn data_set(private: u16, pixel_bytes: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (group, number, vr, value) in [
        (0x0008_u16, 0x0016_u16, b"UI", "1.2.840.10008.5.1.4.1.1.2\0"),
        (0x0008, 0x0018, b"UI", "1.2.3.4\0"),
        (0x0008, 0x0060, b"CS", "CT"),
        (0x0010, 0x0010, b"PN", "Doe^Jane"),
        (0x0010, 0x0020, b"LO", "4711"),
        (0x0020, 0x000D, b"UI", "1.2.3\0"),
        (0x0020, 0x000E, b"UI", "1.2.3.1\0"),
    ] {
        short(&mut bytes, group, number, vr, value.as_bytes());
    }
    for number in 0..private {
        short(&mut bytes, 0x0029, 0x1000 + number, b"LO", b"sixteen bytes ..");
    }
    bytes.extend([0xE0, 0x7F, 0x10, 0x00, b'O', b'W', 0, 0]);
    bytes.extend(pixel_bytes.to_le_bytes());
    bytes.resize(bytes.len() + pixel_bytes as usize, 7);
    bytes
}

fn short(bytes: &mut Vec<u8>, group: u16, number: u16, vr: &[u8; 2], value: &[u8]) {
    bytes.extend(group.to_le_bytes());
    bytes.extend(number.to_le_bytes());
    bytes.extend(vr);
    bytes.extend(u16::try_from(value.len()).unwrap().to_le_bytes());
    bytes.extend(value);
}

criterion_group!(groups, message, image);
criterion_main!(groups);
