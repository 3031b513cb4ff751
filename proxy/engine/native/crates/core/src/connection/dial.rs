//! Makes one upstream connection: address, socket, TLS with the identity that was called for, protocol.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio_rustls::{TlsConnector, client};

use crate::call::cause::Cause;
use crate::call::ends::Lost;
use crate::call::pool::{Fresh, Origin};
use crate::clusters::{Tls, Wire};
use crate::connection::ahead::Ahead;
use crate::connection::io::Io;
use crate::connection::kind::Kind;
use crate::connection::leaving::Leaving;
use crate::connection::refusal::{Refusal, by_alert, unverified};
use crate::connection::tls::{ALPN_H2, Verified, app_config};
use crate::connection::via::Via;
use crate::http1::client::H1Conn;
use crate::http2::client::H2Conn;
use crate::seam::ask::{Leaf, Notice, Question};
use crate::shared::Shared;

/// Connect, and prove whom we reached; an HTTP/2 peer is up once its SETTINGS came.
pub async fn connect(shared: &Rc<Shared>, origin: &Origin, changed: impl Fn() + 'static) -> Result<Fresh, Lost> {
    let who = shared.clusters.borrow().who(&origin.cluster);
    let mut chose_h2 = None;
    let leaving = Leaving::new();
    let begun = Instant::now();
    let connected: Duration;
    let kind = match (&origin.tls, &origin.via) {
        (_, Some(via)) => {
            let way = by_proxy(via, origin, &who, begun).await?;
            connected = way.1;
            way.0
        }
        (Tls::None, None) => {
            let kind = socket(origin).await?;
            connected = begun.elapsed();
            kind
        }
        (Tls::App, None) => {
            let config = app_config(origin.wire == Wire::Http1);
            let config = config.map_err(|error| Lost::new(Cause::TlsIdentity, error.to_string()))?;
            let (tcp, name) = nameless(tcp(&origin.address).await?)?;
            connected = begun.elapsed();
            Kind::Client(Box::new(handshake(config, tcp, name, &who, |error| mismatched(origin, &who, error)).await?))
        }
        (Tls::Verified(verified), None) => {
            let tcp = Ahead::new(tcp(&origin.address).await?);
            connected = begun.elapsed();
            Kind::Client(Box::new(prove_name(verified, tcp, &who).await?))
        }
        (Tls::Mesh, None) => {
            let identity = shared.identity.borrow().clone();
            let none = || Lost::new(Cause::NotReady, "this proxy has no certificate yet");
            let identity = identity.ok_or_else(none)?;
            let (tcp, name) = nameless(tcp(&origin.address).await?)?;
            connected = begun.elapsed();
            let stream = handshake(identity.client, tcp, name, &who, |error| mismatched(origin, &who, error)).await?;
            let (is_plain_h2, ends_at) = prove(shared, origin, &stream).await?;
            chose_h2 = Some(is_plain_h2);
            leaving.limit(ends_at.min(identity.ends_at), &shared.limits);
            Kind::Client(Box::new(stream))
        }
    };
    let tls = if origin.tls == Tls::None { Duration::ZERO } else { begun.elapsed().saturating_sub(connected) };
    let io = Io::new(kind);
    let tell = || {
        if !origin.address.starts_with("unix:") {
            shared.note(Notice::UpstreamConnected { cluster: origin.cluster.clone(), connect: connected, tls });
        }
    };
    if origin.wire == Wire::Http1 {
        tell();
        let asked = origin.via.clone().filter(|_| origin.tls == Tls::None && !origin.tunnel);
        let who = asked.as_ref().map_or(who, |via| via.who().into());
        return Ok(Fresh::H1(H1Conn::new(shared, io, who, asked)));
    }
    let hint = match &origin.tls {
        Tls::None if origin.wire == Wire::Postern => "; it may want mutual TLS",
        Tls::Mesh => "; it may have refused us: look for 'peer refused' in its log",
        _ => "",
    };
    let conn = H2Conn::begin(shared, io, origin, who, chose_h2, leaving, changed).await;
    conn.inspect(|_| tell()).map(Fresh::H2).map_err(|lost| match lost.cause {
        Cause::Connect => Lost { detail: lost.detail + hint, ..lost },
        _ => lost,
    })
}

async fn socket(origin: &Origin) -> Result<Kind, Lost> {
    match origin.address.strip_prefix("unix:") {
        Some(path) => UnixStream::connect(path).await.map(Kind::Unix).map_err(|error| refused(&error)),
        None => tcp(&origin.address).await.map(Kind::Tcp),
    }
}

