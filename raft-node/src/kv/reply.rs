//! What a command answers, and its three encodings.
//!
//! - RESP2 and RESP3, for clients.
//! - The *carried* form, which travels from the state machine to the node that holds the client: RESP3, except that
//!   a null array stays `*-1`, so that a RESP2 client can still be told the null it expects.
//!
//! Decoding trusts nothing: depth, lengths and counts are checked before anything is allocated.

use std::fmt::Write as _;

use bytes::{BufMut, Bytes, BytesMut};

/// Which protocol version a client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// What a connection speaks until it says `HELLO 3`.
    #[default]
    Resp2,
    /// Maps, sets, doubles, one null.
    Resp3,
}

/// One reply value.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// A status line such as `OK`.
    Simple(Bytes),
    /// An error line, its code first: `ERR syntax error`.
    Error(Bytes),
    /// A signed integer.
    Integer(i64),
    /// A binary-safe string.
    Bulk(Bytes),
    /// Nothing: `$-1` for RESP2.
    Null,
    /// No array at all: `*-1` for RESP2 (an `EXEC` whose watched keys changed).
    NullArray,
    /// Values in order.
    Array(Vec<Reply>),
    /// Values without order.
    Set(Vec<Reply>),
    /// Pairs; a flat array for RESP2.
    Map(Vec<(Reply, Reply)>),
    /// An out-of-band message.
    Push(Vec<Reply>),
    /// A floating-point number; its text for RESP2.
    Double(f64),
    /// A truth value; 1 or 0 for RESP2.
    Bool(bool),
    /// The decimal digits of an integer of any size.
    BigNumber(Bytes),
    /// Text with a three-letter format (`txt`, `mkd`); a plain string for RESP2.
    Verbatim([u8; 3], Bytes),
}

impl Reply {
    /// `+OK`.
    pub const OK: Reply = Reply::simple("OK");
    /// `+QUEUED`.
    pub const QUEUED: Reply = Reply::simple("QUEUED");
    /// `:0`.
    pub const ZERO: Reply = Reply::Integer(0);
    /// `:1`.
    pub const ONE: Reply = Reply::Integer(1);

    /// A fixed status line.
    #[must_use]
    pub const fn simple(text: &'static str) -> Reply {
        Reply::Simple(Bytes::from_static(text.as_bytes()))
    }

    /// A fixed error line; `text` begins with its code.
    #[must_use]
    pub const fn error(text: &'static str) -> Reply {
        Reply::Error(Bytes::from_static(text.as_bytes()))
    }

    /// An error line made for the occasion; `text` begins with its code.
    #[must_use]
    pub fn error_text(text: impl Into<String>) -> Reply {
        Reply::Error(Bytes::from(text.into()))
    }

    /// A copy of `value` as a string.
    #[must_use]
    pub fn bulk(value: impl AsRef<[u8]>) -> Reply {
        Reply::Bulk(Bytes::copy_from_slice(value.as_ref()))
    }

    /// A fixed string.
    #[must_use]
    pub const fn bulk_static(text: &'static str) -> Reply {
        Reply::Bulk(Bytes::from_static(text.as_bytes()))
    }

