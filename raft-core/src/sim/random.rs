//! The one source of chance: a small generator that a seed determines, or a tape as long as that lasts.

/// SplitMix64: eight bytes of state, no bad seeds, fast enough to be asked at every message.
#[derive(Clone, Debug)]
pub(super) struct Random {
    state: u64,
    /// Who steers decides the high bits of what is drawn, which are those that count.
    tape: std::vec::IntoIter<u8>,
}

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random::steered(seed, Vec::new())
    }

    /// Each of the first draws is decided by a byte of `tape`: the larger, the larger.
    pub(super) fn steered(seed: u64, tape: Vec<u8>) -> Random {
        Random { state: seed, tape: tape.into_iter() }
    }

    /// Whether the tape lasts.
    pub(super) fn is_steered(&self) -> bool {
        self.tape.len() > 0
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let drawn = mix(self.state);
        self.tape.next().map_or(drawn, |byte| u64::from(byte) << 56 | drawn >> 8)
    }

    /// Any of `0..end`; zero if the range is empty.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        // The high half of the product: no division, and the bias of 2^-64 * end does not matter here.
        u64::try_from((u128::from(self.next()) * u128::from(end)) >> 64).expect("the high half has 64 bits")
    }

    /// Any of `low..=high`.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// Any place in something `length` long; zero if it is empty.
    pub(super) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("below a length")
    }

    /// True in `per_mille` of a thousand cases. Costs nothing where the answer is known.
    pub(super) fn chance(&mut self, per_mille: u64) -> bool {
        per_mille > 0 && (per_mille >= 1000 || self.below(1000) < per_mille)
    }
}

/// Spreads every bit of `value` over all bits of the result; the simulator's hash function as well.
pub(super) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tape_decides_until_it_ends() {
        let mut random = Random::steered(1, vec![0, 128, 255]);
        assert_eq!([random.below(4), random.below(4), random.below(4)], [0, 2, 3]);
        let mut seeded = Random::new(1);
        seeded.next();
        seeded.next();
        seeded.next();
        assert_eq!(random.next(), seeded.next());
    }
}
