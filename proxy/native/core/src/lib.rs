//! Carries Plans: HTTP/1.1 and HTTP/2 both ways, pools, retries, mutual TLS. Decides nothing and knows no Python: what no kept
//! decision covers is asked over `ask`, and what came of a call is told there.
#![forbid(unsafe_code)]

pub mod balance;
pub mod body_scan;
pub mod cache;
pub mod cause;
pub mod clusters;
pub mod edits;
pub mod gate;
pub mod head;
pub mod head_scan;
pub mod limits;
pub mod plan;
pub mod tables;
pub mod target;
pub mod trace;
