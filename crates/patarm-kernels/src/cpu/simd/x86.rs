//! AVX2 with FMA, and AVX-512F.
#![expect(unsafe_code, reason = "vector instructions; a token proves that they are present")]

use std::arch::x86_64::*;

use super::{Half, Kernel, Lanes, Simd};

/// AVX2 and FMA are present: made by [`Avx2::detect`] only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

/// AVX-512F, AVX2 and FMA are present: made by [`Avx512::detect`] only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

impl Avx2 {
    pub(crate) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }

    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: the token exists, so the features were detected.
        unsafe { run_avx2(self, kernel) }
    }
}

impl Avx512 {
    pub(crate) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f") && Avx2::detect().is_some()).then_some(Self(()))
    }

    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: the token exists, so the features were detected.
        unsafe { run_avx512(self, kernel) }
    }
}

#[target_feature(enable = "avx2,fma")]
fn run_avx2<K: Kernel>(token: Avx2, kernel: K) -> K::Output {
    kernel.run(token)
}

#[target_feature(enable = "avx512f,avx2,fma")]
fn run_avx512<K: Kernel>(token: Avx512, kernel: K) -> K::Output {
    kernel.run(token)
}

/// Defines a method whose body may use the token's instructions.
macro_rules! with_token {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty $body:block)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $ty),*) -> $ret {
            // SAFETY: the token exists, so the instructions are present; memory
            // is reached through references to whole arrays.
            unsafe { $body }
        }
    )*};
}

/// Two registers of eight lanes.
#[derive(Clone, Copy)]
pub(crate) struct Pair(__m256, __m256);

impl Simd for Avx2 {
    type V = Pair;

    with_token! {
        fn splat(value: f32) -> Pair {
            Pair(_mm256_set1_ps(value), _mm256_set1_ps(value))
        }
        fn load(from: &Lanes) -> Pair {
            let at = from.as_ptr();
            Pair(_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8)))
        }
        fn store(value: Pair, to: &mut Lanes) -> () {
            let at = to.as_mut_ptr();
            _mm256_storeu_ps(at, value.0);
            _mm256_storeu_ps(at.add(8), value.1);
        }
        fn add(a: Pair, b: Pair) -> Pair {
            Pair(_mm256_add_ps(a.0, b.0), _mm256_add_ps(a.1, b.1))
        }
        fn sub(a: Pair, b: Pair) -> Pair {
            Pair(_mm256_sub_ps(a.0, b.0), _mm256_sub_ps(a.1, b.1))
        }
        fn mul(a: Pair, b: Pair) -> Pair {
            Pair(_mm256_mul_ps(a.0, b.0), _mm256_mul_ps(a.1, b.1))
        }
        fn div(a: Pair, b: Pair) -> Pair {
            Pair(_mm256_div_ps(a.0, b.0), _mm256_div_ps(a.1, b.1))
        }
        fn max(a: Pair, b: Pair) -> Pair {
            Pair(_mm256_max_ps(a.0, b.0), _mm256_max_ps(a.1, b.1))
        }
        fn sqrt(a: Pair) -> Pair {
            Pair(_mm256_sqrt_ps(a.0), _mm256_sqrt_ps(a.1))
        }
        fn mul_add(a: Pair, b: Pair, c: Pair) -> Pair {
            Pair(_mm256_fmadd_ps(a.0, b.0, c.0), _mm256_fmadd_ps(a.1, b.1, c.1))
        }
        fn select_less(a: Pair, b: Pair, then: Pair, otherwise: Pair) -> Pair {
            let low = _mm256_cmp_ps::<_CMP_LT_OQ>(a.0, b.0);
            let high = _mm256_cmp_ps::<_CMP_LT_OQ>(a.1, b.1);
            Pair(
                _mm256_blendv_ps(otherwise.0, then.0, low),
                _mm256_blendv_ps(otherwise.1, then.1, high),
            )
        }
        fn power_of_two(shifted: Pair) -> Pair {
            let one = _mm256_set1_epi32(0x3f80_0000);
            let low = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted.0));
            let high = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted.1));
            Pair(
                _mm256_castsi256_ps(_mm256_add_epi32(low, one)),
                _mm256_castsi256_ps(_mm256_add_epi32(high, one)),
            )
        }
        fn transpose_8x8(rows: &[&[f32; 8]; 8], out: &mut [Lanes; 8], at: Half) -> () {
            transpose_8x8(rows, out, at);
        }
    }
}

impl Simd for Avx512 {
    type V = __m512;

    with_token! {
        fn splat(value: f32) -> __m512 {
            _mm512_set1_ps(value)
        }
        fn load(from: &Lanes) -> __m512 {
            _mm512_loadu_ps(from.as_ptr())
        }
        fn store(value: __m512, to: &mut Lanes) -> () {
            _mm512_storeu_ps(to.as_mut_ptr(), value);
        }
        fn add(a: __m512, b: __m512) -> __m512 {
            _mm512_add_ps(a, b)
        }
        fn sub(a: __m512, b: __m512) -> __m512 {
            _mm512_sub_ps(a, b)
        }
        fn mul(a: __m512, b: __m512) -> __m512 {
            _mm512_mul_ps(a, b)
        }
        fn div(a: __m512, b: __m512) -> __m512 {
            _mm512_div_ps(a, b)
        }
        fn max(a: __m512, b: __m512) -> __m512 {
            _mm512_max_ps(a, b)
        }
        fn sqrt(a: __m512) -> __m512 {
            _mm512_sqrt_ps(a)
        }
        fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
            _mm512_fmadd_ps(a, b, c)
        }
        fn select_less(a: __m512, b: __m512, then: __m512, otherwise: __m512) -> __m512 {
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), otherwise, then)
        }
        fn power_of_two(shifted: __m512) -> __m512 {
            let bits = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
            _mm512_castsi512_ps(_mm512_add_epi32(bits, _mm512_set1_epi32(0x3f80_0000)))
        }
        fn transpose_8x8(rows: &[&[f32; 8]; 8], out: &mut [Lanes; 8], at: Half) -> () {
            transpose_8x8(rows, out, at);
        }
    }
}

/// Pairs of rows are interleaved, then pairs of pairs, then the two halves.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose_8x8(rows: &[&[f32; 8]; 8], out: &mut [Lanes; 8], at: Half) {
    // SAFETY: each row is a whole array of eight.
    let row = |n: usize| unsafe { _mm256_loadu_ps(rows[n].as_ptr()) };
    let pair = |n: usize| {
        let (a, b) = (row(n), row(n + 1));
        (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b))
    };
    let four = |n: usize| {
        let ((a0, a1), (b0, b1)) = (pair(n), pair(n + 2));
        [
            _mm256_shuffle_ps::<0b01_00_01_00>(a0, b0),
            _mm256_shuffle_ps::<0b11_10_11_10>(a0, b0),
            _mm256_shuffle_ps::<0b01_00_01_00>(a1, b1),
            _mm256_shuffle_ps::<0b11_10_11_10>(a1, b1),
        ]
    };
    let (top, bottom) = (four(0), four(4));
    for n in 0..4 {
        let low = _mm256_permute2f128_ps::<0x20>(top[n], bottom[n]);
        let high = _mm256_permute2f128_ps::<0x31>(top[n], bottom[n]);
        // SAFETY: a half and eight more lanes are within the sixteen of a row.
        unsafe {
            _mm256_storeu_ps(out[n].as_mut_ptr().add(at as usize), low);
            _mm256_storeu_ps(out[n + 4].as_mut_ptr().add(at as usize), high);
        }
    }
}
