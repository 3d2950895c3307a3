//! Sixteen lanes of `f32` on whatever vector unit the processor has.
//!
//! Kernels are written once, generic over [`Simd`], and compiled three times:
//! for AVX-512F, for AVX2 with FMA, and for any processor. Which copy runs is
//! decided once, when the backend is made. Every copy has the same sixteen lanes
//! and adds them up in the same tree, so only the fused multiply-add separates
//! the portable copy from the others.

#[cfg(target_arch = "x86_64")]
#[macro_use]
mod token;

pub(crate) mod dots;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

/// Lanes of a vector on every instruction set.
pub(crate) const LANES: usize = 16;

/// One vector's worth of memory.
pub(crate) type Lanes = [f32; LANES];

/// Half a vector, by its first lane.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Half {
    Low = 0,
    High = 8,
}

/// Proof that an instruction set is present, with its operations.
pub(crate) trait Simd: Copy + Send + Sync {
    /// Sixteen lanes in registers.
    type V: Copy;
    /// Whether a dozen of them fit beside each other.
    const MANY_REGISTERS: bool = false;

    fn splat(self, value: f32) -> Self::V;
    fn load(self, from: &Lanes) -> Self::V;
    fn store(self, value: Self::V, to: &mut Lanes);
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    fn sqrt(self, a: Self::V) -> Self::V;
    /// `a · b + c`, rounded once where the processor can.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a < b ? then : otherwise`, lane by lane; a NaN compares as not less.
    fn select_less(self, a: Self::V, b: Self::V, then: Self::V, otherwise: Self::V) -> Self::V;
    /// `2ⁿ` for lanes that hold `n + 1.5 · 2²³` exactly, `-126 <= n <= 128`
    /// (128 gives infinity).
    fn power_of_two(self, shifted: Self::V) -> Self::V;
    /// Rounds to the nearest bfloat16, ties to even; a NaN stays one.
    fn round_bf16(self, a: Self::V) -> Self::V;
    /// Two bfloat16 lanes in the bits of one: `low` below `high`, both rounded.
    fn pair(self, low: Self::V, high: Self::V) -> Self::V;
    /// The lower number of every pair.
    fn low_of_pair(self, pair: Self::V) -> Self::V;
    /// The upper number of every pair.
    fn high_of_pair(self, pair: Self::V) -> Self::V;
    /// Asks for a vector's memory, which need not exist, to be brought near.
    #[inline(always)]
    fn prefetch(self, _from: *const Lanes) {}
    /// Writes the transpose of eight rows of eight into one half of the lanes.
    fn transpose_8x8(self, rows: &[&[f32; 8]; 8], out: &mut [Lanes; 8], at: Half);

    /// `c + Σ a b` over the two numbers of every pair, the upper product first.
    /// Products of bfloat16 are exact, so that fused or not makes no difference.
    #[inline(always)]
    fn dot_pairs(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        let sum = self.mul_add(self.high_of_pair(a), self.high_of_pair(b), c);
        self.mul_add(self.low_of_pair(a), self.low_of_pair(b), sum)
    }

    /// Sum of the lanes: halves are added until one is left.
    #[inline(always)]
    fn sum(self, a: Self::V) -> f32 {
        fold(self.spill(a), |a, b| a + b)
    }

    /// Largest lane.
    #[inline(always)]
    fn largest(self, a: Self::V) -> f32 {
        fold(self.spill(a), f32::max)
    }

    /// The lanes in memory.
    #[inline(always)]
    fn spill(self, a: Self::V) -> Lanes {
        let mut lanes = [0.0; LANES];
        self.store(a, &mut lanes);
        lanes
    }

    /// Loads up to sixteen elements; missing lanes are `fill`.
    #[inline(always)]
    fn load_part(self, from: &[f32], fill: f32) -> Self::V {
        match from.first_chunk::<LANES>() {
            Some(lanes) => self.load(lanes),
            None => {
                let mut lanes = [fill; LANES];
                lanes[..from.len()].copy_from_slice(from);
                self.load(&lanes)
            }
        }
    }

