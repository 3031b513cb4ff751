//! Carries Plans: HTTP/1.1 and HTTP/2 both ways, pools, retries, mutual TLS. Decides nothing and knows no Python: what no kept
//! decision covers is asked over `ask`, and what came of a call is told there.
#![forbid(unsafe_code)]

pub mod call;
pub mod clusters;
pub mod connection;
pub mod decision;
pub mod engine;
pub mod fields;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod head;
pub mod limits;
pub mod seam;
pub mod shared;

mod http1;
mod http2;
#[cfg(test)]
mod vectors;
