//! How long a delivery waits after a failed attempt.

const MIN_MS: i64 = 1_000;
const MAX_MS: i64 = 900_000;

/// Full jitter between nothing and twice as long each time, from 1 s to 15 min; milliseconds.
pub(crate) fn back_off(attempts: u32) -> i64 {
    let longest = MIN_MS.saturating_mul(1 << attempts.min(20)).min(MAX_MS);
    let mut random = [0; 8];
    let _ = getrandom::fill(&mut random);
    i64::try_from(u64::from_le_bytes(random) % longest.cast_unsigned()).unwrap_or(0).max(100)
}