    /// A count as an integer.
    #[must_use]
    pub fn count(count: usize) -> Reply {
        Reply::Integer(i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// Whether this is an error line.
    #[must_use]
    pub fn is_error(&self) -> bool {
        matches!(self, Reply::Error(_))
    }

    /// About how many bytes its encoding has: a little too many rather than too few.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let of = |items: &[Reply]| items.iter().map(Reply::size_bytes).sum::<usize>();
        FRAME_BYTES
            + match self {
                Reply::Simple(text)
                | Reply::Error(text)
                | Reply::Bulk(text)
                | Reply::BigNumber(text)
                | Reply::Verbatim(_, text) => text.len(),
                Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => of(items),
                Reply::Map(pairs) => {
                    pairs.iter().map(|(key, value)| key.size_bytes() + value.size_bytes()).sum()
                }
                Reply::Integer(_) | Reply::Null | Reply::NullArray | Reply::Double(_) | Reply::Bool(_) => 0,
            }
    }

    /// An array of all of these, made only as far as it may be: many large values that are asked for at once, or one of
    /// them again and again, must not cost more memory than [`REPLY_BYTES_MAX`].
    pub(crate) fn array(items: impl Iterator<Item = Reply>) -> Reply {
        let mut size_bytes = 0;
        let mut array = Vec::new();
        for item in items {
            size_bytes += item.size_bytes();
            if size_bytes > REPLY_BYTES_MAX {
                return TOO_LARGE;
            }
            array.push(item);
        }
        Reply::Array(array)
    }

    /// Appends this reply as a client of `protocol` expects it.
    pub fn encode(&self, protocol: Protocol, out: &mut BytesMut) {
        match protocol {
            Protocol::Resp2 => self.encode_as(Form::Resp2, out),
            Protocol::Resp3 => self.encode_as(Form::Resp3, out),
        }
    }

    /// Appends the carried form.
    pub fn encode_carried(&self, out: &mut BytesMut) {
        self.encode_as(Form::Carried, out);
    }

    /// The carried form. The commonest replies cost no allocation.
    #[must_use]
    pub fn to_carried(&self) -> Bytes {
        match self {
            Reply::Simple(text) if text.as_ref() == b"OK" => Bytes::from_static(b"+OK\r\n"),
            Reply::Integer(0) => Bytes::from_static(b":0\r\n"),
            Reply::Integer(1) => Bytes::from_static(b":1\r\n"),
            Reply::Null => Bytes::from_static(b"_\r\n"),
            Reply::NullArray => Bytes::from_static(NULL_ARRAY),
            Reply::Simple(_)
            | Reply::Error(_)
            | Reply::Integer(_)
            | Reply::Bulk(_)
            | Reply::Array(_)
            | Reply::Set(_)
            | Reply::Map(_)
            | Reply::Push(_)
            | Reply::Double(_)
            | Reply::Bool(_)
            | Reply::BigNumber(_)
            | Reply::Verbatim(..) => {
                let mut out = BytesMut::new();
                self.encode_carried(&mut out);
                out.freeze()
            }
        }
    }

    /// Reads one whole reply, in carried form, RESP3 or RESP2. Strings are slices of `bytes`, not copies.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not exactly one reply within the limits.
    pub fn decode(bytes: &Bytes) -> Result<Reply, DecodeError> {
        let mut decoder = Decoder { bytes, at: 0 };
        let reply = decoder.value(0)?;
        if decoder.at == bytes.len() { Ok(reply) } else { Err(DecodeError::Trailing) }
    }

    fn encode_as(&self, form: Form, out: &mut BytesMut) {
        match self {
            Reply::Simple(text) => put_line(b'+', text, out),
            Reply::Error(text) => put_line(b'-', text, out),
            Reply::Integer(value) => put_header(b':', *value, out),
            Reply::Bulk(value) => put_bulk(value, out),
            Reply::Null => out.put_slice(if form == Form::Resp2 { b"$-1\r\n" } else { b"_\r\n" }),
            Reply::NullArray => out.put_slice(if form == Form::Resp3 { b"_\r\n" } else { NULL_ARRAY }),
            Reply::Array(items) => put_items(b'*', items, form, out),
            Reply::Set(items) => put_items(if form == Form::Resp2 { b'*' } else { b'~' }, items, form, out),
            Reply::Push(items) => put_items(if form == Form::Resp2 { b'*' } else { b'>' }, items, form, out),
            Reply::Map(pairs) => {
                match form {
                    Form::Resp2 => put_length(b'*', pairs.len() * 2, out),
                    Form::Resp3 | Form::Carried => put_length(b'%', pairs.len(), out),
                }
                for (key, value) in pairs {
                    key.encode_as(form, out);
                    value.encode_as(form, out);
                }
            }
            Reply::Double(value) => {
                let text = double_text(*value);
                match form {
                    Form::Resp2 => put_bulk(text.as_bytes(), out),
                    Form::Resp3 | Form::Carried => put_line(b',', text.as_bytes(), out),
                }
            }
            Reply::Bool(value) => match form {
                Form::Resp2 => put_header(b':', i64::from(*value), out),
                Form::Resp3 | Form::Carried => out.put_slice(if *value { b"#t\r\n" } else { b"#f\r\n" }),
            },
            Reply::BigNumber(digits) => match form {
                Form::Resp2 => put_bulk(digits, out),
                Form::Resp3 | Form::Carried => put_line(b'(', digits, out),
            },
            Reply::Verbatim(format, text) => match form {
                Form::Resp2 => put_bulk(text, out),
                Form::Resp3 | Form::Carried => {
                    put_length(b'=', text.len() + 4, out);
                    out.put_slice(format);
                    out.put_u8(b':');
                    out.put_slice(text);
                    out.put_slice(CRLF);
                }
            },
        }
    }
}

/// Appends `carried` as a RESP2 client expects it. What is the same in both is copied as it is.
///
/// # Errors
/// [`DecodeError`] if `carried` is not one reply; nothing is appended then.
pub fn transcode_to_resp2(carried: &[u8], out: &mut BytesMut) -> Result<(), DecodeError> {
    match carried.first() {
        Some(b'+' | b'-' | b':' | b'$') if carried.ends_with(CRLF) => out.put_slice(carried),
        _ if carried == b"_\r\n" => out.put_slice(b"$-1\r\n"),
        _ if carried == NULL_ARRAY => out.put_slice(NULL_ARRAY),
        _ => Reply::decode(&Bytes::copy_from_slice(carried))?.encode(Protocol::Resp2, out),
    }
    Ok(())
}

/// Appends `carried` as a RESP3 client expects it.
pub fn transcode_to_resp3(carried: &[u8], out: &mut BytesMut) {
    // A null array is only ever a whole reply (a refused EXEC), never an element.
    out.put_slice(if carried == NULL_ARRAY { b"_\r\n" } else { carried });
}

/// Why bytes are not a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They end in the middle of a value.
    #[error("a reply ends too early")]
    Short,
    /// Something follows the value.
    #[error("bytes follow the end of a reply")]
    Trailing,
    /// No type begins with this byte.
    #[error("no reply begins with the byte {0:#04x}")]
    Type(u8),
    /// A number, a length or a line end is not what it must be.
    #[error("a reply has a malformed number, length or line end")]
    Malformed,
    /// Deeper than [`REPLY_DEPTH_MAX`].
    #[error("a reply is nested too deeply")]
    TooDeep,
}