    /// Stores as many lanes as fit.
    #[inline(always)]
    fn store_part(self, value: Self::V, to: &mut [f32]) {
        match to.first_chunk_mut::<LANES>() {
            Some(lanes) => self.store(value, lanes),
            None => {
                let lanes = self.spill(value);
                let len = to.len();
                to.copy_from_slice(&lanes[..len]);
            }
        }
    }
}

#[inline(always)]
fn fold(lanes: Lanes, combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = lanes;
    let mut half = LANES / 2;
    while half > 0 {
        for n in 0..half {
            lanes[n] = combine(lanes[n], lanes[n + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// A computation that runs on the best instruction set present.
///
/// Implementations mark `run`, and every function it calls in its inner loops,
/// `#[inline(always)]`: a call that is not inlined loses the instruction set.
pub(crate) trait Kernel {
    type Output;
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// The instruction set the kernels run on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Isa {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(x86::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(x86::Avx512),
}

impl Isa {
    /// The widest one this processor has.
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(token) = x86::Avx512::detect() {
                return Self::Avx512(token);
            }
            if let Some(token) = x86::Avx2::detect() {
                return Self::Avx2(token);
            }
        }
        Self::Portable
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512f",
        }
    }

    /// Runs a kernel.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Self::Portable => kernel.run(Portable),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => token.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => token.run(kernel),
        }
    }
}

/// The nearest bfloat16, ties to even.
#[inline(always)]
pub(crate) fn round_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
    if x.is_nan() { f32::NAN } else { f32::from_bits(rounded) }
}

/// Plain arrays, for any processor; the compiler vectorises what it can.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

macro_rules! lane_by_lane {
    ($name:ident($($arg:ident),+) => $value:expr) => {
        #[inline(always)]
        fn $name(self, $($arg: Lanes),+) -> Lanes {
            let mut out = [0.0; LANES];
            for n in 0..LANES {
                $(let $arg = $arg[n];)+
                out[n] = $value;
            }
            out
        }
    };
}

impl Simd for Portable {
    type V = Lanes;

    #[inline(always)]
    fn splat(self, value: f32) -> Lanes {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, from: &Lanes) -> Lanes {
        *from
    }

    #[inline(always)]
    fn store(self, value: Lanes, to: &mut Lanes) {
        *to = value;
    }

    lane_by_lane!(add(a, b) => a + b);
    lane_by_lane!(sub(a, b) => a - b);
    lane_by_lane!(mul(a, b) => a * b);
    lane_by_lane!(div(a, b) => a / b);
    lane_by_lane!(max(a, b) => if a > b { a } else { b });
    lane_by_lane!(sqrt(a) => a.sqrt());
    lane_by_lane!(mul_add(a, b, c) => a * b + c);
    lane_by_lane!(select_less(a, b, then, otherwise) => if a < b { then } else { otherwise });
    lane_by_lane!(power_of_two(shifted) => {
        f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000))
    });

    lane_by_lane!(round_bf16(a) => round_bf16(a));
    lane_by_lane!(pair(low, high) => f32::from_bits(low.to_bits() >> 16 | high.to_bits()));
    lane_by_lane!(low_of_pair(pair) => f32::from_bits(pair.to_bits() << 16));
    lane_by_lane!(high_of_pair(pair) => f32::from_bits(pair.to_bits() & 0xffff_0000));

    #[inline(always)]
    fn transpose_8x8(self, rows: &[&[f32; 8]; 8], out: &mut [Lanes; 8], at: Half) {
        for (n, row) in rows.iter().enumerate() {
            for (m, &value) in row.iter().enumerate() {
                out[m][at as usize + n] = value;
            }
        }
    }
}

#[cfg(test)]
mod tests;
