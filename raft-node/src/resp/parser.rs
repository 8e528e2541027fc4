//! Requests out of a stream of bytes: arrays of strings, as client libraries send them, and lines, as people type them.
//!
//! The parser keeps its place between calls, so a request that arrives byte by byte is looked at once. Arguments are
//! slices of the receive buffer. Nothing is allocated because a length was announced: memory follows the bytes that
//! have really arrived.
//!
//! Where Redis is lenient so are we: of a line end only the `\r` is looked at, and what follows a string is skipped
//! unread. Clients have come to rely on less than the protocol says.

use bytes::{Buf, Bytes, BytesMut};

use super::inline;

/// How much one request may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// One argument, in bytes. The protocol itself allows 512 MiB.
    pub bulk_bytes_max: usize,
    /// All of a request, in bytes.
    pub request_bytes_max: usize,
    /// How many arguments.
    pub args_max: usize,
}

impl RequestLimits {
    /// What a stranger may send before `AUTH`.
    pub const UNAUTHENTICATED: RequestLimits =
        RequestLimits { bulk_bytes_max: 16 << 10, request_bytes_max: 64 << 10, args_max: 10 };
}

impl Default for RequestLimits {
    fn default() -> RequestLimits {
        RequestLimits { bulk_bytes_max: 16 << 20, request_bytes_max: 32 << 20, args_max: 1 << 20 }
    }
}

/// The longest line: an inline request, or the digits of a length that never end.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// An incremental parser; one for each connection.
#[derive(Debug, Default)]
pub struct Parser {
    /// How far into the buffer the request at its front has been understood.
    at: usize,
    /// Behind `at`, how far a line end has been looked for.
    scanned: usize,
    /// Strings still to come; `None` before the head of a request.
    strings_left: Option<usize>,
    /// The length of the string whose bytes are awaited.
    string_bytes: Option<usize>,
    /// Where the strings so far lie in the buffer.
    ranges: Vec<(usize, usize)>,
    /// Whether the limits of a stranger hold.
    unauthenticated: bool,
}

impl Parser {
    /// From now on, requests may be no larger than [`RequestLimits::UNAUTHENTICATED`], or may again.
    pub fn restrict(&mut self, unauthenticated: bool) {
        self.unauthenticated = unauthenticated;
    }