/// The largest reply to a read, about, in bytes.
pub const REPLY_BYTES_MAX: usize = 64 << 20;

/// The same for all replies of a transaction together: what an entry has at most by default, so that it can also be carried
/// to the node that asked. The same at every node, as transactions are judged by it when they are applied.
pub const REPLIES_BYTES_MAX: usize = 32 << 20;

/// Instead of a reply for which a transaction has no room left.
pub(super) const TOO_LARGE_TOGETHER: Reply =
    Reply::error("ERR the replies of the transaction would be larger than 32 MiB: this command was not run");

/// Instead of a reply to a read that would be larger.
pub(super) const TOO_LARGE: Reply = Reply::error(
    "ERR the reply would be larger than 64 MiB: ask for less at a time, use SCAN instead of KEYS",
);

/// What stands around the text of a reply: its kind, its length, its line ends.
const FRAME_BYTES: usize = 26;

/// How deeply arrays may lie in arrays in a reply that is read.
pub const REPLY_DEPTH_MAX: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Resp2,
    Resp3,
    Carried,
}

struct Decoder<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl Decoder<'_> {
    fn value(&mut self, depth: usize) -> Result<Reply, DecodeError> {
        if depth > REPLY_DEPTH_MAX {
            return Err(DecodeError::TooDeep);
        }
        let kind = *self.bytes.get(self.at).ok_or(DecodeError::Short)?;
        self.at += 1;
        let line = self.line()?;
        Ok(match kind {
            b'+' => Reply::Simple(line),
            b'-' => Reply::Error(line),
            b':' => Reply::Integer(number(&line)?),
            b'(' => Reply::BigNumber(line),
            b'_' if line.is_empty() => Reply::Null,
            b'#' => match line.as_ref() {
                b"t" => Reply::Bool(true),
                b"f" => Reply::Bool(false),
                _ => return Err(DecodeError::Malformed),
            },
            b',' => Reply::Double(
                std::str::from_utf8(&line)
                    .ok()
                    .and_then(|text| text.parse().ok())
                    .ok_or(DecodeError::Malformed)?,
            ),
            b'$' if line.as_ref() == b"-1" => Reply::Null,
            b'$' => Reply::Bulk(self.body(&line)?),
            b'=' => {
                let body = self.body(&line)?;
                match body.as_ref() {
                    [a, b, c, b':', ..] => Reply::Verbatim([*a, *b, *c], body.slice(4..)),
                    _ => return Err(DecodeError::Malformed),
                }
            }
            b'*' if line.as_ref() == b"-1" => Reply::NullArray,
            b'*' => Reply::Array(self.items(&line, depth)?),
            b'~' => Reply::Set(self.items(&line, depth)?),
            b'>' => Reply::Push(self.items(&line, depth)?),
            b'%' => {
                let count = self.length(&line)?;
                let mut pairs = Vec::with_capacity(count.min(self.left() / (2 * VALUE_BYTES_MIN)));
                for _ in 0..count {
                    pairs.push((self.value(depth + 1)?, self.value(depth + 1)?));
                }
                Reply::Map(pairs)
            }
            b'_' => return Err(DecodeError::Malformed),
            other => return Err(DecodeError::Type(other)),
        })
    }

    fn items(&mut self, line: &[u8], depth: usize) -> Result<Vec<Reply>, DecodeError> {
        let count = self.length(line)?;
        let mut items = Vec::with_capacity(count.min(self.left() / VALUE_BYTES_MIN));
        for _ in 0..count {
            items.push(self.value(depth + 1)?);
        }
        Ok(items)
    }

    fn line(&mut self) -> Result<Bytes, DecodeError> {
        let rest = self.bytes.get(self.at..).ok_or(DecodeError::Short)?;
        let end = rest.iter().position(|byte| *byte == b'\r').ok_or(DecodeError::Short)?;
        if rest.get(end + 1) != Some(&b'\n') {
            return Err(DecodeError::Malformed);
        }
        let line = self.bytes.slice(self.at..self.at + end);
        self.at += end + 2;
        Ok(line)
    }

    fn length(&self, line: &[u8]) -> Result<usize, DecodeError> {
        let length = usize::try_from(number(line)?).map_err(|_| DecodeError::Malformed)?;
        // Also the guard of every later sum: nothing longer than what is there.
        if length > self.left() { Err(DecodeError::Short) } else { Ok(length) }
    }

    fn body(&mut self, line: &[u8]) -> Result<Bytes, DecodeError> {
        let length = self.length(line)?;
        let end = self.at + length;
        match self.bytes.get(end..end + 2) {
            None => Err(DecodeError::Short),
            Some(b"\r\n") => {
                let body = self.bytes.slice(self.at..end);
                self.at = end + 2;
                Ok(body)
            }
            Some(_) => Err(DecodeError::Malformed),
        }
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }
}

