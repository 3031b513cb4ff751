//! Carries Plans: HTTP/1.1 and HTTP/2 both ways, pools, retries, mutual TLS. Decides nothing and knows no Python: what no kept
//! decision covers is asked over `ask`, and what came of a call is told there.
#![forbid(unsafe_code)]

pub mod access;
pub mod ask;
pub mod cache;
pub mod call_state;
pub mod cause;
pub mod clusters;
pub mod commands;
pub mod edits;
pub mod engine;
pub mod fields;
pub mod head;
pub mod inboxes;
pub mod limits;
pub mod plan;
pub mod shared;
pub mod tables;
pub mod tally;
pub mod target;
pub mod tls;
pub mod trace;

mod ahead;
mod answers;
mod attempt;
mod balance;
mod body_scan;
mod dial;
mod ends;
mod exchange;
mod frame_gate;
mod frames;
#[cfg(test)]
mod fuzz;
mod gate;
mod h1_client;
mod h1_server;
mod h2_client;
mod h2_server;
mod handout;
mod head_blocks;
mod head_scan;
mod hpack;
mod hpack_tables;
mod io;
mod leaving;
mod ledger;
mod listener;
mod out;
mod pool;
mod pulse;
mod websocket;
