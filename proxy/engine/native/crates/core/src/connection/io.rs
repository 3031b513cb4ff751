//! One connection's bytes, whatever carries them, with the frame filter for HTTP/2.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use crate::connection::kind::{Kind, carried, part};
use crate::http1::h2c::AHEAD;
use crate::http2::frame_filter::{FrameFilter, MAX_FRAME};
use crate::http2::frames::PREFACE;

const READ: usize = 16_384;
const READ_LEAST: usize = 2_048;
/// Read at once of a body that comes faster than we read: one DATA frame.
pub const READ_BUSY: usize = MAX_FRAME as usize;
const KEPT: usize = 4_096; // of a buffer, while its connection waits
/// Of a body that is read, or waits to be written: then the other side has its turn, while the bytes are in the core's cache.
pub const STEP: usize = 2 * READ_BUSY;

thread_local! {
    /// Where bytes are read whose number nobody knows: most connections are idle, and a buffer for each would be what they cost.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
}

/// A stream, the bytes that were read from it already, and who watches its frames.
#[derive(Debug)]
pub struct Io {
    kind: Kind,
    prefix: Bytes,
    /// The last read took all the room that there was: more follows.
    is_busy: bool,
    frames: Option<Box<Frames>>,
}

/// Frames on their way through the filter.
#[derive(Debug)]
struct Frames {
    filter: Rc<FrameFilter>,
    ready: BytesMut,
    /// What `ready` held at its fullest since the connection last waited.
    most: usize,
    /// What was given since then.
    given: usize,
    /// Of what is ready: what a new `h2` is to read before anything of the peer.
    greeting: usize,
    /// What is to go out before anything else, and whether the socket took no more.
    passed: BytesMut,
    is_blocked: bool,
    /// How many bytes went out before the preface that is to follow an upgrade.
    ahead: usize,
    /// Until when nothing is read.
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
    /// An upstream takes nothing more: what it said before it closed is still to be read, so `h2` hears of its end by reading.
    is_deaf: bool,
}

impl Io {
    /// A stream from which nothing was read.
    pub fn new(kind: Kind) -> Self {
        Self { kind, prefix: Bytes::new(), is_busy: false, frames: None }
    }

    /// Put back what was read.
    #[must_use]
    pub fn with_prefix(mut self, prefix: Bytes) -> Self {
        self.prefix = if self.prefix.is_empty() { prefix } else { [prefix, self.prefix.clone()].concat().into() };
        self
    }

    /// What carries the bytes, to go on with elsewhere.
    #[must_use]
    pub fn take(&mut self) -> Self {
        std::mem::replace(self, Self::new(Kind::Gone))
    }

    /// Have frames watched. A preface that was read already passes before any frame is looked at: `h2` can't end a connection well
    /// that it has not begun.
    #[must_use]
    pub fn with_filter(mut self, filter: Rc<FrameFilter>) -> Self {
        let preface = if self.prefix.starts_with(PREFACE) { PREFACE.len() } else { 0 };
        let ready = BytesMut::from(self.prefix.split_to(preface));
        self.watched(filter, ready, 0)
    }

    /// Have frames watched after an upgrade, of which `greeting` tells a new `h2`.
    #[must_use]
    pub fn with_greeting(self, filter: Rc<FrameFilter>, greeting: BytesMut) -> Self {
        let size = greeting.len();
        self.watched(filter, greeting, size)
    }

    fn watched(mut self, filter: Rc<FrameFilter>, ready: BytesMut, greeting: usize) -> Self {
        self.frames = Some(Box::new(Frames {
            filter,
            ready,
            most: 0,
            given: 0,
            greeting,
            passed: BytesMut::new(),
            is_blocked: false,
            ahead: 0,
            pause: None,
            is_deaf: false,
        }));
        self
    }