fn number(text: &[u8]) -> Result<i64, DecodeError> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(DecodeError::Malformed)
}

/// Appends a line of text. A line end inside would let a value forge a reply: it becomes a space, as in Redis.
fn put_line(kind: u8, text: &[u8], out: &mut BytesMut) {
    out.reserve(text.len() + 3);
    out.put_u8(kind);
    if text.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
        out.extend(text.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }));
    } else {
        out.put_slice(text);
    }
    out.put_slice(CRLF);
}

fn put_items(kind: u8, items: &[Reply], form: Form, out: &mut BytesMut) {
    put_length(kind, items.len(), out);
    for item in items {
        item.encode_as(form, out);
    }
}

/// Appends a string with its length, the same in every form.
pub fn put_bulk(value: &[u8], out: &mut BytesMut) {
    out.reserve(value.len() + 16);
    put_length(b'$', value.len(), out);
    out.put_slice(value);
    out.put_slice(CRLF);
}

/// Appends the head of an aggregate or a string: `*3`, `$5`.
pub fn put_length(kind: u8, length: usize, out: &mut BytesMut) {
    put_header(kind, i64::try_from(length).unwrap_or(i64::MAX), out);
}

fn put_header(kind: u8, value: i64, out: &mut BytesMut) {
    let mut digits = [0; 20];
    out.reserve(24);
    out.put_u8(kind);
    out.put_slice(decimal(value, &mut digits));
    out.put_slice(CRLF);
}

/// The decimal text of `value`, written into `buffer` without allocating.
pub(crate) fn decimal(value: i64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut at = buffer.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        buffer[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        at -= 1;
        buffer[at] = b'-';
    }
    &buffer[at..]
}

