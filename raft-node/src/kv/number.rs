//! Numbers as Redis reads them: strict integers, and decimal fractions.

use super::{Reply, reply::decimal};

/// The integer a text stands for, if it is exactly the text that integer would be written as: no sign but a minus, no
/// leading zeros, no spaces.
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > 20 {
        return None;
    }
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [] => return None,
        [b'0'] if !negative => return Some(0),
        [b'0', ..] => return None,
        _ => {}
    }
    // Counts down, as the range of negative numbers is the larger one.
    let mut value: i64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_sub(i64::from(digit - b'0'))?;
    }
    if negative { Some(value) } else { value.checked_neg() }
}

/// An integer argument.
pub(super) fn integer_arg(text: &[u8]) -> Result<i64, Reply> {
    integer(text).ok_or(NOT_AN_INTEGER)
}

/// The text of an integer, in a buffer of its own.
pub(super) struct IntegerText([u8; 20]);

impl IntegerText {
    pub(super) const fn new() -> IntegerText {
        IntegerText([0; 20])
    }

    pub(super) fn write(&mut self, value: i64) -> &[u8] {
        decimal(value, &mut self.0)
    }
}

/// A finite or infinite number with a fraction.
///
/// Sums are the same at every node: within the range of [`Float::Exact`] they are exact decimal arithmetic, so that
/// 0.1 + 0.2 is 0.3 (Redis gets there by 80-bit floating point); beyond it IEEE doubles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Float {
    /// That many times 10^-17.
    Exact(i128),
    /// Too large for that.
    Double(f64),
}

impl Float {
    /// The number a text stands for, with or without an exponent.
    pub(super) fn parse(text: &[u8]) -> Option<Float> {
        if text.is_empty() || text.len() > FLOAT_TEXT_BYTES_MAX {
            return None;
        }
        if let Some(exact) = exact(text) {
            return Some(Float::Exact(exact));
        }
        let text = std::str::from_utf8(text).ok()?;
        // Rust also reads "infinity" and "nan" in any case, as C does.
        let value: f64 = text.parse().ok()?;
        (!value.is_nan()).then_some(Float::Double(value))
    }

    /// The sum, if it is a finite number.
    pub(super) fn plus(self, other: Float) -> Option<Float> {
        if let (Float::Exact(a), Float::Exact(b)) = (self, other)
            && let Some(sum) = a.checked_add(b)
        {
            return Some(Float::Exact(sum));
        }
        let sum = self.to_f64() + other.to_f64();
        sum.is_finite().then_some(Float::Double(sum))
    }

    /// Its text, without an exponent and without zeros at the end of the fraction.
    pub(super) fn text(self) -> String {
        match self {
            Float::Exact(value) => {
                let (whole, fraction) = (value.unsigned_abs() / ONE, value.unsigned_abs() % ONE);
                let sign = if value < 0 { "-" } else { "" };
                let text = format!("{sign}{whole}.{fraction:017}");
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            }
            Float::Double(value) => {
                let text = format!("{value:.17}");
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            }
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "a double is what is asked for")]
    fn to_f64(self) -> f64 {
        match self {
            Float::Exact(value) => value as f64 / ONE as f64,
            Float::Double(value) => value,
        }
    }
}

/// The number in units of 10^-17, if the text is a decimal number of not too many digits.
fn exact(text: &[u8]) -> Option<i128> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (digits, exponent) = match digits.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        None => (digits, 0),
        Some(at) => {
            let exponent = digits[at + 1..].strip_prefix(b"+").unwrap_or(&digits[at + 1..]);
            (&digits[..at], std::str::from_utf8(exponent).ok()?.parse::<i32>().ok()?)
        }
    };
    let point = digits.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = point.map_or((digits, &[][..]), |at| (&digits[..at], &digits[at + 1..]));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value: i128 = 0;
    for digit in whole.iter().chain(fraction) {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    let shift = 17i32.checked_sub(i32::try_from(fraction.len()).ok()?)?.checked_add(exponent)?;
    let factor = 10i128.checked_pow(shift.unsigned_abs())?;
    let value = if shift >= 0 {
        value.checked_mul(factor)?
    } else {
        // The nearest: no more digits are shown either.
        value.checked_add(factor / 2)? / factor
    };
    Some(if negative { -value } else { value })
}

/// What Redis answers where an integer was expected.
pub(super) const NOT_AN_INTEGER: Reply = Reply::error("ERR value is not an integer or out of range");
/// What Redis answers where a number was expected.
pub(super) const NOT_A_FLOAT: Reply = Reply::error("ERR value is not a valid float");

/// One, in units of 10^-17.
const ONE: u128 = 100_000_000_000_000_000;

/// Longer texts are no numbers (Redis reads at most this much).
const FLOAT_TEXT_BYTES_MAX: usize = 5 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integers_are_strict() {
        for (text, value) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("01", None),
            ("+1", None),
            (" 1", None),
            ("1 ", None),
            ("1.0", None),
            ("1a", None),
            ("99999999999999999999999", None),
        ] {
            assert_eq!(integer(text.as_bytes()), value, "{text}");
        }
    }

    #[test]
    fn sums_of_decimals_are_exact() {
        let sum = |a: &str, b: &str| {
            Float::parse(a.as_bytes()).unwrap().plus(Float::parse(b.as_bytes()).unwrap()).map(Float::text)
        };
        for (a, b, expected) in [
            ("0.1", "0.2", "0.3"),
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("3", "-5.5", "-2.5"),
            ("-0.5", "0.5", "0"),
            ("3.0e-17", "0", "0.00000000000000003"),
            (".5", "1.", "1.5"),
            ("1e20", "1", "100000000000000000001"),
            ("3.14159265358979323846", "0", "3.14159265358979324"),
            ("-0.333333333333333335", "0", "-0.33333333333333334"),
            ("0.3", "1e-18", "0.3"),
            ("1e25", "1", "10000000000000000905969664"),
        ] {
            assert_eq!(sum(a, b).as_deref(), Some(expected), "{a} + {b}");
        }
        assert_eq!(sum("1e308", "1e308"), None);
        assert_eq!(sum("inf", "1"), None);
        for text in ["", "abc", "1.2.3", "nan", "1e", ".", "-", " 1", "1 "] {
            assert_eq!(Float::parse(text.as_bytes()), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn integers_survive_their_text(value in any::<i64>()) {
            prop_assert_eq!(integer(IntegerText::new().write(value)), Some(value));
            prop_assert_eq!(integer(value.to_string().as_bytes()), Some(value));
        }
    }
}
