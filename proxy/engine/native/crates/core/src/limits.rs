//! Bounds of an engine. The defaults are written in `proxy/contract/engine.py` with their reasons; these are for tests of this crate.

use std::time::Duration;

use crate::http2::frame_filter::MAX_FRAME;

/// See `Limits` in `proxy/contract/engine.py`, field by field.
#[derive(Clone, Debug)]
pub struct Limits {
    pub head_bytes: usize,
    pub header_count: usize,
    pub head: Duration,
    pub handshake: Duration,
    pub idle: Duration,
    pub rest: Duration,
    pub stall: Duration,
    pub stall_bytes: u64,
    pub ping: Duration,
    pub pong: Duration,
    pub connections: usize,
    pub streams: u32,
    pub window_bytes: u32,
    pub connection_window_bytes: u32,
    pub resets_per_s: f64,
    pub resets_burst: f64,
    pub control_per_s: f64,
    pub control_burst: f64,
    pub own_app_factor: f64,
    pub continuations: u32,
    pub replay_bytes: usize,
    pub expiry_lead: Duration,
    pub expiry_skew: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 65_536,
            header_count: 256,
            head: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(180),
            rest: Duration::from_secs(1),
            stall: Duration::from_secs(300),
            stall_bytes: 1_024,
            ping: Duration::from_secs(10),
            pong: Duration::from_secs(5),
            connections: 10_000,
            streams: 250,
            window_bytes: 16 * MAX_FRAME,
            connection_window_bytes: 128 * MAX_FRAME,
            resets_per_s: 100.0,
            resets_burst: 400.0,
            control_per_s: 50.0,
            control_burst: 1_000.0,
            own_app_factor: 10.0,
            continuations: 60,
            replay_bytes: 64 << 20,
            expiry_lead: Duration::from_secs(60),
            expiry_skew: Duration::from_secs(10),
        }
    }
}
