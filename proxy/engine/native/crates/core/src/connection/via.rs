//! Connections to an HTTP proxy, and through one by CONNECT (RFC 9110 §9.3.6). As `proxy/wire/http_tunnel.py`: errors name the proxy, and
//! credentials are in none.

use std::fmt;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::call::cause::Cause;
use crate::call::ends::Lost;
use crate::connection::dial::os_reason;
use crate::connection::tls::Verified;

const HEAD_BYTES: usize = 16_384; // of the proxy's answer, whose fields say nothing to us

/// The HTTP proxy that stands before a cluster's servers. `authorization`: of the field Proxy-Authorization, or empty.
#[derive(PartialEq, Eq, Hash)]
pub struct Via {
    pub address: Arc<str>,
    pub authorization: Vec<u8>,
    /// `None`: it is spoken to in plaintext.
    pub tls: Option<Verified>,
}

impl fmt::Debug for Via {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Via({})", self.address) // credentials are not for logs
    }
}

impl Via {
    /// It, for people.
    pub fn who(&self) -> String {
        format!("the HTTP proxy at {}", self.address)
    }

    /// Its answer, for people.
    pub fn refused(&self, what: &str, status: u16) -> String {
        let hint =
            if status == 407 { ": it asks for another user and password, or for any (http://user:password@…)" } else { "" };
        format!("{} answered {what} with status {status}{hint}", self.who())
    }

    /// Have it open a way to `host:port`, on which nothing was sent.
    pub async fn ask(&self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin), authority: &str) -> Result<(), Lost> {
        let failed = |why: &str| Lost::new(Cause::Connect, format!("{} {why}", self.who()));
        let broke = |error: std::io::Error| Lost::new(Cause::Connect, format!("{}: {}", self.who(), os_reason(&error)));
        let mut request = format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n").into_bytes();
        if !self.authorization.is_empty() {
            request.extend_from_slice(b"proxy-authorization: ");
            request.extend_from_slice(&self.authorization);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        stream.write_all(&request).await.map_err(broke)?;
        stream.flush().await.map_err(broke)?;
        let mut head = Vec::new();
        let end = loop {
            if stream.read_buf(&mut head).await.map_err(broke)? == 0 {
                return Err(failed("closed the connection without an answer to CONNECT"));
            }
            if let Some(end) = memchr::memmem::find(&head, b"\r\n\r\n") {
                break end + 4;
            }
            if head.len() > HEAD_BYTES {
                return Err(failed("gave an answer to CONNECT that is not valid HTTP"));
            }
        };
        match status(&head) {
            None => Err(failed("gave an answer to CONNECT that is not valid HTTP")),
            Some(200..300) if end < head.len() => Err(failed("sent something before the server was asked")),
            Some(200..300) => Ok(()),
            Some(status) => Err(Lost::new(Cause::Connect, self.refused(&format!("CONNECT {authority}"), status))),
        }
    }
}

/// Of a response head.
fn status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.1 ").or_else(|| head.strip_prefix(b"HTTP/1.0 "))?;
    let (digits, end) = (rest.get(..3)?, *rest.get(3)?);
    let is_sound = digits.iter().all(u8::is_ascii_digit) && (end == b' ' || end == b'\r');
    is_sound.then(|| digits.iter().fold(0, |number, digit| 10 * number + u16::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(answer: &[u8]) -> (Vec<u8>, Result<(), Lost>) {
        let via = Via { address: "proxy.example:3128".into(), authorization: b"Basic eA==".to_vec(), tls: None };
        let (mut near, mut far) = tokio::io::duplex(65_536);
        far.write_all(answer).await.unwrap();
        far.shutdown().await.unwrap();
        let told = via.ask(&mut near, "api.example:443").await;
        drop(near);
        let mut request = Vec::new();
        far.read_to_end(&mut request).await.unwrap();
        (request, told)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn way_is_open_once_the_proxy_says_so() {
        let (request, told) = asked(b"HTTP/1.0 200 ok\r\nx: y\r\n\r\n").await;
        assert!(told.is_ok());
        let expected = "CONNECT api.example:443 HTTP/1.1\r\nhost: api.example:443\r\nproxy-authorization: Basic eA==\r\n\r\n";
        assert_eq!(request, expected.as_bytes());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn way_that_is_not_open_is_told_with_the_proxys_name() {
        let long = format!("HTTP/1.1 200 ok\r\nx: {}", "x".repeat(2 * HEAD_BYTES)).into_bytes();
        for (answer, words) in [
            (&b"HTTP/1.1 502\r\n\r\n"[..], "answered CONNECT api.example:443 with status 502"),
            (b"", "closed the connection without an answer to CONNECT"),
            (b"HTTP/1.1 200 ok\r\n", "closed the connection without an answer to CONNECT"),
            (b"220 mail\r\n\r\n", "gave an answer to CONNECT that is not valid HTTP"),
            (&long, "gave an answer to CONNECT that is not valid HTTP"),
            (b"HTTP/1.1 200 ok\r\n\r\nx", "sent something before the server was asked"),
        ] {
            let lost = asked(answer).await.1.unwrap_err();
            assert_eq!((lost.cause, lost.detail), (Cause::Connect, format!("the HTTP proxy at proxy.example:3128 {words}")));
        }
    }
}
