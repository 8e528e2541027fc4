//! A typed line split into words: quotes and escapes as Redis reads them.

use bytes::{BufMut, Bytes, BytesMut};

/// The words of a line; `None` if a quote does not close, or closes in the middle of a word.
///
/// Between double quotes `\n \r \t \b \a \xff` and `\` before anything else are escapes; between single quotes
/// only `\'` is.
pub(super) fn split(line: &[u8]) -> Option<Vec<Bytes>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        while let [first, tail @ ..] = rest
            && is_space(*first)
        {
            rest = tail;
        }
        // As in C, a zero byte ends the line.
        if matches!(rest, [] | [0, ..]) {
            return Some(words);
        }
        let mut word = BytesMut::new();
        rest = take_word(rest, &mut word)?;
        words.push(word.freeze());
    }
}

/// Appends the word at the front of `rest` and returns what follows it.
fn take_word<'a>(mut rest: &'a [u8], word: &mut BytesMut) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [] | [0, ..] => return Some(&[]),
            [b'"', tail @ ..] => return double_quoted(tail, word),
            [b'\'', tail @ ..] => return single_quoted(tail, word),
            [first, tail @ ..] if is_space(*first) => return Some(tail),
            [first, tail @ ..] => {
                word.put_u8(*first);
                tail
            }
        };
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], word: &mut BytesMut) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [b'\\', b'x', high, low, tail @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
                word.put_u8(hex(*high)? << 4 | hex(*low)?);
                tail
            }
            [b'\\', escaped, tail @ ..] => {
                word.put_u8(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                tail
            }
            [b'"', tail @ ..] => return closed(tail),
            [first, tail @ ..] => {
                word.put_u8(*first);
                tail
            }
            [] => return None,
        };
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], word: &mut BytesMut) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [b'\\', b'\'', tail @ ..] => {
                word.put_u8(b'\'');
                tail
            }
            [b'\'', tail @ ..] => return closed(tail),
            [first, tail @ ..] => {
                word.put_u8(*first);
                tail
            }
            [] => return None,
        };
    }
}

/// A closing quote ends its word: a space or the end of the line must follow.
fn closed(rest: &[u8]) -> Option<&[u8]> {
    match rest {
        [] => Some(rest),
        [first, ..] if is_space(*first) || *first == 0 => Some(rest),
        _ => None,
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn quotes_and_escapes() {
        for (line, words) in [
            ("", vec![]),
            ("  \t ", vec![]),
            ("get  a", vec!["get", "a"]),
            (r#"set "a b" 'c "d'"#, vec!["set", "a b", "c \"d"]),
            (r#"x "\x41\n\q" '\'' "#, vec!["x", "A\nq", "'"]),
            (r#""" ''"#, vec!["", ""]),
            (r#"a"b c""#, vec!["ab c"]),
        ] {
            assert_eq!(split(line.as_bytes()).unwrap(), words, "{line}");
        }
    }

    #[test]
    fn quotes_that_do_not_close() {
        for line in ["\"a", "'a", "\"a\"b", "'a'b", "\"a\\"] {
            assert!(split(line.as_bytes()).is_none(), "{line}");
        }
    }

    #[test]
    fn a_zero_byte_ends_the_line() {
        assert_eq!(split(b"get a\0b c").unwrap(), ["get", "a"]);
        assert_eq!(split(b"\0 a").map(|words| words.len()), Some(0));
    }
}
