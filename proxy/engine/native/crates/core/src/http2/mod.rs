//! HTTP/2: both ends over `h2`, and what stands between it and the bytes.

pub mod client;
pub mod frame_filter;
pub mod frames;
pub mod head_blocks;
pub mod hpack;
pub mod hpack_tables;
pub mod ledger;
pub mod pulse;
pub mod server;
