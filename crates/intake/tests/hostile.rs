//! Bodies of 1 MiB that are made to cost much: each is answered, with a refusal that names the place and the figure where a limit is met, and what was
//! refused is kept. No time is measured: what compares each part with each other does not come to its end here.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "hostile/drive.rs"]
mod drive;
#[path = "hostile/shapes.rs"]
mod shapes;

use drive::Bench;
use shapes::{Door, SHAPES};

const MIB: usize = 1024 * 1024;

async fn each_is_answered(door: Door) {
    let mut wrong = Vec::new();
    for shape in SHAPES.iter().filter(|shape| shape.door == door) {
        let dir = tempfile::tempdir().unwrap();
        let bench = Bench::open(dir.path()).await;
        let answer = bench.send(door, &shape.body(MIB), "1").await;
        let is_taken = ["MSA|AA", "200 CA", "accepted"].iter().any(|yes| answer.starts_with(yes));
        let is_right = match shape.refusal {
            None => is_taken,
            Some(parts) => !is_taken && parts.iter().all(|part| answer.contains(part)),
        };
        if !is_right {
            wrong.push(format!("{}: {answer}", shape.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn hl7_v2() {
    each_is_answered(Door::V2).await;
}

#[tokio::test]
async fn hl7_v3() {
    each_is_answered(Door::V3).await;
}

#[tokio::test]
async fn mpps() {
    each_is_answered(Door::Mpps).await;
}

#[tokio::test]
async fn fhir() {
    each_is_answered(Door::Fhir).await;
}
