//! `LCS`: the longest common subsequence of two values.

use super::{
    Reply,
    number::integer_arg,
    write::{SYNTAX_ERROR, is},
};

/// What `LCS` was asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Question {
    length_only: bool,
    matches: bool,
    match_length_min: usize,
    with_lengths: bool,
}

impl Question {
    /// Reads the options behind the two keys.
    pub(super) fn parse(options: &[&[u8]]) -> Result<Question, Reply> {
        let mut question = Question::default();
        let mut rest = options.iter();
        while let Some(option) = rest.next() {
            if is(option, "LEN") {
                question.length_only = true;
            } else if is(option, "IDX") {
                question.matches = true;
            } else if is(option, "WITHMATCHLEN") {
                question.with_lengths = true;
            } else if is(option, "MINMATCHLEN") {
                let length = integer_arg(rest.next().ok_or(SYNTAX_ERROR)?)?;
                question.match_length_min = usize::try_from(length).unwrap_or(0);
            } else {
                return Err(SYNTAX_ERROR);
            }
        }
        if question.length_only && question.matches {
            return Err(Reply::error("ERR If you want both the length and indexes, please just use IDX."));
        }
        Ok(question)
    }

    /// Answers it for two values.
    pub(super) fn answer(&self, a: &[u8], b: &[u8]) -> Reply {
        let width = b.len() + 1;
        if (a.len() + 1).checked_mul(width).is_none_or(|cells| cells > CELLS_MAX) {
            return Reply::error("ERR Insufficient memory, failed allocating transient memory for LCS");
        }
        // lengths[i * width + j]: the answer for the first i bytes of a and the first j of b.
        let mut lengths = vec![0u32; (a.len() + 1) * width];
        for i in 1..=a.len() {
            for j in 1..=b.len() {
                lengths[i * width + j] = if a[i - 1] == b[j - 1] {
                    lengths[(i - 1) * width + j - 1] + 1
                } else {
                    lengths[(i - 1) * width + j].max(lengths[i * width + j - 1])
                };
            }
        }
        let length = i64::from(lengths[a.len() * width + b.len()]);
        if self.length_only {
            return Reply::Integer(length);
        }
        // Backwards through the table, as Redis goes, so that among equal answers the same one is found.
        let mut common = Vec::new();
        let mut matches = Vec::new();
        let mut run: Option<(usize, usize, usize)> = None;
        let (mut i, mut j) = (a.len(), b.len());
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                (i, j) = (i - 1, j - 1);
                common.push(a[i]);
                run = Some((i, j, run.map_or(1, |(_, _, length)| length + 1)));
            } else {
                if lengths[(i - 1) * width + j] > lengths[i * width + j - 1] {
                    i -= 1;
                } else {
                    j -= 1;
                }
                matches.extend(run.take());
            }
        }
        matches.extend(run);
        if !self.matches {
            common.reverse();
            return Reply::Bulk(common.into());
        }
        let ranges = matches
            .into_iter()
            .filter(|(_, _, length)| *length >= self.match_length_min)
            .map(|(i, j, length)| {
                let range = |start| Reply::Array(vec![Reply::count(start), Reply::count(start + length - 1)]);
                let mut parts = vec![range(i), range(j)];
                if self.with_lengths {
                    parts.push(Reply::count(length));
                }
                Reply::Array(parts)
            })
            .collect();
        Reply::Map(vec![
            (Reply::bulk_static("matches"), Reply::Array(ranges)),
            (Reply::bulk_static("len"), Reply::Integer(length)),
        ])
    }
}

/// The largest table, 16 MiB: two values of 2,000 bytes.
const CELLS_MAX: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(options: &str) -> Reply {
        let options: Vec<&[u8]> = options.split_ascii_whitespace().map(str::as_bytes).collect();
        match Question::parse(&options) {
            Ok(question) => question.answer(b"ohmytext", b"mynewtext"),
            Err(error) => error,
        }
    }

    #[test]
    fn the_examples_of_the_redis_manual() {
        let range = |a, b| Reply::Array(vec![Reply::Integer(a), Reply::Integer(b)]);
        let whole = |matches| {
            Reply::Map(vec![
                (Reply::bulk("matches"), Reply::Array(matches)),
                (Reply::bulk("len"), Reply::Integer(6)),
            ])
        };
        assert_eq!(ask(""), Reply::bulk("mytext"));
        assert_eq!(ask("LEN"), Reply::Integer(6));
        let text = Reply::Array(vec![range(4, 7), range(5, 8)]);
        let my = Reply::Array(vec![range(2, 3), range(0, 1)]);
        assert_eq!(ask("IDX"), whole(vec![text.clone(), my]));
        assert_eq!(ask("IDX MINMATCHLEN 4"), whole(vec![text]));
        let counted = Reply::Array(vec![range(4, 7), range(5, 8), Reply::Integer(4)]);
        assert_eq!(ask("IDX MINMATCHLEN 4 WITHMATCHLEN"), whole(vec![counted]));
        assert!(ask("IDX LEN").is_error());
        assert_eq!(ask("nonsense"), SYNTAX_ERROR);
        assert!(Question::default().answer(&[0; 5000], &[0; 5000]).is_error());
    }
}
