//! The socket under TLS, read further than it was asked: `rustls` asks for 4 KiB at a time, and each would be a system call.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What is read at once: four full records (RFC 8446 §5.1).
const SIZE: usize = 65_536;

thread_local! {
    /// What the last connection read into, for the next: only one that holds unread bytes has a buffer of its own.
    static SPARE: RefCell<Option<Box<[u8]>>> = const { RefCell::new(None) };
}

/// A TCP stream and what was read of it that nobody took yet.
#[derive(Debug)]
pub struct Ahead {
    stream: TcpStream,
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Held {
    fn give(&mut self, wanted: &mut ReadBuf<'_>) {
        let size = wanted.remaining().min(self.end - self.start);
        wanted.put_slice(&self.buffer[self.start..self.start + size]);
        self.start += size;
    }
}

impl Ahead {
    /// Nothing read yet.
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, held: None }
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }
}

impl AsyncRead for Ahead {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, wanted: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut held = if let Some(held) = this.held.take() {
            held
        } else {
            let mut buffer = SPARE.take().unwrap_or_else(|| vec![0; SIZE].into());
            let mut room = ReadBuf::new(&mut buffer);
            let polled = Pin::new(&mut this.stream).poll_read(cx, &mut room);
            let end = room.filled().len();
            if end == 0 {
                SPARE.set(Some(buffer));
                return polled;
            }
            Held { buffer, start: 0, end }
        };
        held.give(wanted);
        if held.start == held.end {
            SPARE.set(Some(held.buffer));
        } else {
            this.held = Some(held);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Ahead {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::{Ahead, SIZE};

    #[tokio::test(flavor = "current_thread")]
    async fn what_was_read_ahead_comes_in_order_to_its_own_stream() -> std::io::Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let mut ends = Vec::new();
        for seed in [3_usize, 7] {
            let sent: Vec<u8> = (0..SIZE + 1_000).map(|place| (place * seed) as u8).collect();
            let mut stream = TcpStream::connect(listener.local_addr()?).await?;
            let (accepted, _) = listener.accept().await?;
            let copy = sent.clone();
            let sending = tokio::spawn(async move {
                stream.write_all(&copy).await?;
                stream.shutdown().await
            });
            ends.push((Ahead::new(accepted), sent, sending));
        }
        let mut taken = [Vec::new(), Vec::new()];
        let mut some = [0; 4_096];
        for _ in 0..=2 * (SIZE + 1_000) {
            for ((ahead, ..), taken) in ends.iter_mut().zip(&mut taken) {
                let count = ahead.read(&mut some).await?;
                taken.extend_from_slice(&some[..count]);
            }
            if ends.iter().zip(&taken).all(|((_, sent, _), taken)| sent.len() == taken.len()) {
                break;
            }
        }
        for ((mut ahead, sent, sending), taken) in ends.into_iter().zip(taken) {
            assert!(sent == taken);
            assert_eq!(ahead.read(&mut some).await?, 0);
            sending.await??;
        }
        Ok(())
    }
}
