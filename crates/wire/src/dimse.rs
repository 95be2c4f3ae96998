//! DIMSE messages (PS3.7), no sockets. (to be written)
