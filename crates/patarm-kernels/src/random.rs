//! Counter-based randomness: a draw is a pure function of its coordinates.
//!
//! The mixing function is the finaliser of SplitMix64 (Steele, Lea & Flood,
//! OOPSLA 2014), chained over the coordinates, so that neither the order of
//! draws nor the number of threads can change a result.

/// Mixes one word into a state.
#[must_use]
pub fn mix(state: u64, word: u64) -> u64 {
    let mut z =
        state.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ word.wrapping_mul(0xd6e8_feb8_6659_fd93);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A 64-bit draw at the given coordinates.
#[must_use]
pub fn draw(seed: u64, coordinates: &[u64]) -> u64 {
    coordinates.iter().fold(mix(0, seed), |state, &word| mix(state, word))
}

/// A uniform draw in `[0, 1)` with 53 bits.
#[must_use]
pub fn uniform(seed: u64, coordinates: &[u64]) -> f64 {
    (draw(seed, coordinates) >> 11) as f64 / (1u64 << 53) as f64
}

/// A uniform draw in `0..n`.
///
/// # Panics
/// When `n` is 0.
#[must_use]
pub fn below(n: usize, seed: u64, coordinates: &[u64]) -> usize {
    assert!(n > 0, "a draw needs at least one outcome");
    ((uniform(seed, coordinates) * n as f64) as usize).min(n - 1)
}

/// A standard normal draw (Box-Muller).
#[must_use]
pub fn normal(seed: u64, coordinates: &[u64]) -> f64 {
    let first = draw(seed, coordinates);
    let u = ((first >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let v = (mix(first, 1) >> 11) as f64 / (1u64 << 53) as f64;
    (-2.0 * u.ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos()
}

/// Shuffles in place (Fisher-Yates) as a function of seed and stream.
pub fn shuffle<T>(items: &mut [T], seed: u64, stream: u64) {
    for n in (1..items.len()).rev() {
        items.swap(n, below(n + 1, seed, &[stream, n as u64]));
    }
}
