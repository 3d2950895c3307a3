// Matrix products of tiles in shared memory, a warp at a time, for one head width and
// one element type: HEAD_DIM and BF16 are defined by the compiler's options.
//
// Both types leave the result where the tensor cores leave it: the warp's 16 rows in
// slices of 8 columns; lane l has rows l / 4 and l / 4 + 8, columns 2 (l % 4) and the
// next (PTX ISA, "Matrix Fragments for mma.m16n8k16").

#define DIM ((HEAD_DIM + 15) / 16 * 16)
#define SLICES (DIM / 8)
#define TILE 64      // rows of a block: 16 a warp
#define THREADS 128  // four warps

#if BF16
typedef u16 Element;
#define PAD 8
#define FORWARD_COLUMNS 64
#define BACKWARD_COLUMNS 32
__device__ __forceinline__ Element narrow(float x) { return to_bf16(x); }
#else
typedef float Element;
#define PAD 4
#define FORWARD_COLUMNS 32
#define BACKWARD_COLUMNS 16
__device__ __forceinline__ Element narrow(float x) { return x; }
#endif

// Elements from one row of a tile to the next: whole 16 bytes, and such that eight
// rows fall on different banks.
#define STRIDE (DIM + PAD)

struct Lane {
    u32 lane, row, column;
};

__device__ __forceinline__ Lane this_lane() {
    u32 lane = threadIdx.x % WARP;
    Lane l = {lane, lane / 4, lane % 4 * 2};
    return l;
}

template <int N>
__device__ __forceinline__ void clear(float (&sums)[N][4]) {
#pragma unroll
    for (int n = 0; n < N; ++n) sums[n][0] = sums[n][1] = sums[n][2] = sums[n][3] = 0.0f;
}

#if BF16

#ifndef EMULATED
// Four 8 x 8 matrices; lane l gives the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void load_matrices(u32 (&to)[4], const Element* row) {
    u32 address = (u32)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
}

__device__ __forceinline__ void load_transposed(u32 (&to)[4], const Element* row) {
    u32 address = (u32)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
}

__device__ __forceinline__ void multiply(float (&sum)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif

// sums[16][8 N] += a[16][inner] b[8 N][inner]^T; `a` begins at the warp's rows.
template <int N>
__device__ __forceinline__ void add_rows_by_rows(float (&sums)[N][4], const Element* a,
                                                 const Element* b, u32 inner, u32 stride) {
    u32 lane = threadIdx.x % WARP;
    const Element* a_row = a + lane % 16 * stride + lane / 16 * 8;
    const Element* b_row = b + (lane / 16 * 8 + lane % 8) * stride + lane / 8 % 2 * 8;
    for (u32 k = 0; k < inner; k += 16) {
        u32 left[4], right[4];
        load_matrices(left, a_row + k);
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            load_matrices(right, b_row + n * 8 * stride + k);
            multiply(sums[n], left, right[0], right[1]);
            multiply(sums[n + 1], left, right[2], right[3]);
        }
    }
}

// sums[16][8 N] += a[16][inner] b[inner][8 N].
template <int N>
__device__ __forceinline__ void add_rows_by_columns(float (&sums)[N][4], const Element* a,
                                                    u32 a_stride, const Element* b, u32 inner) {
    u32 lane = threadIdx.x % WARP;
    const Element* a_row = a + lane % 16 * a_stride + lane / 16 * 8;
    const Element* b_row = b + lane % 16 * STRIDE + lane / 16 * 8;
    for (u32 k = 0; k < inner; k += 16) {
        u32 left[4], right[4];
        load_matrices(left, a_row + k);
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            load_transposed(right, b_row + k * STRIDE + n * 8);
            multiply(sums[n], left, right[0], right[1]);
            multiply(sums[n + 1], left, right[2], right[3]);
        }
    }
}

#else

template <int N>
__device__ __forceinline__ void add_rows_by_rows(float (&sums)[N][4], const Element* a,
                                                 const Element* b, u32 inner, u32 stride) {
    Lane l = this_lane();
    const Element *upper = a + l.row * stride, *lower = upper + 8 * stride;
#pragma unroll
    for (int n = 0; n < N; ++n) {
        const Element *first = b + (n * 8 + l.column) * stride, *second = first + stride;
        for (u32 k = 0; k < inner; ++k) {
            sums[n][0] = fmaf(upper[k], first[k], sums[n][0]);
            sums[n][1] = fmaf(upper[k], second[k], sums[n][1]);
            sums[n][2] = fmaf(lower[k], first[k], sums[n][2]);
            sums[n][3] = fmaf(lower[k], second[k], sums[n][3]);
        }
    }
}

template <int N>
__device__ __forceinline__ void add_rows_by_columns(float (&sums)[N][4], const Element* a,
                                                    u32 a_stride, const Element* b, u32 inner) {
    Lane l = this_lane();
    const Element *upper = a + l.row * a_stride, *lower = upper + 8 * a_stride;
    for (u32 k = 0; k < inner; ++k) {
#pragma unroll
        for (int n = 0; n < N; ++n) {
            const Element* at = b + k * STRIDE + n * 8 + l.column;
            sums[n][0] = fmaf(upper[k], at[0], sums[n][0]);
            sums[n][1] = fmaf(upper[k], at[1], sums[n][1]);
            sums[n][2] = fmaf(lower[k], at[0], sums[n][2]);
            sums[n][3] = fmaf(lower[k], at[1], sums[n][3]);
        }
    }
}

#endif

// Puts a row of HEAD_DIM numbers into a tile, followed by zeros; a null row is zero.
__device__ __forceinline__ void load_row(Element* to, const float* from, u32 lane) {
    for (u32 d = lane; d < DIM; d += WARP) {
        to[d] = narrow(from && d < HEAD_DIM ? from[d] : 0.0f);
    }
}

// A warp's 16 rows of N slices, rounded, into its rows of a tile.
template <int N>
__device__ __forceinline__ void store_tile(Element* to, u32 stride, const float (&values)[N][4]) {
    Lane l = this_lane();
#pragma unroll
    for (int n = 0; n < N; ++n) {
        Element* upper = to + l.row * stride + n * 8 + l.column;
        Element* lower = upper + 8 * stride;
        upper[0] = narrow(values[n][0]);
        upper[1] = narrow(values[n][1]);
        lower[0] = narrow(values[n][2]);
        lower[1] = narrow(values[n][3]);
    }
}
