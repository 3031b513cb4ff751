//! Between the workers and the side that decides: questions and outcomes there, commands back.

pub mod ask;
pub mod commands;
pub mod inboxes;
pub mod lines;
pub mod news;
pub mod spans;
pub mod split;
pub mod tally;
pub mod zipkin;
