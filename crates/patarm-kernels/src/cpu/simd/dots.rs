//! Dot products of bytes, four at a time in each of sixteen lanes.
//!
//! A second seam beside [`Simd`], because processors have these instructions or not
//! independently of the others. Integers are exact, and [`Dots::fused`] is fused on
//! every path, so that all paths give the same bits.

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

use super::{LANES, Lanes, Portable, Simd};

/// The floating-point vector of a path.
pub(crate) type Vector<D> = <<D as Dots>::Simd as Simd>::V;

/// A cache line of bytes: four for each lane.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct ByteLine(pub(crate) [u8; 4 * LANES]);

/// Proof that a way of multiplying bytes is present, with its operations.
pub(crate) trait Dots: Copy + Send + Sync {
    /// The floating-point half.
    type Simd: Simd;
    /// Four bytes in each of sixteen lanes.
    type Bytes: Copy;
    /// A 32-bit integer in each of sixteen lanes.
    type Ints: Copy;
    /// Rows whose sums fit the registers: 2 or 8.
    const ROWS: usize;

    fn simd(self) -> Self::Simd;
    /// Sixteen finite half-precision numbers.
    fn half(self, from: &[u16; LANES]) -> Vector<Self>;
    /// `a · b + c`, rounded once on every path.
    #[inline(always)]
    fn fused(self, a: Vector<Self>, b: Vector<Self>, c: Vector<Self>) -> Vector<Self> {
        self.simd().mul_add(a, b, c)
    }
    fn load(self, from: &ByteLine) -> Self::Bytes;
    /// Asks for a line, which need not exist, to be brought near.
    #[inline(always)]
    fn prefetch(self, _line: *const ByteLine) {}
    /// The lower four bits of every byte.
    fn low(self, bytes: Self::Bytes) -> Self::Bytes;
    /// The upper four bits of every byte.
    fn high(self, bytes: Self::Bytes) -> Self::Bytes;
    fn splat(self, value: i32) -> Self::Ints;
    fn to_floats(self, ints: Self::Ints) -> Vector<Self>;
    /// `sum + Σ left · right` of the four bytes of a lane: unsigned on the left, the
    /// same four signed ones in every lane on the right (the first one in the lowest
    /// bits), none of them −128.
    /// `SMALL` promises that the left ones are below 64.
    fn dot<const SMALL: bool>(self, sum: Self::Ints, left: Self::Bytes, right: i32) -> Self::Ints;
}

/// A computation on dot products of bytes; see [`super::Kernel`] for the marks it needs.
pub(crate) trait DotKernel {
    fn run<D: Dots>(self, dots: D);
}

/// The way a backend multiplies bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bytes {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(x86::Avx2Dots),
    #[cfg(target_arch = "x86_64")]
    Vnni(x86::Vnni),
}

impl Bytes {
    /// The fastest this processor has.
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(token) = x86::Vnni::detect() {
            return Self::Vnni(token);
        }
        Self::without_vnni()
    }

    /// The fastest one without AVX512-VNNI.
    pub(crate) fn without_vnni() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(token) = x86::Avx2Dots::detect() {
            return Self::Avx2(token);
        }
        Self::Portable
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable-quantised",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2-quantised",
            #[cfg(target_arch = "x86_64")]
            Self::Vnni(_) => "avx512vnni-quantised",
        }
    }

    /// Runs a kernel.
    #[inline]
    pub(crate) fn run<K: DotKernel>(self, kernel: K) {
        match self {
            Self::Portable => kernel.run(Portable),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => token.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Vnni(token) => token.run(kernel),
        }
    }
}

/// 2¹¹²: the difference of the exponents' biases.
const HALF_SHIFT: f32 = f32::from_bits((112 + 127) << 23);

/// A finite half-precision number as a single-precision one.
#[inline(always)]
pub(crate) fn widen_half(half: u16) -> f32 {
    let (sign, magnitude) = (u32::from(half & 0x8000) << 16, u32::from(half & 0x7fff));
    let value = f32::from_bits(magnitude << 13) * HALF_SHIFT;
    f32::from_bits(value.to_bits() | sign)
}

/// The half-precision number of the same value, if there is a finite one.
pub(crate) fn exact_half(value: f32) -> Option<u16> {
    let magnitude = (value.abs() / HALF_SHIFT).to_bits() >> 13;
    if magnitude >= 0x7c00 {
        return None;
    }
    let half = magnitude as u16 | (value.to_bits() >> 16) as u16 & 0x8000;
    (widen_half(half).to_bits() == value.to_bits()).then_some(half)
}