fn double_text(value: f64) -> String {
    let mut text = String::new();
    if value.is_nan() {
        text.push_str("nan");
    } else if value.is_infinite() {
        text.push_str(if value > 0.0 { "inf" } else { "-inf" });
    } else {
        write!(text, "{value}").expect("writing into a String does not fail");
    }
    text
}

const CRLF: &[u8] = b"\r\n";
const NULL_ARRAY: &[u8] = b"*-1\r\n";
/// The shortest value is `_\r\n`: bounds what a count may reserve.
const VALUE_BYTES_MIN: usize = 3;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(reply: &Reply, protocol: Protocol) -> Vec<u8> {
        let mut out = BytesMut::new();
        reply.encode(protocol, &mut out);
        out.to_vec()
    }

    fn in_resp2(carried: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        transcode_to_resp2(carried, &mut out).unwrap();
        out.to_vec()
    }

    #[test]
    fn each_protocol_gets_its_own_form() {
        let reply = Reply::Map(vec![
            (Reply::bulk("a"), Reply::Double(1.5)),
            (Reply::simple("b"), Reply::Bool(true)),
            (Reply::Null, Reply::Verbatim(*b"txt", Bytes::from_static(b"hi"))),
        ]);
        assert_eq!(
            encoded(&reply, Protocol::Resp2),
            b"*6\r\n$1\r\na\r\n$3\r\n1.5\r\n+b\r\n:1\r\n$-1\r\n$2\r\nhi\r\n"
        );
        assert_eq!(
            encoded(&reply, Protocol::Resp3),
            b"%3\r\n$1\r\na\r\n,1.5\r\n+b\r\n#t\r\n_\r\n=6\r\ntxt:hi\r\n"
        );
        assert_eq!(in_resp2(&reply.to_carried()), encoded(&reply, Protocol::Resp2));
    }

    #[test]
    fn the_null_array_survives_being_carried() {
        let carried = Reply::NullArray.to_carried();
        assert_eq!(in_resp2(&carried), b"*-1\r\n");
        let mut out = BytesMut::new();
        transcode_to_resp3(&carried, &mut out);
        assert_eq!(out.as_ref(), b"_\r\n");
        assert_eq!(in_resp2(&Reply::Null.to_carried()), b"$-1\r\n");
    }

    #[test]
    fn an_error_text_cannot_forge_a_reply() {
        let reply = Reply::error_text("ERR unknown command 'a\r\n+OK'");
        assert_eq!(encoded(&reply, Protocol::Resp2), b"-ERR unknown command 'a  +OK'\r\n");
    }

    #[test]
    fn integers_at_the_ends_of_their_range() {
        for value in [i64::MIN, -1, 0, 1, i64::MAX] {
            assert_eq!(encoded(&Reply::Integer(value), Protocol::Resp3), format!(":{value}\r\n").as_bytes());
        }
    }

    #[test]
    fn nesting_is_limited() {
        let deep = Bytes::from("*1\r\n".repeat(1000) + ":1\r\n");
        assert_eq!(Reply::decode(&deep), Err(DecodeError::TooDeep));
        assert_eq!(Reply::decode(&Bytes::from("*99999999\r\n:1\r\n")), Err(DecodeError::Short));
        assert_eq!(Reply::decode(&Bytes::from(":1\r\n:2\r\n")), Err(DecodeError::Trailing));
        assert_eq!(Reply::decode(&Bytes::from("?1\r\n")), Err(DecodeError::Type(b'?')));
    }

    fn any_reply() -> impl Strategy<Value = Reply> {
        let text = "[ -~]{0,12}".prop_map(Bytes::from);
        let leaf = prop_oneof![
            text.clone().prop_map(Reply::Simple),
            text.prop_map(Reply::Error),
            any::<i64>().prop_map(Reply::Integer),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Reply::Bulk(bytes.into())),
            Just(Reply::Null),
            any::<bool>().prop_map(Reply::Bool),
            (-1e9..1e9).prop_map(Reply::Double),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Reply::Array),
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Reply::Set),
                proptest::collection::vec((inner.clone(), inner), 0..4).prop_map(Reply::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_carried_arrives(reply in any_reply()) {
            let carried = reply.to_carried();
            prop_assert_eq!(Reply::decode(&carried).unwrap(), reply.clone());
            prop_assert_eq!(in_resp2(&carried), encoded(&reply, Protocol::Resp2));
        }

        #[test]
        fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Reply::decode(&Bytes::from(bytes));
        }
    }
}