    /// Read what is there, up to `READ` bytes, or more of a body; 0: the end.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, held: &mut BytesMut) -> Poll<io::Result<usize>> {
        let room = held.capacity() - held.len();
        if self.is_busy && room < READ {
            held.reserve(READ_BUSY); // left to itself, a buffer grows by 64 bytes
        } else if !self.is_busy && room < READ_LEAST {
            return self.poll_some(cx, |some| held.extend_from_slice(some));
        }
        let room = (held.capacity() - held.len()).min(READ_BUSY);
        let polled = poll_read_buf(Pin::new(&mut *self), cx, &mut (&mut *held).limit(room));
        self.is_busy = matches!(polled, Poll::Ready(Ok(count)) if count == room || count >= READ);
        if polled.is_pending() && held.is_empty() {
            *held = BytesMut::new(); // what waits holds no buffer
        }
        polled
    }

    /// Read what is there, up to `READ` bytes, and have it taken; 0: the end.
    fn poll_some(&mut self, cx: &mut Context<'_>, mut take: impl FnMut(&[u8])) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(self.poll_raw(cx, &mut buffer))?;
            take(buffer.filled());
            self.is_busy = buffer.remaining() == 0;
            Poll::Ready(Ok(buffer.filled().len()))
        })
    }

    /// Close so that the other side sees an error, not an end (TCP RST; other streams just close).
    pub fn reset(&self) {
        let socket = match &self.kind {
            Kind::Tcp(tcp) => tcp,
            Kind::Unix(_) | Kind::Gone => return,
            Kind::Server(tls) => tls.get_ref().0.socket(),
            Kind::Client(tls) => tls.get_ref().0.socket(),
            Kind::Nested(tls) => tls.get_ref().0.get_ref().0.socket(),
        };
        drop(socket2::SockRef::from(socket).set_linger(Some(std::time::Duration::ZERO)));
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        if !self.frames.as_ref().is_some_and(|frames| frames.filter.is_flooded())
            || tokio::runtime::Handle::try_current().is_err()
        {
            return;
        }
        part(std::mem::replace(&mut self.kind, Kind::Gone));
    }
}

impl Io {
    /// See `part`.
    pub fn part(mut self) {
        part(std::mem::replace(&mut self.kind, Kind::Gone));
    }

    fn is_secure(&self) -> bool {
        matches!(self.kind, Kind::Server(_) | Kind::Client(_) | Kind::Nested(_))
    }

    fn poll_raw(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let size = self.prefix.len().min(buffer.remaining());
            buffer.put_slice(&self.prefix[..size]);
            self.prefix.advance(size);
            if self.prefix.is_empty() {
                self.prefix = Bytes::new(); // an empty piece holds on to the whole
            }
            return Poll::Ready(Ok(()));
        }
        carried!(&mut self.kind, stream => Pin::new(stream).poll_read(cx, buffer), gone())
    }

    /// Write what `h2` is not asked about any more; `h2` comes after it.
    fn poll_passed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(frames) = &mut self.frames else { return Poll::Ready(Ok(())) };
        while !frames.passed.is_empty() {
            let written = carried!(&mut self.kind, stream => Pin::new(stream).poll_write(cx, &frames.passed), gone());
            frames.is_blocked = written.is_pending();
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => frames.passed.advance(count),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// What `h2` says goes out as far as the peer has not heard it (`Ledger`); returns how much of it was taken.
    fn poll_filtered(&mut self, cx: &mut Context<'_>, data: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_passed(cx))?;
        let mut taken = 0;
        if let Some(frames) = &mut self.frames {
            let Some(ledger) = frames.filter.ledger() else { return Poll::Ready(Ok(0)) };
            for slice in data {
                frames.passed.extend_from_slice(&ledger.borrow_mut().filter(slice));
                taken += slice.len();
            }
        }
        match self.poll_passed(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(taken)), // what waits goes out with what follows, or with the flush
        }
    }

    /// How much may go out now; after an upgrade, the preface is waited for at some point. `h2` may read nothing before it has written.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(mut frames) = self.frames.take_if(|frames| frames.room() == 0) else {
            return Poll::Ready(Ok(self.frames.as_ref().map_or(usize::MAX, |frames| frames.room())));
        };
        let polled = self.poll_some(cx, |some| frames.filter.feed(some, &mut frames.ready));
        frames.is_blocked = polled.is_pending();
        self.frames = Some(frames);
        match ready!(polled)? {
            0 => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            _ => self.poll_room(cx),
        }
    }

    /// Whether all that `h2` said went out, and all that came was read.
    fn is_at_rest(&self) -> bool {
        self.prefix.is_empty()
            && self
                .frames
                .as_ref()
                .is_some_and(|frames| frames.ready.is_empty() && frames.passed.is_empty() && !frames.is_blocked)
    }

    /// Until the peer goes on; false: it has left.
    fn poll_woken(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let Some(mut frames) = self.frames.take() else { return Poll::Ready(false) };
        let polled = self.poll_some(cx, |some| {
            frames.wake();
            frames.filter.feed(some, &mut frames.ready);
        });
        self.frames = Some(frames);
        polled.map(|read| read.is_ok_and(|count| count > 0))
    }
}

fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(mut frames) = this.frames.take() else { return this.poll_raw(cx, buffer) };
        let before = buffer.filled().len();
        let polled = if frames.given >= STEP || frames.filter.is_full() {
            frames.given = 0;
            cx.waker().wake_by_ref();
            Poll::Pending
        } else {
            let polled = frames.poll_read(this, cx, buffer);
            frames.given = if polled.is_pending() { 0 } else { frames.given + buffer.filled().len() - before };
            polled
        };
        this.frames = Some(frames);
        polled
    }
}

impl Frames {
    /// Give some of what is ready, but no more than `most`.
    fn give(&mut self, buffer: &mut ReadBuf<'_>, most: usize) -> usize {
        let size = most.min(buffer.remaining());
        buffer.put_slice(&self.ready[..size]);
        self.ready.advance(size);
        size
    }

    /// What a new `h2` reads first.
    fn wake(&mut self) {
        self.ready = self.filter.wake_up();
        self.greeting = self.ready.len();
    }

    fn poll_read(&mut self, io: &mut Io, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.greeting > 0 {
                let given = self.give(buffer, self.greeting);
                self.greeting -= given;
                return Poll::Ready(Ok(()));
            }
            if self.filter.is_flooded() {
                return Poll::Pending; // its owner was woken and ends the connection
            }
            if self.filter.is_waking() {
                cx.waker().wake_by_ref(); // `h2` has to say how much it takes before it is given more
                return Poll::Pending;
            }
            if !self.ready.is_empty() {
                self.give(buffer, self.ready.len());
                return Poll::Ready(Ok(()));
            }
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            if let Some(length) = self.filter.take_pause() {
                self.pause = Some(Box::pin(tokio::time::sleep(length)));
                continue;
            }
            let passing = if io.is_secure() { self.filter.passing().min(buffer.remaining()) } else { 0 };
            if passing > 0 {
                // What is only passed on goes where it is wanted, not through buffers of ours; rustls has read ahead already.
                let mut some = ReadBuf::new(buffer.initialize_unfilled_to(passing));
                ready!(io.poll_raw(cx, &mut some))?;
                let count = some.filled().len();
                buffer.advance(count);
                self.filter.pass(count);
                return Poll::Ready(Ok(()));
            }
            let (filter, ready) = (&self.filter, &mut self.ready);
            match io.poll_some(cx, |some| filter.feed(some, ready)) {
                Poll::Pending => {
                    if std::mem::take(&mut self.most) > KEPT {
                        self.ready = BytesMut::new();
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => {
                    self.filter.hear_end();
                    return Poll::Ready(Err(error));
                }
                Poll::Ready(Ok(0)) => {
                    self.filter.hear_end();
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(_)) => self.most = self.most.max(self.ready.len()),
            }
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(data)])
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_passed(cx))?;
        let flushed = carried!(&mut this.kind, stream => Pin::new(stream).poll_flush(cx), gone());
        let Some(frames) = &mut this.frames else { return flushed };
        frames.is_blocked |= flushed.is_pending();
        frames.hears(flushed, ())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_passed(cx))?;
        carried!(&mut this.kind, stream => Pin::new(stream).poll_shutdown(cx), gone())
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.frames.as_ref().is_some_and(|frames| frames.filter.is_waking()) {
            return this.poll_filtered(cx, data);
        }
        ready!(this.poll_passed(cx))?;
        let room = ready!(this.poll_room(cx))?;
        let few = data.iter().find(|slice| room < usize::MAX && !slice.is_empty());
        let written = match few.map(|slice| &slice[..slice.len().min(room)]) {
            Some(few) => carried!(&mut this.kind, stream => Pin::new(stream).poll_write(cx, few), gone()),
            None => carried!(&mut this.kind, stream => Pin::new(stream).poll_write_vectored(cx, data), gone()),
        };
        let Some(frames) = &mut this.frames else { return written };
        frames.wrote(&written, data);
        if written.is_pending() {
            return written;
        }
        frames.hears(written, data.iter().map(|slice| slice.len()).sum())
    }

    fn is_write_vectored(&self) -> bool {
        carried!(&self.kind, stream => stream.is_write_vectored(), false)
    }
}

