//! As many connections as there are file descriptors: beyond, `accept` fails, and so does every file of the store.

use hilum_listen::Limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Config, Protocol};

/// Descriptors that are no connection: logs, deliveries, the control database.
const RESERVE: u64 = 128;
/// Descriptors of a site: its writing and reading connections, each with a write-ahead log, and a few blobs.
const RESERVE_OF_SITE: u64 = 64;
/// An association holds its socket and the blob that arrives.
const FILES_OF_ASSOCIATION: u64 = 2;

/// Lets the process open as many files as its listeners may have connections; where that is not allowed, lowers the limits of connections.
pub(crate) fn fit(config: &mut Config) {
    let reserve = RESERVE + RESERVE_OF_SITE * config.site.len() as u64;
    let connections = connections(config);
    let available = raised(reserve + connections);
    if let Some(limits) = lowered(&config.limits, connections, available.saturating_sub(reserve)) {
        tracing::warn!(
            open_files = available,
            wanted = reserve + connections,
            http = limits.http.connections_max,
            mllp = limits.mllp.connections_max,
            dicom = limits.dicom.associations_max,
            "too few open files are allowed (ulimit -n, LimitNOFILE): the limits of connections were lowered"
        );
        config.limits = limits;
    }
}

/// Descriptors of all connections that the listeners may have at one moment.
fn connections(config: &Config) -> u64 {
    let limits = &config.limits;
    let of = |protocol| match protocol {
        Protocol::Http | Protocol::Https => limits.http.connections_max as u64,
        Protocol::Mllp | Protocol::Mllps => limits.mllp.connections_max as u64,
        Protocol::Dicom | Protocol::Dicoms => FILES_OF_ASSOCIATION * limits.dicom.associations_max as u64,
    };
    config.listen.iter().map(|listen| of(listen.protocol)).sum()
}

/// How many files the process may open, after it was allowed as many as it can be when `wanted` are more.
fn raised(wanted: u64) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let current = current.unwrap_or(u64::MAX);
    if current >= wanted {
        return current;
    }
    // no maximum: as many as are wanted, since the kernel knows one all the same
    let higher = maximum.unwrap_or(wanted);
    match setrlimit(Resource::Nofile, Rlimit { current: Some(higher), maximum }) {
        Ok(()) => higher,
        Err(_) => current,
    }
}

/// Limits of connections, each lowered in the same ratio, that need no more than `available` descriptors; `None` when they fit as they are.
fn lowered(limits: &Limits, connections: u64, available: u64) -> Option<Limits> {
    if connections <= available {
        return None;
    }
    let lower = |max: &mut usize| {
        let share = u128::from(available) * (*max as u128) / u128::from(connections.max(1));
        *max = usize::try_from(share).unwrap_or(*max).max(1);
    };
    let mut limits = *limits;
    lower(&mut limits.http.connections_max);
    lower(&mut limits.mllp.connections_max);
    lower(&mut limits.dicom.associations_max);
    Some(limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_lowered_in_one_ratio_and_never_to_nothing() {
        let limits = Limits::default();
        assert_eq!(lowered(&limits, 16_000, 16_000), None, "it fits");
        let half = lowered(&limits, 16_000, 8_000).unwrap();
        let maxima = (half.http.connections_max, half.mllp.connections_max, half.dicom.associations_max);
        assert_eq!(maxima, (2_000, 5_000, 500));
        let none = lowered(&limits, 16_000, 0).unwrap();
        let maxima = (none.http.connections_max, none.mllp.connections_max, none.dicom.associations_max);
        assert_eq!(maxima, (1, 1, 1));
    }

    #[test]
    fn every_listener_counts() {
        let config = Config::development().unwrap();
        let expected: u64 = config
            .listen
            .iter()
            .map(|listen| match listen.protocol {
                Protocol::Http | Protocol::Https => 4_000,
                Protocol::Mllp | Protocol::Mllps => 10_000,
                Protocol::Dicom | Protocol::Dicoms => 2_000,
            })
            .sum();
        assert!(config.listen.len() >= 3);
        assert_eq!(connections(&config), expected);
    }
}
