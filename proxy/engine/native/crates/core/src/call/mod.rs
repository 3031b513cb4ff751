//! One call: its decision found, gates passed, endpoints tried, an answer given.

pub mod breakers;
pub mod budgets;
pub mod cause;
pub mod gates;
pub mod not_retried;
pub mod outliers;
pub mod state;
pub mod trips;

pub(crate) mod answering;
pub(crate) mod answers;
pub(crate) mod attempt;
pub(crate) mod authorizing;
pub(crate) mod balance;
pub mod choosing;
pub(crate) mod deciding;
pub(crate) mod ends;
pub(crate) mod exchange;
pub(crate) mod faulty_up;
pub(crate) mod grpc_web;
pub(crate) mod pool;
pub(crate) mod proving;
pub(crate) mod pushback;
pub(crate) mod request_body;
pub(crate) mod retrying;
pub(crate) mod under_way;
pub(crate) mod unread;
