//! The readiness and watchdog protocol of systemd (`sd_notify(3)`): a datagram to `NOTIFY_SOCKET`, when there is one.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Tells the supervisor a state, such as `READY=1`.
pub(crate) fn state(state: &str) {
    let Ok(path) = std::env::var("NOTIFY_SOCKET") else { return };
    if let Ok(socket) = UnixDatagram::unbound() {
        let _ = socket.send_to(state.as_bytes(), path);
    }
}

/// Says that the program lives, twice within each watchdog period, until `stop`.
pub(crate) async fn watchdog(stop: CancellationToken) {
    let period = std::env::var("WATCHDOG_USEC").ok().and_then(|v| v.parse::<u64>().ok());
    let Some(period) = period.map(Duration::from_micros) else { return };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(period / 2) => state("WATCHDOG=1"),
        }
    }
}
