//! What every door shares: sockets, TLS, limits, drain, credentials, health and API pages. Knows no protocol's content.
//!
//! A door is a [`Session`] (MLLP, DICOM) or an [`axum::Router`] (HTTP) behind a [`Listener`]. The listener owns the socket: it admits,
//! counts, encrypts, catches panics and drains; the session owns the conversation.

pub mod admin;
mod budget;
mod cors;
mod credentials;
mod front;
pub mod health;
pub mod http;
pub mod limits;
mod pages;
mod session;
mod socket;
mod tcp;
mod tls;

pub use budget::{Budget, Share};
pub use cors::Cors;
pub use credentials::{Auth, Caller, Credentials, missing_scope};
pub use front::{Called, Front, NotUnderstood};
pub use limits::Limits;
pub use pages::documentation;
pub use session::{Peer, Session, Stream};
pub use socket::{BindError, Listener, Settings};
pub use tcp::Tcp;
pub use tls::{TlsError, TlsFiles, TlsServer};
