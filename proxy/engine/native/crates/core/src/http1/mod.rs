//! HTTP/1.1: both ends, and the parsers under them.

pub mod body_scan;
pub mod client;
pub mod down;
pub mod h2c;
pub mod head_scan;
pub mod out;
pub(crate) mod request;
pub mod server;
pub mod websocket;
