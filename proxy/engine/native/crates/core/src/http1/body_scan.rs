//! Where a message's body ends: strict framing of HTTP/1.1 bodies. Equal to `portable/body_scan.py`. Source: RFC 9112 §6, §7.

use bytes::{Buf, Bytes, BytesMut};

use crate::fields::Headers;
use crate::http1::head_scan::{Refusal, find_end, scan_trailers};
use crate::limits::Limits;

const EXTENSION_BYTES: usize = 256; // extensions are allowed and ignored; nobody sends long ones but attackers
const SIZE_DIGITS: usize = 16; // fit 64 bits

/// What the next bytes of a body are.
#[derive(Debug)]
pub enum Piece {
    Data(Bytes),
    End(Option<Headers>),
    More,
}

/// One message's body.
#[derive(Debug)]
pub enum Body {
    Empty,
    Length(u64),
    /// Ends with the connection.
    Close,
    Chunked(Chunks),
}

/// State of a chunked body.
#[derive(Debug, Default)]
pub struct Chunks {
    left: u64,
    owes_line_end: bool,
    in_trailers: bool,
    seen: usize, // of the trailers
}

impl Body {
    /// Take the next piece out of what was read.
    pub fn next(&mut self, held: &mut BytesMut, limits: &Limits) -> Result<Piece, Refusal> {
        match self {
            Self::Empty | Self::Length(0) => Ok(Piece::End(None)),
            Self::Length(left) => {
                let data = take(held, left);
                Ok(if data.is_empty() { Piece::More } else { Piece::Data(data) })
            }
            Self::Close if held.is_empty() => Ok(Piece::More),
            Self::Close => Ok(Piece::Data(held.split().freeze())),
            Self::Chunked(chunks) => chunks.next(held, limits),
        }
    }

    /// Whether it has ended, by its length.
    pub fn is_read(&self) -> bool {
        matches!(self, Self::Empty | Self::Length(0))
    }
}

fn take(held: &mut BytesMut, left: &mut u64) -> Bytes {
    let size = usize::try_from(*left).unwrap_or(usize::MAX).min(held.len());
    *left -= size as u64;
    held.split_to(size).freeze()
}

fn refuse(text: &'static str) -> Refusal {
    Refusal { status: 400, kind: "chunk", text: text.into() }
}

impl Chunks {
    fn next(&mut self, held: &mut BytesMut, limits: &Limits) -> Result<Piece, Refusal> {
        loop {
            if self.in_trailers {
                return trailers(held, &mut self.seen, limits);
            }
            if held.is_empty() {
                return Ok(Piece::More);
            }
            if self.left > 0 {
                let data = take(held, &mut self.left);
                self.owes_line_end = self.left == 0;
                return Ok(Piece::Data(data));
            }
            if self.owes_line_end {
                match &held[..] {
                    [b'\r', b'\n', ..] => held.advance(2),
                    [b'\r'] => return Ok(Piece::More),
                    _ => return Err(refuse("a chunk does not end where its size says")),
                }
                self.owes_line_end = false;
                continue;
            }
            let Some((size, end)) = size_line(held)? else { return Ok(Piece::More) };
            held.advance(end);
            self.left = size;
            self.in_trailers = size == 0;
        }
    }
}

/// `seen`: how much of `held` was looked at before; a peer that sends byte by byte does not have all of it read again.
fn trailers(held: &mut BytesMut, seen: &mut usize, limits: &Limits) -> Result<Piece, Refusal> {
    if held.starts_with(b"\r\n") {
        held.advance(2);
        return Ok(Piece::End(None));
    }
    let end = find_end(held, *seen, limits).map_err(|refusal| match refusal.status {
        431 | 414 => Refusal { status: 431, kind: "trailer", text: "the trailers are too large".into() },
        _ => Refusal { kind: "trailer", ..refuse("a trailer line holds a control byte, or does not end in CRLF") },
    })?;
    let Some(end) = end else {
        *seen = held.len();
        return Ok(Piece::More);
    };
    let block = held.split_to(end - 2);
    held.advance(2);
    let fields = scan_trailers(&block, limits)?;
    Ok(Piece::End((!fields.is_empty()).then_some(fields)))
}

/// The size and length of a whole size line, `None` where it may still become one.
fn size_line(held: &[u8]) -> Result<Option<(u64, usize)>, Refusal> {
    let bad = || refuse("a chunk size line is malformed or too long");
    let digits = held.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    if digits > SIZE_DIGITS {
        return Err(bad());
    }
    let mut at = digits;
    if held.get(at) == Some(&b';') && digits > 0 {
        let extension = held[at + 1..].iter().take_while(|&&byte| byte == b'\t' || (byte >= 0x20 && byte != 0x7f)).count();
        if extension > EXTENSION_BYTES {
            return Err(bad());
        }
        at += 1 + extension;
    }
    match &held[at..] {
        [] => return Ok(None),
        [b'\r'] if digits > 0 => return Ok(None),
        [b'\r', b'\n', ..] if digits > 0 => {}
        _ => return Err(bad()),
    }
    let size = held[..digits].iter().fold(0u64, |sum, &digit| sum << 4 | u64::from(char::from(digit).to_digit(16).unwrap_or(0)));
    Ok(Some((size, at + 2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &[u8]) -> Result<(Vec<u8>, bool), Refusal> {
        let (limits, mut body) = (Limits::default(), Body::Chunked(Chunks::default()));
        let (mut held, mut got) = (BytesMut::new(), Vec::new());
        for byte in data {
            held.extend_from_slice(&[*byte]);
            loop {
                match body.next(&mut held, &limits)? {
                    Piece::Data(data) => got.extend_from_slice(&data),
                    Piece::End(_) => return Ok((got, true)),
                    Piece::More => break,
                }
            }
        }
        Ok((got, false))
    }

    #[test]
    fn chunks_are_joined_however_they_are_cut() {
        assert_eq!(read(b"5;a=b\r\nhello\r\nB\r\n0123456789a\r\n000\r\n\r\n").unwrap(), (b"hello0123456789a".to_vec(), true));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for data in [
            &b"5g\r\nhello\r\n"[..],
            b"+5\r\n",
            b" 5\r\n",
            b"5 \r\n",
            b"\r\n",
            b";a\r\n",
            b"5\nhello",
            b"00000000000000005\r\n",
            b"5\r\nhello!\r\n",
            b"5;a\x00\r\n",
        ] {
            assert!(read(data).is_err(), "{:?}", String::from_utf8_lossy(data));
        }
    }
}