    /// Takes the next request out of `buffer`; `None` if it is not all there yet.
    ///
    /// Empty requests are skipped, as Redis does.
    ///
    /// # Errors
    /// [`ProtocolError`] if the bytes are no request. The stream cannot be trusted afterwards: answer and close.
    pub fn next(
        &mut self,
        buffer: &mut BytesMut,
        limits: &RequestLimits,
    ) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        loop {
            if self.strings_left.is_none() {
                match buffer.first() {
                    None => return Ok(None),
                    Some(b'*') => {
                        if !self.head(buffer, limits)? {
                            return Ok(None);
                        }
                    }
                    Some(_) => match self.line_of_words(buffer)? {
                        Some(words) if words.is_empty() => {}
                        words => return Ok(words),
                    },
                }
                continue;
            }
            if !self.strings(buffer, limits)? {
                return Ok(None);
            }
            let frame = buffer.split_to(self.at).freeze();
            let args = self.ranges.iter().map(|(start, end)| frame.slice(*start..*end)).collect();
            self.start_over();
            return Ok(Some(args));
        }
    }

    /// Whether a request has begun and is not complete: with `buffer` holding all that has arrived.
    #[must_use]
    pub fn is_in_request(&self, buffer: &BytesMut) -> bool {
        self.strings_left.is_some() || !buffer.is_empty()
    }

    /// How many bytes more the string that is awaited needs, its line end included; 0 if none is.
    #[must_use]
    pub fn bytes_wanted(&self, buffer: &BytesMut) -> usize {
        self.string_bytes.map_or(0, |length| (self.at + length + 2).saturating_sub(buffer.len()))
    }

    /// The head of an array, `*3`. False if it is not all there.
    fn head(&mut self, buffer: &mut BytesMut, limits: &RequestLimits) -> Result<bool, ProtocolError> {
        let Some(end) = self.line_end(buffer, ProtocolError::CountTooLong)? else { return Ok(false) };
        let count = integer(&buffer[1..end]).ok_or(ProtocolError::Count)?;
        let count = usize::try_from(count.max(0)).map_err(|_| ProtocolError::Count)?;
        if self.unauthenticated && count > RequestLimits::UNAUTHENTICATED.args_max {
            return Err(ProtocolError::UnauthenticatedCount);
        }
        if count > limits.args_max {
            return Err(ProtocolError::Count);
        }
        if count == 0 {
            buffer.advance(end + 2);
            self.start_over();
        } else {
            self.strings_left = Some(count);
            self.move_to(end + 2);
        }
        Ok(true)
    }

    /// The strings of an array. False if they are not all there.
    fn strings(&mut self, buffer: &BytesMut, limits: &RequestLimits) -> Result<bool, ProtocolError> {
        while let Some(left @ 1..) = self.strings_left {
            let length = match self.string_bytes {
                Some(length) => length,
                None => match self.string_head(buffer, limits)? {
                    Some(length) => length,
                    None => return Ok(false),
                },
            };
            let end = self.at + length;
            if end > limits.request_bytes_max {
                return Err(ProtocolError::RequestTooLarge);
            }
            if buffer.len() < end + 2 {
                return Ok(false);
            }
            self.ranges.push((self.at, end));
            self.string_bytes = None;
            self.strings_left = Some(left - 1);
            self.move_to(end + 2);
        }
        Ok(true)
    }

    /// The head of a string, `$5`.
    fn string_head(
        &mut self,
        buffer: &BytesMut,
        limits: &RequestLimits,
    ) -> Result<Option<usize>, ProtocolError> {
        let Some(end) = self.line_end(buffer, ProtocolError::LengthTooLong)? else { return Ok(None) };
        let line = &buffer[self.at..end];
        match line.first() {
            Some(b'$') => {}
            // An empty line: what is there is its end.
            first => return Err(ProtocolError::NoString(first.copied().unwrap_or(b'\r'))),
        }
        let length = integer(&line[1..]).and_then(|length| usize::try_from(length).ok());
        let length = length.ok_or(ProtocolError::Length)?;
        if self.unauthenticated && length > RequestLimits::UNAUTHENTICATED.bulk_bytes_max {
            return Err(ProtocolError::UnauthenticatedLength);
        }
        if length > limits.bulk_bytes_max {
            return Err(ProtocolError::Length);
        }
        self.string_bytes = Some(length);
        self.move_to(end + 2);
        Ok(Some(length))
    }

    /// Where the line that begins at `at` ends, its two end bytes not included, if both are there.
    fn line_end(
        &mut self,
        buffer: &BytesMut,
        too_long: ProtocolError,
    ) -> Result<Option<usize>, ProtocolError> {
        let from = self.scanned.max(self.at).min(buffer.len());
        if let Some(found) = buffer[from..].iter().position(|byte| *byte == b'\r') {
            let end = from + found;
            self.scanned = end;
            return Ok(if end + 1 < buffer.len() { Some(end) } else { None });
        }
        self.scanned = buffer.len();
        if buffer.len().saturating_sub(self.at) > LINE_BYTES_MAX { Err(too_long) } else { Ok(None) }
    }

    fn line_of_words(&mut self, buffer: &mut BytesMut) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        let from = self.scanned.min(buffer.len());
        let Some(found) = buffer[from..].iter().position(|byte| *byte == b'\n') else {
            self.scanned = buffer.len();
            return if buffer.len() > LINE_BYTES_MAX { Err(ProtocolError::LineTooLong) } else { Ok(None) };
        };
        let line = buffer.split_to(from + found + 1);
        self.start_over();
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        inline::split(line).map(Some).ok_or(ProtocolError::Quotes)
    }

    fn move_to(&mut self, at: usize) {
        self.at = at;
        self.scanned = at;
    }

    fn start_over(&mut self) {
        self.move_to(0);
        self.strings_left = None;
        self.string_bytes = None;
        self.ranges.clear();
        // One huge request must not cost memory for as long as its connection lives.
        self.ranges.shrink_to(RANGES_KEPT);
    }
}

/// What is wrong with a request, worded as in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The number of strings is no number, or too large.
    #[error("invalid multibulk length")]
    Count,
    /// The number of strings has too many digits.
    #[error("too big mbulk count string")]
    CountTooLong,
    /// A string's length is no number, or too large.
    #[error("invalid bulk length")]
    Length,
    /// A string's length has too many digits.
    #[error("too big bulk count string")]
    LengthTooLong,
    /// Not a string.
    #[error("expected '$', got '{}'", char::from(*.0))]
    NoString(u8),
    /// A line without an end.
    #[error("too big inline request")]
    LineTooLong,
    /// Quotes in a line that do not close.
    #[error("unbalanced quotes in request")]
    Quotes,
    /// Too many strings before `AUTH`.
    #[error("unauthenticated multibulk length")]
    UnauthenticatedCount,
    /// Too long a string before `AUTH`.
    #[error("unauthenticated bulk length")]
    UnauthenticatedLength,
    /// All strings together are more than one entry may hold.
    #[error("too big request")]
    RequestTooLarge,
}

/// A decimal integer in its one canonical form: no plus sign, no leading zero, nothing around it.
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    match digits {
        [b'0'] if digits.len() == text.len() => Some(0),
        [b'1'..=b'9', rest @ ..] if rest.len() < 19 && rest.iter().all(u8::is_ascii_digit) => {
            std::str::from_utf8(text).ok()?.parse().ok()
        }
        _ => None,
    }
}

