//! Where the server is, and connections to it.

use super::connection::{Connection, Io};
use super::migrate;
use super::settings::{PostgresConfig, Target};
use crate::Error;

/// Where connections come from.
pub(super) struct Place {
    io: Io,
    target: Target,
}

impl Place {
    pub(super) fn new(settings: &PostgresConfig) -> Result<Self, Error> {
        let (io, target) = (Io::new()?, Target::new(settings)?);
        Ok(Self { io, target })
    }

    pub(super) fn connect(&self) -> Result<Connection, Error> {
        Connection::open(&self.io, &self.target)
    }

    /// A connection to write with: the server may be another one after a failover, so it is looked at again.
    pub(super) fn connect_to_write(&self) -> Result<Connection, Error> {
        let connection = self.connect()?;
        migrate::check(&connection).map_err(|error| self.named(error))?;
        Ok(connection)
    }

    /// An error with the URL in front.
    pub(super) fn named(&self, error: Error) -> Error {
        let message = format!("{}: {}", self.target.shown, error.message);
        Error { message, ..error }
    }
}
