//! Just enough HTTP to ask a node for its status.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    time::Duration,
};

/// A longer answer is not ours.
const ANSWER_BYTES_MAX: u64 = 8 << 20;

/// The body of `GET path` at `address`, if the answer is 200.
///
/// # Errors
/// What the network said, or [`io::ErrorKind::InvalidData`] if the answer is another one.
pub(super) fn get(address: &str, path: &str, timeout: Duration) -> io::Result<Vec<u8>> {
    let mut stream = connect(address, timeout)?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: application/json\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    body(&answer).map(<[u8]>::to_vec)
}

/// Connects to the first address of a name that answers, with `timeout` for each and for every read and write.
pub(super) fn connect(address: &str, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What follows the head, as long as the head says.
fn body(answer: &[u8]) -> io::Result<&[u8]> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or_else(|| invalid("the answer is no HTTP".to_owned()))?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let mut lines = head.lines();
    let first = lines.next().unwrap_or_default();
    if !first.starts_with("HTTP/1.") || first.split(' ').nth(1) != Some("200") {
        return Err(invalid(format!("the answer is {first:?}")));
    }
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok())
        .ok_or_else(|| invalid("the answer does not say how long it is".to_owned()))?;
    let body = &answer[end + 4..];
    body.get(..length).ok_or_else(|| invalid("the answer was cut short".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_cut_by_their_length() {
        assert_eq!(body(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nabc").unwrap(), b"ab");
        for bad in [
            &b""[..],
            b"SSH-2.0-OpenSSH\r\n",
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\n\r\nabc",
        ] {
            assert!(body(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
