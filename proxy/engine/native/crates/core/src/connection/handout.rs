//! Hands accepted connections out to the workers. One worker accepts; each connection goes to the worker with the fewest of that listener,
//! so that a few connections already load all workers alike (`SO_REUSEPORT` would throw dice for each).

use std::iter::repeat_with;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::connection::kind::Kind;

/// How many connections of one listener each worker has, those on their way included. Exact: the bound on connections rests on it.
#[derive(Debug)]
pub struct Seats {
    taken: Vec<AtomicUsize>,
    turn: AtomicUsize,
}

/// A connection's place in the counts, free again when dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    pub worker: usize,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken[self.worker].fetch_sub(1, Ordering::AcqRel);
    }
}

impl Seats {
    /// At so many workers; `first`: whose turn it is while all have equally many.
    pub fn new(workers: usize, first: usize) -> Arc<Self> {
        Arc::new(Self { taken: repeat_with(AtomicUsize::default).take(workers).collect(), turn: first.into() })
    }

    /// Of one worker.
    pub fn taken(&self, worker: usize) -> usize {
        self.taken[worker].load(Ordering::Acquire)
    }

    /// A seat at the least busy worker, in turn where several are; `None` where `most` are taken. Called by the accepting worker alone.
    pub fn take(self: &Arc<Self>, most: usize) -> Option<Seat> {
        let workers = self.taken.len();
        if (0..workers).map(|worker| self.taken(worker)).sum::<usize>() >= most {
            return None;
        }
        let turn = self.turn.load(Ordering::Relaxed);
        let worker = (turn..turn + workers).map(|place| place % workers).min_by_key(|worker| self.taken(*worker))?;
        self.turn.store((worker + 1) % workers, Ordering::Relaxed);
        self.taken[worker].fetch_add(1, Ordering::AcqRel);
        Some(Seat { seats: self.clone(), worker })
    }
}

/// An accepted connection on its way to another worker: out of the event loop of the one that accepted it.
#[derive(Debug)]
pub struct Parcel {
    stream: Stream,
    pub address: Arc<str>,
    pub seat: Seat,
}

#[derive(Debug)]
enum Stream {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Parcel {
    /// `None` where the stream is gone, or not fresh from a listening socket.
    pub fn pack(kind: Kind, address: Arc<str>, seat: Seat) -> Option<Self> {
        let stream = match kind {
            Kind::Tcp(stream) => Stream::Tcp(stream.into_std().ok()?),
            Kind::Unix(stream) => Stream::Unix(stream.into_std().ok()?),
            _ => return None,
        };
        Some(Self { stream, address, seat })
    }

    /// Into the event loop of the worker that serves it.
    pub fn unpack(self) -> (Option<Kind>, Arc<str>, Seat) {
        let kind = match self.stream {
            Stream::Tcp(stream) => TcpStream::from_std(stream).ok().map(Kind::Tcp),
            Stream::Unix(stream) => UnixStream::from_std(stream).ok().map(Kind::Unix),
        };
        (kind, self.address, self.seat)
    }
}

/// The ways to the workers that do not accept. No way is bounded: seats are.
pub fn ways(others: usize) -> (Vec<UnboundedSender<Parcel>>, Vec<UnboundedReceiver<Parcel>>) {
    repeat_with(unbounded_channel).take(others).unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_connections_are_spread_evenly_and_the_bound_is_exact() {
        let seats = Seats::new(3, 1);
        let mut held: Vec<_> = (0..7).map(|_| seats.take(7).unwrap()).collect();
        assert_eq!(held.iter().map(|seat| seat.worker).collect::<Vec<_>>(), [1, 2, 0, 1, 2, 0, 1]);
        assert!(seats.take(7).is_none());
        held.retain(|seat| seat.worker != 2);
        assert_eq!((0..3).map(|worker| seats.taken(worker)).collect::<Vec<_>>(), [2, 3, 0]);
        held.extend([seats.take(7).unwrap(), seats.take(7).unwrap()]);
        assert_eq!(seats.taken(2), 2, "the least busy worker is first");
        assert!(seats.take(7).is_none());
    }

    #[test]
    fn connections_that_come_one_after_the_other_go_round() {
        let seats = Seats::new(2, 0);
        let workers: Vec<_> = (0..4).map(|_| seats.take(9).unwrap().worker).collect();
        assert_eq!(workers, [0, 1, 0, 1]);
    }
}
