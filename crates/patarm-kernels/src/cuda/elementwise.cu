// Operations on flat arrays, and AdamW.

KERNEL fill(float* x, float value, u64 len) {
    EACH(n, len) x[n] = value;
}

KERNEL axpy(float scale, const float* x, float* y, u64 len) {
    EACH(n, len) y[n] = fmaf(scale, x[n], y[n]);
}

KERNEL round_to_bf16(const float* x, u16* out, u64 len) {
    EACH(n, len) out[n] = to_bf16(x[n]);
}

// A bias of `width` elements over, or added to, every row.
KERNEL spread_bias(const float* bias, u32 width, float* out, u64 len, u32 add) {
    EACH(n, len) out[n] = bias[n % width] + (add ? out[n] : 0.0f);
}

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

KERNEL swiglu(const float* gate, const float* up, float* out, u64 len) {
    EACH(n, len) out[n] = gate[n] * sigmoid(gate[n]) * up[n];
}

KERNEL swiglu_backward(const float* gate, const float* up, const float* d_out, float* d_gate,
                       float* d_up, u64 len) {
    EACH(n, len) {
        float g = gate[n], d = d_out[n], s = sigmoid(g);
        float slope = fmaf(g, 1.0f - s, 1.0f);
        d_gate[n] = d * up[n] * s * slope;
        d_up[n] = d * g * s;
    }
}

// A partial sum of squares a block, in f64.
KERNEL sum_of_squares(const float* x, u64 len, double* partial) {
    __shared__ double shared[WARP];
    double sum = 0;
    EACH(n, len) sum += (double)x[n] * (double)x[n];
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// One block: adds the partial sums, in order, to the accumulator.
KERNEL add_partial_squares(const double* partial, u32 count, float* accumulator) {
    __shared__ double shared[WARP];
    double sum = 0;
    for (u32 n = threadIdx.x; n < count; n += blockDim.x) sum += partial[n];
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) accumulator[0] = (float)((double)accumulator[0] + sum);
}

struct AdamW {
    float gradient_scale, max_norm, beta1, beta2, step_size, root_correction, eps, keep;
};

// What gradients are multiplied by, in every thread of a block.
__device__ float gradient_factor(const float* sum_of_squares, const AdamW& step) {
    __shared__ float shared_scale;
    if (threadIdx.x == 0) {
        float clip = 1.0f;
        if (step.max_norm > 0.0f) {
            double norm = sqrt((double)sum_of_squares[0]) * fabs((double)step.gradient_scale);
            double limit = (double)step.max_norm / (norm + 1e-6);
            clip = limit < 1.0 ? (float)limit : 1.0f;
        }
        shared_scale = step.gradient_scale * clip;
    }
    __syncthreads();
    return shared_scale;
}

// Loshchilov & Hutter, arXiv 1711.05101, algorithm 2, of one element.
__device__ __forceinline__ void advance(float* parameter, float g, float& m, float& v,
                                        const AdamW& step) {
    m = fmaf(1.0f - step.beta1, g, step.beta1 * m);
    v = fmaf((1.0f - step.beta2) * g, g, step.beta2 * v);
    float divisor = fmaf(sqrtf(v), step.root_correction, step.eps);
    *parameter = fmaf(-step.step_size, m / divisor, *parameter * step.keep);
}

KERNEL adamw(float* parameter, const float* gradient, float* first, float* second,
             const float* sum_of_squares, AdamW step, u64 len) {
    float scale = gradient_factor(sum_of_squares, step);
    EACH(n, len) advance(parameter + n, gradient[n] * scale, first[n], second[n], step);
}

// Codes of moments and the draws that round them: as in `moments.rs`.
#define MOMENT_BLOCK 256
#define FIRST_BASE ((127u - 15u) << 3)
#define SECOND_BASE ((127u - 31u) << 3)
#define DROPPED_BITS 20

__device__ __forceinline__ u32 random_bits(u32 element, u32 step) {
    u32 x = element * 0x9e3779b9u + step * 0x85ebca6bu;
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    return x ^ (x >> 16);
}

// What exceeds `base` of the bits that are kept of a magnitude, at most 1.
__device__ __forceinline__ u32 kept_bits(float magnitude, u32 random, u32 base) {
    u32 kept = (__float_as_uint(fminf(magnitude, 1.0f)) + random) >> DROPPED_BITS;
    return kept > base ? kept - base : 0;
}

__device__ __forceinline__ float first_value(u32 code) {
    u32 magnitude = code & 127;
    u32 bits = ((magnitude + FIRST_BASE) << DROPPED_BITS) | ((code & 128) << 24);
    return magnitude == 0 ? 0.0f : __uint_as_float(bits);
}

__device__ __forceinline__ float second_value(u32 code) {
    return __uint_as_float((code + SECOND_BASE) << DROPPED_BITS);
}

struct Scale {
    float value, inverse;
};

// Largest magnitude of a block and its inverse; zeros where it is next to nothing.
__device__ Scale scale_of(float x, float* shared) {
    float largest = block_max(fabsf(x), shared);
    Scale scale = {0.0f, 0.0f};
    if (largest >= 1e-36f) {
        scale.value = largest;
        scale.inverse = 1.0f / largest;
    }
    return scale;
}

// The moments of one parameter: codes, then scales.
struct EightBits {
    u8* first;
    u8* second;
    float* first_scales;
    float* second_scales;
};

// A block of 256 threads a block of elements; element `t` of it has byte `t / 64` of the
// 32-bit number `t % 64`.
KERNEL adamw_eight_bits(float* parameter, const float* gradient, EightBits moments,
                        const float* sum_of_squares, AdamW step, u32 number, u64 len) {
    __shared__ float shared[WARP];
    float scale = gradient_factor(sum_of_squares, step);
    u64 blocks = (len + MOMENT_BLOCK - 1) / MOMENT_BLOCK;
    for (u64 block = blockIdx.x; block < blocks; block += gridDim.x) {
        u64 n = block * MOMENT_BLOCK + threadIdx.x;
        u64 at = block * MOMENT_BLOCK + threadIdx.x % 64 * 4 + threadIdx.x / 64;
        float m = moments.first_scales[block] * first_value(moments.first[at]);
        float v = moments.second_scales[block] * second_value(moments.second[at]);
        if (n < len) {
            advance(parameter + n, gradient[n] * scale, m, v, step);
        } else {
            m = v = 0.0f;
        }
        Scale of_first = scale_of(m, shared);
        Scale of_second = scale_of(v, shared);
        u32 random = random_bits((u32)n, number);
        float relative = m * of_first.inverse;
        u32 code = kept_bits(fabsf(relative), random & ((1u << DROPPED_BITS) - 1), FIRST_BASE);
        moments.first[at] = (u8)(code | (__float_as_uint(relative) >> 24 & 128));
        code = kept_bits(v * of_second.inverse, random >> (32 - DROPPED_BITS), SECOND_BASE);
        moments.second[at] = (u8)(code > 1 ? code : 1);
        if (threadIdx.x == 0) {
            moments.first_scales[block] = of_first.value;
            moments.second_scales[block] = of_second.value;
        }
    }
}
