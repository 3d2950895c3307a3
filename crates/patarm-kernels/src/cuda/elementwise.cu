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

// Loshchilov & Hutter, arXiv 1711.05101, algorithm 2, in one pass.
KERNEL adamw(float* parameter, const float* gradient, float* first, float* second,
             const float* sum_of_squares, AdamW step, u64 len) {
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
    float scale = shared_scale;
    EACH(n, len) {
        float g = gradient[n] * scale;
        float m = fmaf(1.0f - step.beta1, g, step.beta1 * first[n]);
        float v = fmaf((1.0f - step.beta2) * g, g, step.beta2 * second[n]);
        float divisor = fmaf(sqrtf(v), step.root_correction, step.eps);
        first[n] = m;
        second[n] = v;
        parameter[n] = fmaf(-step.step_size, m / divisor, parameter[n] * step.keep);
    }
}
