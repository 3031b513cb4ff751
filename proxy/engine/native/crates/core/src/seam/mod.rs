//! Between the workers and the side that decides: questions and outcomes there, commands back.

pub mod ask;
pub mod commands;
pub mod inboxes;
pub mod lines;
pub mod spans;
pub mod tally;
pub mod zipkin;
