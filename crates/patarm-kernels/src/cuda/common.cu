// What every kernel shares. Sources are joined in the order of `program.rs`, include
// nothing, and are compiled at run time by NVRTC; the tests also compile them as C++
// against `emulator.h`, which runs the threads of a block one after the other.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#ifndef EMULATED
#define KERNEL extern "C" __global__ void
#define SHARED_MEMORY(name) extern __shared__ __align__(16) u8 name[]
#endif

#define WARP 32
#define ALL_LANES 0xffffffffu

// Every element of a flat array, whatever the size of the grid.
#define EACH(n, len)                                                             \
    for (u64 n = blockIdx.x * (u64)blockDim.x + threadIdx.x; n < (len);          \
         n += gridDim.x * (u64)blockDim.x)

// Which warp of the whole grid this is.
__device__ __forceinline__ u64 warp_of_grid() {
    return (blockIdx.x * (u64)blockDim.x + threadIdx.x) / WARP;
}

__device__ __forceinline__ float infinity() { return __uint_as_float(0x7f800000u); }

__device__ __forceinline__ float from_bf16(u16 x) { return __uint_as_float((u32)x << 16); }

// To the nearest, ties to even, as on the CPU; NaN stays NaN.
__device__ __forceinline__ u16 to_bf16(float x) {
    u32 bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (u16)(bits >> 16) | 0x40;
    return (u16)((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

// Raises what is so far below that its exponential is zero, which keeps 0 times
// infinity out; NaN stays NaN.
__device__ __forceinline__ float not_below(float x) { return x < -1e4f ? -1e4f : x; }

// The same value in every lane, added in the same order every time.
template <class T>
__device__ __forceinline__ T warp_sum(T x) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        x += __shfl_xor_sync(ALL_LANES, x, offset);
    }
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, offset));
    }
    return x;
}

// Sum over a block of whole warps, in every thread. `shared` holds a number a warp.
template <class T>
__device__ T block_sum(T x, T* shared) {
    x = warp_sum(x);
    if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = x;
    __syncthreads();
    T sum = 0;
    for (u32 warp = 0; warp < blockDim.x / WARP; ++warp) sum += shared[warp];
    __syncthreads();
    return sum;
}

__device__ __forceinline__ float block_max(float x, float* shared) {
    x = warp_max(x);
    if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = x;
    __syncthreads();
    float max = -infinity();
    for (u32 warp = 0; warp < blockDim.x / WARP; ++warp) max = fmaxf(max, shared[warp]);
    __syncthreads();
    return max;
}
