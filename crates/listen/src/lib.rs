//! What every door shares: sockets, TLS, limits, drain, credentials, API pages.