impl Dots for Portable {
    type Simd = Self;
    type Bytes = ByteLine;
    type Ints = [i32; LANES];
    const ROWS: usize = 2;

    #[inline(always)]
    fn simd(self) -> Self {
        self
    }

    #[inline(always)]
    fn half(self, from: &[u16; LANES]) -> Lanes {
        from.map(widen_half)
    }

    #[inline(always)]
    fn fused(self, a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        let mut out = c;
        for n in 0..LANES {
            out[n] = a[n].mul_add(b[n], c[n]);
        }
        out
    }

    #[inline(always)]
    fn load(self, from: &ByteLine) -> ByteLine {
        *from
    }

    #[inline(always)]
    fn low(self, bytes: ByteLine) -> ByteLine {
        ByteLine(bytes.0.map(|byte| byte & 15))
    }

    #[inline(always)]
    fn high(self, bytes: ByteLine) -> ByteLine {
        ByteLine(bytes.0.map(|byte| byte >> 4))
    }

    #[inline(always)]
    fn splat(self, value: i32) -> [i32; LANES] {
        [value; LANES]
    }

    #[inline(always)]
    fn to_floats(self, ints: [i32; LANES]) -> Lanes {
        ints.map(|int| int as f32)
    }

    #[inline(always)]
    fn dot<const SMALL: bool>(self, sum: [i32; LANES], left: ByteLine, right: i32) -> [i32; LANES] {
        let right = right.to_le_bytes();
        let mut out = sum;
        for (out, left) in out.iter_mut().zip(left.0.as_chunks::<4>().0) {
            for (&left, right) in left.iter().zip(right) {
                *out += i32::from(left) * i32::from(right.cast_signed());
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finite_half_comes_back_and_nothing_else_passes_for_one() {
        for half in (0..0x7c00).chain(0x8000..0xfc00) {
            assert_eq!(exact_half(widen_half(half)), Some(half));
        }
        assert_eq!(widen_half(0x3c00), 1.0);
        assert_eq!(widen_half(0x0001), 2.0f32.powi(-24));
        assert_eq!(widen_half(0xfbff), -65_504.0);
        for other in [0.1, 65_520.0, 1e-9, f32::NAN, f32::INFINITY, f32::MIN_POSITIVE] {
            assert_eq!(exact_half(other), None, "{other}");
        }
    }

    /// One product of each extreme, and the conversions.
    struct Extremes<'a>(&'a mut Vec<[f32; LANES]>);

    impl DotKernel for Extremes<'_> {
        #[inline(always)]
        fn run<D: Dots>(self, dots: D) {
            let simd = dots.simd();
            let mut bytes = ByteLine([0; 64]);
            for (n, byte) in bytes.0.iter_mut().enumerate() {
                *byte = [255, 0, 128, 37, 254, 255, 129, 91][n % 8];
            }
            let whole = dots.load(&bytes);
            let mut keep = |ints| {
                let mut out = [0.0; LANES];
                simd.store(dots.to_floats(ints), &mut out);
                self.0.push(out);
            };
            for right in [[127_i8; 4], [-127; 4], [127, -127, 0, 1], [1, 2, -3, 4]] {
                let right = i32::from_le_bytes(right.map(i8::cast_unsigned));
                keep(dots.dot::<false>(dots.splat(-1000), whole, right));
                keep(dots.dot::<true>(dots.splat(7), dots.low(whole), right));
                keep(dots.dot::<true>(dots.splat(7), dots.high(whole), right));
            }
            let mut out = [0.0; LANES];
            let halves = std::array::from_fn(|n| (n as u16 * 0x0801) | (n as u16 & 1) << 15);
            let third = simd.splat(1.0 / 3.0);
            simd.store(dots.fused(dots.half(&halves), third, simd.splat(0.1)), &mut out);
            self.0.push(out);
        }
    }

    #[test]
    fn every_path_gives_the_numbers_of_the_plain_one() {
        let on = |bytes: Bytes| {
            let mut found = Vec::new();
            bytes.run(Extremes(&mut found));
            found.into_iter().map(|lanes| lanes.map(f32::to_bits)).collect::<Vec<_>>()
        };
        let plain = on(Bytes::Portable);
        assert_eq!(f32::from_bits(plain[0][0]), (127 * (255 + 128 + 37) - 1000) as f32);
        for bytes in [Bytes::without_vnni(), Bytes::detect()] {
            assert_eq!(on(bytes), plain, "{}", bytes.name());
        }
    }
}
