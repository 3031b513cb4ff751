//! Bytes on their way to one HTTP/1.1 connection: small pieces joined, large ones passed on uncopied.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use crate::connection::io::{Io, READ_BUSY};
use crate::fields::Headers;

const COPY_BELOW: usize = 4_096; // copying so little costs less than another slice of a vectored write
const SLICES: usize = 16;
/// What may wait before the reader must take some.
pub const ROOM: usize = READ_BUSY;

/// Owns what waits; `wrote`: whether any byte left.
#[derive(Debug, Default)]
pub struct Out {
    queue: VecDeque<Bytes>,
    tail: BytesMut,
    size: usize,
    pub wrote: bool,
}

impl Out {
    /// Bytes waiting.
    pub fn len(&self) -> usize {
        self.size
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// Queue bytes.
    pub fn put(&mut self, data: &[u8]) {
        self.size += data.len();
        self.tail.extend_from_slice(data);
    }

    /// Queue field lines.
    pub fn put_fields(&mut self, headers: &Headers) {
        for (name, value) in headers.iter() {
            self.put(name.as_str().as_bytes());
            self.put(b": ");
            self.put(value.as_bytes());
            self.put(b"\r\n");
        }
    }

    /// Queue a body piece.
    pub fn pass(&mut self, data: Bytes) {
        if data.len() < COPY_BELOW {
            return self.put(&data);
        }
        self.seal();
        self.size += data.len();
        self.queue.push_back(data);
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.queue.push_back(self.tail.split().freeze());
        }
    }

    /// Write until nothing waits; pending while the other side takes no more.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, io: &mut Io) -> Poll<io::Result<()>> {
        self.seal();
        while self.size > 0 {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut count = 0;
            for (slice, data) in slices.iter_mut().zip(&self.queue) {
                *slice = IoSlice::new(data);
                count += 1;
            }
            match Pin::new(&mut *io).poll_write_vectored(cx, &slices[..count]) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => self.advance(written),
            }
        }
        Pin::new(io).poll_flush(cx)
    }

    fn advance(&mut self, mut written: usize) {
        self.wrote = true;
        self.size -= written;
        while let Some(first) = self.queue.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.queue.pop_front();
        }
    }

    /// Forget what waits.
    pub fn clear(&mut self) {
        self.queue.clear();
        self.tail.clear();
        self.size = 0;
    }
}