async fn tcp(address: &str) -> Result<TcpStream, Lost> {
    let no_address = || {
        let shown: String = address.chars().take(80).collect();
        Lost::new(Cause::Connect, format!("invalid address '{shown}'"))
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(no_address)?;
    let port: u16 = port.parse().map_err(|_| no_address())?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || host.len() > 253 {
        return Err(no_address());
    }
    let stream = TcpStream::connect((host, port)).await.map_err(|error| refused(&error))?;
    stream.set_nodelay(true).map_err(|error| refused(&error))?;
    Ok(stream)
}

fn refused(error: &io::Error) -> Lost {
    Lost::new(Cause::Connect, os_reason(error))
}

/// Why the system refused, in its own words.
pub fn os_reason(error: &io::Error) -> String {
    error.to_string().split(" (os error").next().unwrap_or_default().to_owned()
}

type TlsStream = client::TlsStream<Ahead>;

/// No SNI: who it is, the certificate says.
fn nameless(tcp: TcpStream) -> Result<(Ahead, ServerName<'static>), Lost> {
    let address = tcp.peer_addr().map_err(|error| refused(&error))?;
    Ok((Ahead::new(tcp), ServerName::IpAddress(address.ip().into())))
}

/// Through an HTTP proxy: a tunnel to the server, or for most in plaintext the proxy itself, which is asked for it; and how long the way took.
async fn by_proxy(via: &Via, origin: &Origin, who: &str, begun: Instant) -> Result<(Kind, Duration), Lost> {
    let named = |lost: Lost| Lost { detail: format!("{}: {}", via.who(), lost.detail), ..lost };
    let mut plain = tcp(&via.address).await.map_err(named)?;
    let server = if let Tls::Verified(server) = &origin.tls { Some(server) } else { None };
    let asks = server.is_some() || origin.tunnel;
    let Some(proxy) = &via.tls else {
        if asks {
            via.ask(&mut plain, &origin.address).await?;
        }
        let opened = begun.elapsed();
        return Ok(match server {
            Some(server) => (Kind::Client(Box::new(prove_name(server, Ahead::new(plain), who).await?)), opened),
            None => (Kind::Tcp(plain), opened),
        });
    };
    let mut secure = prove_name(proxy, Ahead::new(plain), &via.who())
        .await
        .map_err(|lost| Lost::new(Cause::Connect, format!("TLS with {} failed: {}", via.who(), lost.detail)))?;
    if asks {
        via.ask(&mut secure, &origin.address).await?;
    }
    let opened = begun.elapsed();
    Ok(match server {
        Some(server) => (Kind::Nested(Box::new(prove_name(server, secure, who).await?)), opened),
        None => (Kind::Client(Box::new(secure)), opened),
    })
}

/// TLS with a server, `who` for people, that has to prove its name.
async fn prove_name<S>(verified: &Verified, stream: S, who: &str) -> Result<client::TlsStream<S>, Lost>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let failed = |error: &rustls::Error| unverified(error, &verified.name.to_str(), who);
    handshake(verified.config.clone(), stream, verified.name.clone(), who, failed).await
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    config: Arc<rustls::ClientConfig>,
    stream: S,
    name: ServerName<'static>,
    who: &str,
    failed: impl Fn(&rustls::Error) -> String,
) -> Result<client::TlsStream<S>, Lost> {
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls {
            Some(tls) => Lost::new(Cause::TlsIdentity, failed(tls)),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                Lost::new(Cause::Connect, format!("{who} closed the connection during the TLS handshake"))
            }
            None => refused(&error),
        }
    })
}

fn mismatched(origin: &Origin, who: &str, error: &rustls::Error) -> String {
    let why = match error {
        rustls::Error::AlertReceived(alert) => return by_alert(*alert, who, origin.tls == Tls::Mesh),
        rustls::Error::InvalidMessage(_) => "the other end does not speak TLS".to_owned(),
        other => other.to_string(),
    };
    format!("{}TLS failed: {why}", wanted(origin))
}

fn wanted(origin: &Origin) -> String {
    if origin.expect.is_empty() { String::new() } else { format!("expected {}, ", origin.expect.join(" or ")) }
}

/// Check whom we reached; returns whether it speaks HTTP/2 alone, and when its certificate ends.
async fn prove(shared: &Shared, origin: &Origin, stream: &TlsStream) -> Result<(bool, SystemTime), Lost> {
    let mismatch = |detail: String| Lost::new(Cause::TlsIdentity, detail);
    let tls = stream.get_ref().1;
    let leaf = tls.peer_certificates().and_then(<[CertificateDer<'_>]>::first);
    let leaf = leaf.ok_or_else(|| mismatch("the peer presented no certificate".into()))?.to_vec();
    let is_plain_h2 = tls.alpn_protocol().map(|chosen| chosen == ALPN_H2);
    let met = whose(shared, leaf, true).await.map_err(|refusal| mismatch(refusal.detail))?;
    if !origin.expect.contains(&met.spiffe_id) {
        return Err(mismatch(format!("{}got {}", wanted(origin), met.spiffe_id)));
    }
    let is_plain_h2 = is_plain_h2.ok_or_else(|| mismatch("the peer chose no application protocol (ALPN)".into()))?;
    Ok((is_plain_h2, met.ends_at))
}

/// Whose a leaf is whose chain was verified, or why its owner is not let in.
pub async fn whose(shared: &Shared, der: Vec<u8>, as_server: bool) -> Result<Leaf, Refusal> {
    let (answer, told) = oneshot::channel();
    shared.inbox.ask(Question::Verify { der, as_server, answer });
    told.await.map_err(|_| Refusal::new("other", "the proxy is shutting down"))?
}
