//! Numbers that look random and are the same on every run and machine.

/// The next number of SplitMix64 (Steele, Lea and Flood 2014): the state goes
/// forward by the golden-ratio constant and is then mixed.
pub(crate) fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mix(*state)
}

/// The mixing step of SplitMix64: every output bit depends on every input bit.
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// A number below `bound`, which must not be 0. The bias, at most
/// `bound / 2^64`, is of no matter for choosing rows.
pub(crate) fn below(state: &mut u64, bound: usize) -> usize {
    let wide = u128::from(splitmix64(state)) * bound as u128;
    (wide >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_numbers_of_the_published_generator() {
        let mut state = 1_234_567;
        let numbers: Vec<u64> = (0..3).map(|_| splitmix64(&mut state)).collect();
        let want =
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(numbers, want);
    }

    #[test]
    fn bounded_numbers_cover_their_range() {
        let mut state = 7;
        let mut seen = [0; 5];
        (0..5000).for_each(|_| seen[below(&mut state, 5)] += 1);
        assert!(seen.iter().all(|&count| (900..1100).contains(&count)), "{seen:?}");
    }
}
