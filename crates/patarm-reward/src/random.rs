//! A small seeded generator, so that every draw of this crate can be repeated.
//!
//! SplitMix64 (Steele, Lea and Flood, 2014): a counter and a mixing function.
//! Statistical quality is ample for jitter and template choice; it is no source of
//! secrets.

/// A seeded stream of numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// The stream of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The stream of `seed` for one of many independent uses, told apart by `stream`.
    #[must_use]
    pub fn for_stream(seed: u64, stream: u64) -> Self {
        let mut outer = Self::new(seed);
        let base = outer.next_u64();
        Self::new(base ^ Self::new(stream).next_u64())
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    pub fn next_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in 0..bound by 128-bit multiplication (bias below bound / 2⁶⁴); 0 when
    /// `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let wide = u128::from(self.next_u64()) * bound as u128;
        (wide >> 64) as usize
    }

    /// Puts `items` into a uniformly random order (Fisher–Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::SplitMix64;

    #[test]
    fn first_values_are_those_of_the_published_generator() {
        let mut generator = SplitMix64::new(1_234_567);
        let values: Vec<u64> = (0..3).map(|_| generator.next_u64()).collect();
        assert_eq!(
            values,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn below_stays_below_and_reaches_every_value() {
        let mut generator = SplitMix64::new(3);
        let mut counts = [0usize; 9];
        for _ in 0..9_000 {
            counts[generator.below(9)] += 1;
        }
        assert!(counts.iter().all(|&count| (850..1150).contains(&count)), "{counts:?}");
        assert_eq!(generator.below(0), 0);
    }

    #[test]
    fn streams_of_one_seed_differ() {
        let a = SplitMix64::for_stream(1, 0).next_u64();
        let b = SplitMix64::for_stream(1, 1).next_u64();
        let c = SplitMix64::for_stream(0, 1).next_u64();
        assert!(a != b && b != c);
    }
}
