//! Just enough of the Redis protocol to ask one question at a time.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use super::http_client::connect;

/// What a server answers to the commands we send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// `+OK`
    Simple(String),
    /// `-ERR …`
    Error(String),
    /// `:1`
    Integer(i64),
    /// Bytes.
    Bulk(Vec<u8>),
    /// Nothing there.
    Nil,
}

/// A connection.
pub(super) struct Client {
    stream: BufReader<TcpStream>,
}

/// A longer value cannot be in the store.
const BULK_BYTES_MAX: usize = 512 << 20;
/// A longer line is none of ours.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// Covers an election, and the server's own limit for a command without an outcome.
const TIMEOUT: Duration = Duration::from_secs(15);

impl Client {
    pub(super) fn connect(address: &str) -> io::Result<Client> {
        Ok(Client { stream: BufReader::new(connect(address, TIMEOUT)?) })
    }

    /// Sends one command and waits for its answer.
    pub(super) fn ask(&mut self, words: &[&[u8]]) -> io::Result<Reply> {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&request)?;
        read_reply(&mut self.stream)
    }
}

fn read_reply<R: io::Read>(stream: &mut BufReader<R>) -> io::Result<Reply> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not of the Redis protocol");
    let mut line = Vec::new();
    stream.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"));
    }
    let line =
        line.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok()).ok_or_else(invalid)?;
    let Some((kind, rest)) = line.split_at_checked(1) else { return Err(invalid()) };
    match kind {
        "+" => Ok(Reply::Simple(rest.to_owned())),
        "-" => Ok(Reply::Error(rest.to_owned())),
        ":" => rest.parse().map(Reply::Integer).map_err(|_| invalid()),
        "_" => Ok(Reply::Nil),
        "$" if rest == "-1" => Ok(Reply::Nil),
        "$" => {
            let length: usize = rest.parse().map_err(|_| invalid())?;
            if length > BULK_BYTES_MAX {
                return Err(invalid());
            }
            // Grows as bytes arrive: a claim alone costs nothing.
            let mut bytes = Vec::new();
            stream.by_ref().take(length as u64 + 2).read_to_end(&mut bytes)?;
            if bytes.len() != length + 2 || !bytes.ends_with(b"\r\n") {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes.truncate(length);
            Ok(Reply::Bulk(bytes))
        }
        _ => Err(invalid()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> io::Result<Reply> {
        read_reply(&mut BufReader::new(bytes))
    }

    #[test]
    fn every_kind_of_reply() {
        assert_eq!(read(b"+OK\r\n").unwrap(), Reply::Simple("OK".into()));
        assert_eq!(read(b"-ERR no\r\n").unwrap(), Reply::Error("ERR no".into()));
        assert_eq!(read(b":-3\r\n").unwrap(), Reply::Integer(-3));
        assert_eq!(read(b"$-1\r\n").unwrap(), Reply::Nil);
        assert_eq!(read(b"_\r\n").unwrap(), Reply::Nil);
        assert_eq!(read(b"$5\r\n\r\n\0\xffx\r\n").unwrap(), Reply::Bulk(b"\r\n\0\xffx".to_vec()));
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            &b""[..],
            b"\r\n",
            b"+OK",
            b":x\r\n",
            b"$9\r\nabc\r\n",
            b"$99999999999999\r\n",
            b"HTTP/1.1 400\r\n",
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
