//! Counter-based randomness for resampling: a draw is a pure function of the
//! seed and its coordinates, so the order of draws cannot change a result.
//!
//! The mixing function is the finaliser of SplitMix64 (Steele, Lea & Flood,
//! "Fast splittable pseudorandom number generators", OOPSLA 2014).

/// Weyl increment of SplitMix64: the odd integer nearest to 2^64 divided by the golden ratio.
const INCREMENT: u64 = 0x9e37_79b9_7f4a_7c15;

/// The generator's output at position `counter` of the stream that `seed` names.
pub(crate) fn draw(seed: u64, counter: u64) -> u64 {
    let mut z = seed.wrapping_add(counter.wrapping_add(1).wrapping_mul(INCREMENT));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A uniform draw in `0..n` by multiply-shift; its bias is below n / 2^64.
/// `n` must not be 0, or the result 0 names nothing.
pub(crate) fn below(n: usize, seed: u64, counter: u64) -> usize {
    ((u128::from(draw(seed, counter)) * n as u128) >> 64) as usize
}

/// Puts items into an order that the seed draws (R. Durstenfeld, CACM 7, 1964).
pub(crate) fn shuffle<T>(items: &mut [T], seed: u64) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(last + 1, seed, last as u64));
    }
}

/// A number for a name: the FNV-1a hash (Fowler, Noll and Vo; 64 bits).
pub(crate) fn text_number(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First outputs of the reference generator started at 0, as its authors publish them.
    #[test]
    fn equals_splitmix64() {
        assert_eq!(draw(0, 0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(draw(0, 1), 0x6e78_9e6a_a1b9_65f4);
        assert_eq!(draw(0, 2), 0x06c4_5d18_8009_454f);
    }

    /// Published test values of the hash.
    #[test]
    fn names_become_numbers() {
        assert_eq!(text_number(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(text_number("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(text_number("foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn below_is_roughly_uniform() {
        let mut counts = [0usize; 7];
        for counter in 0..70_000 {
            counts[below(7, 5, counter)] += 1;
        }
        assert!(counts.iter().all(|&count| count.abs_diff(10_000) < 500), "{counts:?}");
    }
}
