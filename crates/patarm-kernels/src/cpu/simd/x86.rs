//! AVX2 with FMA, and AVX-512F.
#![expect(unsafe_code, reason = "vector instructions; a token proves that they are present")]

use std::arch::x86_64::*;

use super::{Half, Kernel, Lanes, Simd};

/// The processor's maker, in the twelve letters of CPUID leaf 0.
pub(crate) fn vendor() -> [u8; 12] {
    #[expect(unused_unsafe, reason = "reading leaf 0 is safe in newer compilers")]
    // SAFETY: every x86-64 processor has CPUID.
    let leaf = unsafe { __cpuid(0) };
    let mut letters = [0; 12];
    for (to, register) in letters.chunks_exact_mut(4).zip([leaf.ebx, leaf.edx, leaf.ecx]) {
        to.copy_from_slice(&register.to_le_bytes());
    }
    letters
}

/// AVX2 and FMA are present: made by [`Avx2::detect`] only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

/// AVX-512F, AVX2 and FMA are present: made by [`Avx512::detect`] only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

/// AVX512-BF16 beside what [`Avx512`] stands for: made by [`Avx512Bf16::detect`]
/// only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512Bf16(Avx512);

impl Avx512Bf16 {
    pub(crate) fn detect() -> Option<Self> {
        let present = is_x86_feature_detected!("avx512bf16");
        Avx512::detect().filter(|_| present).map(Self)
    }

    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: the token exists, so the features were detected.
        unsafe { run_avx512bf16(self, kernel) }
    }
}

#[target_feature(enable = "avx512f,avx512bf16,avx2,fma")]
fn run_avx512bf16<K: Kernel>(token: Avx512Bf16, kernel: K) -> K::Output {
    kernel.run(token)
}

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

/// Two registers of eight lanes.
#[derive(Clone, Copy)]
pub(crate) struct Pair(pub(super) __m256, pub(super) __m256);

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
        fn round_bf16(a: Pair) -> Pair {
            Pair(round_bf16_avx2(a.0), round_bf16_avx2(a.1))
        }
        fn pair(low: Pair, high: Pair) -> Pair {
            let one = |low: __m256, high: __m256| {
                let low = _mm256_srli_epi32::<16>(_mm256_castps_si256(low));
                _mm256_or_ps(_mm256_castsi256_ps(low), high)
            };
            Pair(one(low.0, high.0), one(low.1, high.1))
        }
        fn low_of_pair(pair: Pair) -> Pair {
            let one = |pair| {
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_castps_si256(pair)))
            };
            Pair(one(pair.0), one(pair.1))
        }
        fn high_of_pair(pair: Pair) -> Pair {
            let upper = _mm256_castsi256_ps(_mm256_set1_epi32(-0x1_0000));
            Pair(_mm256_and_ps(pair.0, upper), _mm256_and_ps(pair.1, upper))
        }
        fn transpose_8x8(rows: &[&[f32; 8]; 8], out: &mut [Lanes; 8], at: Half) -> () {
            transpose_8x8(rows, out, at);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn round_bf16_avx2(a: __m256) -> __m256 {
    let bits = _mm256_castps_si256(a);
    let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
    let half = _mm256_add_epi32(_mm256_set1_epi32(0x7fff), odd);
    let sum = _mm256_add_epi32(bits, half);
    let rounded = _mm256_and_si256(sum, _mm256_set1_epi32(-0x1_0000));
    let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(a, a);
    _mm256_blendv_ps(_mm256_castsi256_ps(rounded), _mm256_set1_ps(f32::NAN), nan)
}

impl Simd for Avx512 {
    type V = __m512;
    const MANY_REGISTERS: bool = true;

    with_token! {
        fn splat(value: f32) -> __m512 {
            _mm512_set1_ps(value)
        }
        fn load(from: &Lanes) -> __m512 {
            _mm512_loadu_ps(from.as_ptr())
        }
        fn prefetch(from: *const Lanes) -> () {
            _mm_prefetch::<_MM_HINT_T0>(from.cast::<i8>());
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
        fn round_bf16(a: __m512) -> __m512 {
            let bits = _mm512_castps_si512(a);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let half = _mm512_add_epi32(_mm512_set1_epi32(0x7fff), odd);
            let sum = _mm512_add_epi32(bits, half);
            let rounded = _mm512_and_si512(sum, _mm512_set1_epi32(-0x1_0000));
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a);
            _mm512_mask_blend_ps(nan, _mm512_castsi512_ps(rounded), _mm512_set1_ps(f32::NAN))
        }
        fn pair(low: __m512, high: __m512) -> __m512 {
            let low = _mm512_srli_epi32::<16>(_mm512_castps_si512(low));
            _mm512_castsi512_ps(_mm512_or_si512(low, _mm512_castps_si512(high)))
        }
        fn low_of_pair(pair: __m512) -> __m512 {
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_castps_si512(pair)))
        }
        fn high_of_pair(pair: __m512) -> __m512 {
            let upper = _mm512_set1_epi32(-0x1_0000);
            _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(pair), upper))
        }
        fn transpose_8x8(rows: &[&[f32; 8]; 8], out: &mut [Lanes; 8], at: Half) -> () {
            transpose_8x8(rows, out, at);
        }
    }
}

/// Forwards methods to AVX-512F.
macro_rules! as_avx512f {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $ty),*) -> $ret {
            self.0.$name($($arg),*)
        }
    )*};
}

impl Simd for Avx512Bf16 {
    type V = __m512;
    const MANY_REGISTERS: bool = true;

    as_avx512f! {
        fn splat(value: f32) -> __m512;
        fn load(from: &Lanes) -> __m512;
        fn prefetch(from: *const Lanes) -> ();
        fn store(value: __m512, to: &mut Lanes) -> ();
        fn add(a: __m512, b: __m512) -> __m512;
        fn sub(a: __m512, b: __m512) -> __m512;
        fn mul(a: __m512, b: __m512) -> __m512;
        fn div(a: __m512, b: __m512) -> __m512;
        fn max(a: __m512, b: __m512) -> __m512;
        fn sqrt(a: __m512) -> __m512;
        fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512;
        fn select_less(a: __m512, b: __m512, then: __m512, otherwise: __m512) -> __m512;
        fn power_of_two(shifted: __m512) -> __m512;
        fn round_bf16(a: __m512) -> __m512;
        fn pair(low: __m512, high: __m512) -> __m512;
        fn low_of_pair(pair: __m512) -> __m512;
        fn high_of_pair(pair: __m512) -> __m512;
        fn transpose_8x8(rows: &[&[f32; 8]; 8], out: &mut [Lanes; 8], at: Half) -> ();
    }

    #[inline(always)]
    fn dot_pairs(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the token exists, so the instruction is present; both types are
        // 512 bits of any value.
        unsafe {
            let pairs = |bits| std::mem::transmute::<__m512, __m512bh>(bits);
            _mm512_dpbf16_ps(c, pairs(a), pairs(b))
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
