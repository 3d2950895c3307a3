//! Dot products of bytes with AVX2 and with AVX512-VNNI.
#![expect(unsafe_code, reason = "vector instructions; a token proves that they are present")]

use std::arch::x86_64::*;

use super::super::x86::{Avx2, Avx512, Pair};
use super::{ByteLine, DotKernel, Dots, LANES};

/// AVX2, FMA and F16C are present: made by [`Avx2Dots::detect`] only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2Dots(Avx2);

/// AVX512-VNNI beside what [`Avx512`] stands for: made by [`Vnni::detect`] only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vnni(Avx512);

impl Avx2Dots {
    pub(crate) fn detect() -> Option<Self> {
        Avx2::detect().filter(|_| is_x86_feature_detected!("f16c")).map(Self)
    }

    #[inline]
    pub(crate) fn run<K: DotKernel>(self, kernel: K) {
        // SAFETY: the token exists, so the features were detected.
        unsafe { run_avx2(self, kernel) }
    }
}

impl Vnni {
    pub(crate) fn detect() -> Option<Self> {
        Avx512::detect().filter(|_| is_x86_feature_detected!("avx512vnni")).map(Self)
    }

    #[inline]
    pub(crate) fn run<K: DotKernel>(self, kernel: K) {
        // SAFETY: the token exists, so the features were detected.
        unsafe { run_vnni(self, kernel) }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn run_avx2<K: DotKernel>(token: Avx2Dots, kernel: K) {
    kernel.run(token);
}

#[target_feature(enable = "avx512f,avx512vnni,avx2,fma")]
fn run_vnni<K: DotKernel>(token: Vnni, kernel: K) {
    kernel.run(token);
}

/// Two registers of integers.
#[derive(Clone, Copy)]
pub(crate) struct IntPair(__m256i, __m256i);

impl Dots for Avx2Dots {
    type Simd = Avx2;
    type Bytes = IntPair;
    type Ints = IntPair;
    const ROWS: usize = 2;

    #[inline(always)]
    fn simd(self) -> Avx2 {
        self.0
    }

    with_token! {
        fn half(from: &[u16; LANES]) -> Pair {
            let at = from.as_ptr().cast::<__m128i>();
            let low = _mm256_cvtph_ps(_mm_loadu_si128(at));
            Pair(low, _mm256_cvtph_ps(_mm_loadu_si128(at.add(1))))
        }
        fn load(from: &ByteLine) -> IntPair {
            let at = from.0.as_ptr().cast::<__m256i>();
            IntPair(_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1)))
        }
        fn low(bytes: IntPair) -> IntPair {
            let mask = _mm256_set1_epi8(15);
            IntPair(_mm256_and_si256(bytes.0, mask), _mm256_and_si256(bytes.1, mask))
        }
        fn high(bytes: IntPair) -> IntPair {
            let (low, high) = (_mm256_srli_epi16::<4>(bytes.0), _mm256_srli_epi16::<4>(bytes.1));
            IntPair(_mm256_and_si256(low, _mm256_set1_epi8(15)), _mm256_and_si256(high, _mm256_set1_epi8(15)))
        }
        fn splat(value: i32) -> IntPair {
            IntPair(_mm256_set1_epi32(value), _mm256_set1_epi32(value))
        }
        fn to_floats(ints: IntPair) -> Pair {
            Pair(_mm256_cvtepi32_ps(ints.0), _mm256_cvtepi32_ps(ints.1))
        }
    }

    #[inline(always)]
    fn dot<const SMALL: bool>(self, sum: IntPair, left: IntPair, right: i32) -> IntPair {
        // SAFETY: the token exists, so the instructions are present.
        unsafe {
            let right = _mm256_set1_epi32(right);
            let [first, second] = match SMALL {
                true => [small_dot(left.0, right), small_dot(left.1, right)],
                false => [large_dot(left.0, right), large_dot(left.1, right)],
            };
            IntPair(_mm256_add_epi32(sum.0, first), _mm256_add_epi32(sum.1, second))
        }
    }
}

/// Pairs of products of bytes below 128 fit the 16 bits that they are added in.
#[inline]
#[target_feature(enable = "avx2")]
fn small_dot(left: __m256i, right: __m256i) -> __m256i {
    _mm256_madd_epi16(_mm256_maddubs_epi16(left, right), _mm256_set1_epi16(1))
}

/// One product fits 16 bits, a sum of two would be cut off: even and odd bytes apart.
#[inline]
#[target_feature(enable = "avx2")]
fn large_dot(left: __m256i, right: __m256i) -> __m256i {
    let even = _mm256_and_si256(left, _mm256_set1_epi16(0xff));
    let odd = _mm256_andnot_si256(_mm256_set1_epi16(0xff), left);
    _mm256_add_epi32(small_dot(even, right), small_dot(odd, right))
}

impl Dots for Vnni {
    type Simd = Avx512;
    type Bytes = __m512i;
    type Ints = __m512i;
    const ROWS: usize = 8;

    #[inline(always)]
    fn simd(self) -> Avx512 {
        self.0
    }

    with_token! {
        fn half(from: &[u16; LANES]) -> __m512 {
            _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast::<__m256i>()))
        }
        fn load(from: &ByteLine) -> __m512i {
            _mm512_loadu_si512(from.0.as_ptr().cast::<__m512i>())
        }
        fn prefetch(line: *const ByteLine) -> () {
            _mm_prefetch::<_MM_HINT_T0>(line.cast::<i8>());
        }
        fn low(bytes: __m512i) -> __m512i {
            _mm512_and_si512(bytes, _mm512_set1_epi8(15))
        }
        fn high(bytes: __m512i) -> __m512i {
            _mm512_and_si512(_mm512_srli_epi32::<4>(bytes), _mm512_set1_epi8(15))
        }
        fn splat(value: i32) -> __m512i {
            _mm512_set1_epi32(value)
        }
        fn to_floats(ints: __m512i) -> __m512 {
            _mm512_cvtepi32_ps(ints)
        }
    }

    #[inline(always)]
    fn dot<const SMALL: bool>(self, sum: __m512i, left: __m512i, right: i32) -> __m512i {
        // SAFETY: the token exists, so the instructions are present.
        unsafe { _mm512_dpbusd_epi32(sum, left, _mm512_set1_epi32(right)) }
    }
}