const RANGES_KEPT: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Outcome = (Vec<Vec<Bytes>>, Option<ProtocolError>);

    /// Feeds `pieces` one after the other and returns all requests up to the first error.
    fn parse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &RequestLimits) -> Outcome {
        let mut parser = Parser::default();
        let mut buffer = BytesMut::new();
        let mut requests = Vec::new();
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                match parser.next(&mut buffer, limits) {
                    Ok(Some(request)) => requests.push(request),
                    Ok(None) => break,
                    Err(error) => return (requests, Some(error)),
                }
            }
        }
        (requests, None)
    }

    fn parse_all(bytes: &[u8]) -> Outcome {
        parse([bytes], &RequestLimits::default())
    }

    #[test]
    fn arrays_and_lines() {
        let (requests, error) =
            parse_all(b"*2\r\n$3\r\nGET\r\n$0\r\n\r\nPING\r\n\r\n*0\r\n*-1\r\n  set a 'b c'\n");
        assert_eq!(error, None);
        assert_eq!(requests, [vec!["GET", ""], vec!["PING"], vec!["set", "a", "b c"]]);
    }

    #[test]
    fn errors_are_worded_as_in_redis() {
        let long = [b'1'; LINE_BYTES_MAX + 2];
        for (bytes, text) in [
            (&b"*a\r\n"[..], "invalid multibulk length"),
            (b"*3000000\r\n", "invalid multibulk length"),
            (b"*01\r\n", "invalid multibulk length"),
            (b"*1\r\nGET\r\n", "expected '$', got 'G'"),
            (b"*1\r\n\r\n", "expected '$', got '\r'"),
            (b"*1\r\n$-1\r\n", "invalid bulk length"),
            (b"*1\r\n$99999999999\r\n", "invalid bulk length"),
            (b"*1\r\n$x\r\n", "invalid bulk length"),
            (b"set 'a\r\n", "unbalanced quotes in request"),
            (&[b"*", &long[..]].concat(), "too big mbulk count string"),
            (&[b"*1\r\n$", &long[..]].concat(), "too big bulk count string"),
            (&long, "too big inline request"),
        ] {
            assert_eq!(parse_all(bytes).1.unwrap().to_string(), text);
        }
    }

    #[test]
    fn strangers_get_little() {
        let mut parser = Parser::default();
        parser.restrict(true);
        let limits = RequestLimits::default();
        let mut buffer = BytesMut::from(&b"*11\r\n"[..]);
        assert_eq!(parser.next(&mut buffer, &limits), Err(ProtocolError::UnauthenticatedCount));
        let mut parser = Parser::default();
        parser.restrict(true);
        let mut buffer = BytesMut::from(&b"*1\r\n$16385\r\n"[..]);
        assert_eq!(parser.next(&mut buffer, &limits), Err(ProtocolError::UnauthenticatedLength));
    }

    #[test]
    fn a_request_is_limited_as_a_whole() {
        let limits = RequestLimits { request_bytes_max: 100, ..RequestLimits::default() };
        let (requests, error) = parse([&b"*2\r\n$60\r\n"[..], &[b'x'; 60], b"\r\n$40\r\n"], &limits);
        assert_eq!((requests.len(), error), (0, Some(ProtocolError::RequestTooLarge)));
    }

    #[test]
    fn an_announced_length_allocates_nothing() {
        let mut parser = Parser::default();
        let mut buffer = BytesMut::with_capacity(1024);
        buffer.extend_from_slice(b"*1000000\r\n$16000000\r\nx");
        assert_eq!(parser.next(&mut buffer, &RequestLimits::default()), Ok(None));
        assert!(buffer.capacity() <= 1024 && parser.ranges.capacity() == 0);
        assert_eq!(parser.bytes_wanted(&buffer), 16_000_001);
    }

    #[test]
    fn integers_have_one_form() {
        assert_eq!(integer(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(integer(b"-9223372036854775808"), Some(i64::MIN));
        for bad in ["", "-", "+1", "01", "-0", " 1", "1 ", "9223372036854775808", "99999999999999999999999"] {
            assert_eq!(integer(bad.as_bytes()), None, "{bad}");
        }
    }

    fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
        // Mostly the characters that mean something, so that deep states are reached.
        let piece = prop_oneof![
            Just(b"*1\r\n".to_vec()),
            Just(b"*2\r\n$1\r\na\r\n".to_vec()),
            Just(b"$3\r\nabc\r\n".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"get 'x' \"\\x41\"\r\n".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..8),
            "[*$0-9\r\n\"' a-]{0,6}".prop_map(String::into_bytes),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn where_the_stream_is_cut_does_not_matter(bytes in any_bytes(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6)) {
            let limits = RequestLimits::default();
            let whole = parse([&bytes[..]], &limits);
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            places.extend([0, bytes.len()]);
            places.sort_unstable();
            let pieces = places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
            prop_assert_eq!(&parse(pieces, &limits), &whole);
            prop_assert_eq!(&parse(bytes.chunks(1), &limits), &whole);
        }
    }
}
