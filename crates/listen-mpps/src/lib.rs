//! MPPS as JSON over HTTP.
