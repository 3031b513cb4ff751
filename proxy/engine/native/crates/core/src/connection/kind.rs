//! What carries a connection's bytes, and how it ends.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{client, server};

use crate::connection::ahead::Ahead;

/// What carries the bytes.
#[derive(Debug)]
pub enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
    Server(Box<server::TlsStream<Ahead>>),
    Client(Box<client::TlsStream<Ahead>>),
    /// Through a proxy that is itself spoken to over TLS.
    Nested(Box<client::TlsStream<client::TlsStream<Ahead>>>),
    /// Given away.
    Gone,
}

/// Do the same with a stream of whatever kind.
macro_rules! carried {
    ($kind:expr, $stream:ident => $done:expr, $gone:expr) => {
        match $kind {
            Kind::Tcp($stream) => $done,
            Kind::Unix($stream) => $done,
            Kind::Server($stream) => $done,
            Kind::Client($stream) => $done,
            Kind::Nested($stream) => $done,
            Kind::Gone => $gone,
        }
    };
}

pub(crate) use carried;

/// What an ended peer still sends is read for so long, so that our last words are not lost in a reset.
const LINGER: std::time::Duration = std::time::Duration::from_secs(1);

/// Close a connection so that the peer hears it: TLS says that it ends (RFC 8446 §6.1).
pub fn part(kind: Kind) {
    let parting = async move {
        match kind {
            Kind::Tcp(mut stream) => {
                stream.shutdown().await?;
                drain(stream).await
            }
            Kind::Server(mut tls) => {
                tls.shutdown().await?;
                drain(tls.into_inner().0).await
            }
            Kind::Client(mut tls) => {
                tls.shutdown().await?;
                drain(tls.into_inner().0).await
            }
            Kind::Nested(mut tls) => {
                tls.shutdown().await?;
                drain(tls.into_inner().0).await
            }
            Kind::Unix(_) | Kind::Gone => Ok(()),
        }
    };
    tokio::task::spawn_local(tokio::time::timeout(LINGER, parting));
}

async fn drain(mut stream: impl AsyncRead + Unpin) -> io::Result<()> {
    let mut scratch = [0; 4_096];
    while stream.read(&mut scratch).await? > 0 {}
    Ok(())
}
