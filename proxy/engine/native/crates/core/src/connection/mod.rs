//! Connections before anything is spoken on them: accepted or dialled, under TLS or not, and what they are asked from outside.

pub mod tls;

pub(crate) mod ahead;
pub(crate) mod alerts;
pub(crate) mod dial;
pub(crate) mod handout;
pub(crate) mod io;
pub(crate) mod kind;
pub(crate) mod leaving;
pub(crate) mod listener;
pub mod refusal;
pub mod via;
