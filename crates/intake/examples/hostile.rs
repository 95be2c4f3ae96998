//! How long hostile bodies take: `cargo run --release -p hilum-intake --example hostile [-- KIB [NAME]]`.
//!
//! Each shape is read, mapped, planned and written to a store of its own at a quarter, a half and the whole of the size, twice: as news and as an
//! update of what is there. A number that grows by more than the size is square work. Times are in milliseconds of processor time, so that what
//! else the machine does is not counted.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "an example that cannot go on fails, and prints"
)]

#[path = "../tests/hostile/drive.rs"]
mod drive;
#[path = "../tests/hostile/shapes.rs"]
mod shapes;

use drive::Bench;
use shapes::SHAPES;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let kib: usize = arguments.first().and_then(|text| text.parse().ok()).unwrap_or(1024);
    let wanted = arguments.get(1).map_or("", String::as_str);
    println!("{:40} {:>8} {:>8} {:>8} {:>8} {:>8}  answer", "shape", "1/4", "1/2", "1", "again", "growth");
    for shape in SHAPES.iter().filter(|shape| shape.name.contains(wanted)) {
        let mut times = Vec::new();
        let (mut again, mut answer) = (0.0, String::new());
        for bytes in [kib * 256, kib * 512, kib * 1024] {
            let dir = tempfile::tempdir().unwrap();
            let bench = Bench::open(dir.path()).await;
            let body = shape.body(bytes);
            let start = spent_ms();
            answer = bench.send(shape.door, &body, "1").await;
            times.push(spent_ms() - start);
            let start = spent_ms();
            bench.send(shape.door, &body, "2").await;
            again = spent_ms() - start;
        }
        let growth = times[2] / times[1];
        println!(
            "{:40} {:8.0} {:8.0} {:8.0} {again:8.0} {growth:8.1}  {answer}",
            shape.name, times[0], times[1], times[2]
        );
    }
}

/// Processor time of the process so far, in milliseconds, in steps of 10. Linux: `utime` and `stime` of proc_pid_stat(5).
fn spent_ms() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = text.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap());
    ticks.sum::<f64>() * 10.0
}
