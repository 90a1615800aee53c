//! The replay over packets of our own.