impl Frames {
    /// Whether a write failed is what an upstream's last words tell; `all`: what it would have taken.
    fn hears<T>(&mut self, done: Poll<io::Result<T>>, all: T) -> Poll<io::Result<T>> {
        self.is_deaf |= self.filter.ledger().is_none() && matches!(done, Poll::Ready(Err(_)));
        if self.is_deaf { Poll::Ready(Ok(all)) } else { done }
    }

    /// How much may go out: after an upgrade, little before the client's preface.
    fn room(&self) -> usize {
        if self.filter.awaits_preface() { AHEAD - self.ahead } else { usize::MAX }
    }

    fn wrote(&mut self, written: &Poll<io::Result<usize>>, data: &[io::IoSlice<'_>]) {
        self.is_blocked = written.is_pending();
        let (Poll::Ready(Ok(count)), Some(ledger)) = (written, self.filter.ledger()) else { return };
        if self.filter.awaits_preface() {
            self.ahead += count;
        }
        let (mut left, mut ledger) = (*count, ledger.borrow_mut());
        for slice in data {
            let size = left.min(slice.len());
            ledger.said(&slice[..size]);
            left -= size;
        }
        let resets = ledger.take_resets();
        drop(ledger);
        if resets > 0 {
            self.filter.said_resets(resets);
        }
    }
}

/// A stream that outlives the `h2` which reads and writes it.
#[derive(Clone, Debug)]
pub struct SharedIo(Rc<RefCell<Io>>);

impl SharedIo {
    /// Nobody reads or writes it yet.
    pub fn new(io: Io) -> Self {
        Self(Rc::new(RefCell::new(io)))
    }

    /// Whether `h2` may go, as far as bytes tell.
    pub fn is_at_rest(&self) -> bool {
        self.0.borrow().is_at_rest()
    }

    /// Until the peer goes on, for a new `h2`; false: it has left.
    pub fn poll_woken(&self, cx: &mut Context<'_>) -> Poll<bool> {
        self.0.borrow_mut().poll_woken(cx)
    }

    /// Go on without the peer.
    pub fn wake(&self) {
        if let Some(frames) = &mut self.0.borrow_mut().frames {
            frames.wake();
        }
    }
}

impl AsyncRead for SharedIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, buffer)
    }
}

impl AsyncWrite for SharedIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(cx)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.borrow().is_write_vectored()
    }
}
