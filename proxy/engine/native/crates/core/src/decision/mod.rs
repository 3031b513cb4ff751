//! What deciders say, made ready, kept, and found again by what a call's head says.

pub mod access;
pub mod baggage;
pub mod cache;
pub mod deadlines;
pub mod edits;
pub mod path_readings;
pub mod plan;
pub mod tables;
pub mod target;
pub mod templates;
pub mod trace;
