//! Glob patterns as Redis understands them: `*`, `?`, `[abc]`, `[^a-z]`, `\x`.

/// Whether all of `text` matches `pattern`.
///
/// Takes at most `pattern × text` steps: only the last `*` is ever tried again, which is enough, so a pattern of many
/// stars cannot keep a node busy.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on after the last star: the pattern behind it, and one more byte of text taken by it.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, t));
            continue;
        }
        if p < pattern.len() {
            let (matched, next) = one(pattern, p, text[t]);
            if matched {
                (p, t) = (next, t + 1);
                continue;
            }
        }
        let Some((after_star, taken)) = retry else { return false };
        (p, t) = (after_star, taken + 1);
        retry = Some((after_star, t));
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Whether `byte` matches the one item of the pattern at `p` (which is no star), and where the next item begins.
fn one(pattern: &[u8], p: usize, byte: u8) -> (bool, usize) {
    match pattern[p] {
        b'?' => (true, p + 1),
        b'\\' if p + 1 < pattern.len() => (pattern[p + 1] == byte, p + 2),
        b'[' => class(pattern, p + 1, byte),
        literal => (literal == byte, p + 1),
    }
}

/// A class that is not closed ends with the pattern, as in Redis.
fn class(pattern: &[u8], mut p: usize, byte: u8) -> (bool, usize) {
    let negated = pattern.get(p) == Some(&b'^');
    p += usize::from(negated);
    let mut found = false;
    loop {
        match pattern.get(p) {
            None => return (found != negated, p),
            Some(b']') => return (found != negated, p + 1),
            Some(b'\\') if p + 1 < pattern.len() => {
                found |= pattern[p + 1] == byte;
                p += 2;
            }
            Some(&first) if pattern.get(p + 1) == Some(&b'-') && p + 2 < pattern.len() => {
                let last = pattern[p + 2];
                found |= (first.min(last)..=first.max(last)).contains(&byte);
                p += 3;
            }
            Some(&literal) => {
                found |= literal == byte;
                p += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_of_the_redis_manual() {
        for (pattern, yes, no) in [
            ("h?llo", "hello", "hllo"),
            ("h*llo", "heeeello", "hell"),
            ("h[ae]llo", "hallo", "hillo"),
            ("h[^e]llo", "hallo", "hello"),
            ("h[a-b]llo", "hbllo", "hcllo"),
            ("h[b-a]llo", "hallo", "hcllo"),
            ("*", "", "-"),
            ("a\\*c", "a*c", "abc"),
            ("a[\\]]c", "a]c", "abc"),
            ("*a*b*c*", "xxaxxbxxcxx", "xxaxxcxxbxx"),
            ("", "", "a"),
            ("[a", "a", "b"),
            ("a**b", "ab", "ac"),
        ] {
            assert!(matches(pattern.as_bytes(), yes.as_bytes()), "{pattern} {yes}");
            assert!(no == "-" || !matches(pattern.as_bytes(), no.as_bytes()), "{pattern} {no}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        assert!(!matches(&b"*a".repeat(200), &[b'a'; 199]));
        assert!(matches(&b"*a".repeat(200), &[b'a'; 5000]));
        assert!(!matches(&[b"*a".repeat(200), b"b".to_vec()].concat(), &[b'a'; 5000]));
    }
}
