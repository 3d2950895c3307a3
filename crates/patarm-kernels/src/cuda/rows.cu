// Operations on rows: gather, scatter, normalisation, rotation, column sums.

// A block a row.
KERNEL gather_rows(const float* table, const u32* ids, u32 dim, float* out) {
    const float* from = table + (u64)ids[blockIdx.x] * dim;
    float* to = out + (u64)blockIdx.x * dim;
    for (u32 d = threadIdx.x; d < dim; d += blockDim.x) to[d] = from[d];
}

// A block a row of the table that is written: the last row with its id.
KERNEL scatter_rows(const float* rows, const u32* last, const u32* targets, u32 dim,
                    float* table) {
    const float* from = rows + (u64)last[blockIdx.x] * dim;
    float* to = table + (u64)targets[blockIdx.x] * dim;
    for (u32 d = threadIdx.x; d < dim; d += blockDim.x) to[d] = from[d];
}

// A block a row of the table: adds the rows with its id, in their order.
KERNEL scatter_add_rows(const float* rows, const u32* order, const u32* starts,
                        const u32* targets, u32 dim, float* table) {
    u32 start = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    float* to = table + (u64)targets[blockIdx.x] * dim;
    for (u32 d = threadIdx.x; d < dim; d += blockDim.x) {
        float sum = to[d];
        for (u32 n = start; n < end; ++n) sum += rows[(u64)order[n] * dim + d];
        to[d] = sum;
    }
}

// A warp a row.
KERNEL rms_norm(const float* x, const float* weight, u32 rows, u32 dim, float eps, float* out,
                float* inv_rms) {
    u64 row = warp_of_grid();
    u32 lane = threadIdx.x % WARP;
    if (row >= rows) return;
    x += row * dim;
    out += row * dim;
    float squares = 0.0f;
    for (u32 d = lane; d < dim; d += WARP) squares = fmaf(x[d], x[d], squares);
    float scale = 1.0f / sqrtf(warp_sum(squares) / (float)dim + eps);
    for (u32 d = lane; d < dim; d += WARP) out[d] = x[d] * scale * weight[d];
    if (lane == 0) inv_rms[row] = scale;
}

// With r = inv_rms and g = weight d_out: d_x (+)= r g - x r^3 mean(x g). A warp a row.
KERNEL rms_norm_backward(const float* x, const float* weight, const float* inv_rms,
                         const float* d_out, u32 rows, u32 dim, u32 add, float* d_x) {
    u64 row = warp_of_grid();
    u32 lane = threadIdx.x % WARP;
    if (row >= rows) return;
    x += row * dim;
    d_out += row * dim;
    d_x += row * dim;
    float dot = 0.0f;
    for (u32 d = lane; d < dim; d += WARP) dot = fmaf(x[d], weight[d] * d_out[d], dot);
    float r = inv_rms[row];
    float back = -(warp_sum(dot) / (float)dim) * r * r * r;
    for (u32 d = lane; d < dim; d += WARP) {
        float along = fmaf(x[d], back, add ? d_x[d] : 0.0f);
        d_x[d] = fmaf(weight[d] * d_out[d], r, along);
    }
}

// Rows `blockIdx.x * piece` and on: a partial sum of every column of d_out x r.
KERNEL norm_weight_partial(const float* x, const float* inv_rms, const float* d_out, u32 rows,
                           u32 dim, u32 piece, float* partial) {
    u32 column = blockIdx.y * blockDim.x + threadIdx.x;
    if (column >= dim) return;
    u32 start = blockIdx.x * piece;
    u32 end = min(rows, start + piece);
    float sum = 0.0f;
    for (u32 row = start; row < end; ++row) {
        u64 at = (u64)row * dim + column;
        sum = fmaf(d_out[at], x[at] * inv_rms[row], sum);
    }
    partial[(u64)blockIdx.x * dim + column] = sum;
}

// The same of plain rows.
KERNEL column_partial(const float* x, u32 rows, u32 dim, u32 piece, float* partial) {
    u32 column = blockIdx.y * blockDim.x + threadIdx.x;
    if (column >= dim) return;
    u32 start = blockIdx.x * piece;
    u32 end = min(rows, start + piece);
    float sum = 0.0f;
    for (u32 row = start; row < end; ++row) sum += x[(u64)row * dim + column];
    partial[(u64)blockIdx.x * dim + column] = sum;
}

// sums += the partial sums, in order.
KERNEL add_partial_rows(const float* partial, u32 pieces, u32 dim, float* sums) {
    u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= dim) return;
    float sum = 0.0f;
    for (u32 n = 0; n < pieces; ++n) sum += partial[(u64)n * dim + column];
    sums[column] += sum;
}

// What turns the pairs (n, n + half) of every head of a token.
struct Rotation {
    float* cosines;
    float* sines;
    u32 half;
};

// The rotation of a block's token. Angles are formed in f64, so that far positions lose
// nothing.
__device__ __forceinline__ Rotation block_rotation(u8* memory, u32 position,
                                                   const float* inverse_frequencies, u32 half,
                                                   float sign) {
    Rotation rotation = {(float*)memory, (float*)memory + half, half};
    for (u32 n = threadIdx.x; n < half; n += blockDim.x) {
        double sine, cosine;
        sincos((double)position * (double)inverse_frequencies[n], &sine, &cosine);
        rotation.cosines[n] = (float)cosine;
        rotation.sines[n] = sign * (float)sine;
    }
    __syncthreads();
    return rotation;
}

// Turns a pair and writes it to `low` and `half` further.
__device__ __forceinline__ void turn(const Rotation& rotation, u32 n, float a, float b,
                                     float* low) {
    low[0] = a * rotation.cosines[n] - b * rotation.sines[n];
    low[rotation.half] = b * rotation.cosines[n] + a * rotation.sines[n];
}

// A block a token.
KERNEL rope(float* x, const u32* positions, const float* inverse_frequencies, u32 heads,
            u32 head_dim, float sign) {
    SHARED_MEMORY(memory);
    u32 half = head_dim / 2;
    Rotation rotation =
        block_rotation(memory, positions[blockIdx.x], inverse_frequencies, half, sign);
    float* token = x + (u64)blockIdx.x * heads * head_dim;
    for (u32 n = threadIdx.x; n < heads * half; n += blockDim.x) {
        float* low = token + n / half * head_dim + n % half;
        turn(rotation, n % half, low[0], low[half], low);
    }
}

// rms_norm of every head, then rope: a block a token, a warp a head.
KERNEL rotated_norm(const float* x, const float* weight, const u32* positions,
                    const float* inverse_frequencies, u32 heads, u32 head_dim, float eps,
                    float* out, float* inv_rms) {
    SHARED_MEMORY(memory);
    u32 half = head_dim / 2, lane = threadIdx.x % WARP;
    Rotation rotation =
        block_rotation(memory, positions[blockIdx.x], inverse_frequencies, half, 1.0f);
    for (u32 head = threadIdx.x / WARP; head < heads; head += blockDim.x / WARP) {
        u64 row = (u64)blockIdx.x * heads + head;
        const float* from = x + row * head_dim;
        float squares = 0.0f;
        for (u32 d = lane; d < head_dim; d += WARP) squares = fmaf(from[d], from[d], squares);
        float scale = 1.0f / sqrtf(warp_sum(squares) / (float)head_dim + eps);
        for (u32 n = lane; n < half; n += WARP) {
            float a = from[n] * scale * weight[n];
            float b = from[n + half] * scale * weight[n + half];
            turn(rotation, n, a, b, out + row * head_dim + n);
        }
        if (lane == 0) inv_rms[row] = scale;
    }
}

// The gradient: d_out turns back in place, d_x is as in rms_norm_backward.
KERNEL rotated_norm_backward(const float* x, const float* weight, const float* inv_rms,
                             const u32* positions, const float* inverse_frequencies, u32 heads,
                             u32 head_dim, float* d_out, float* d_x) {
    SHARED_MEMORY(memory);
    u32 half = head_dim / 2, lane = threadIdx.x % WARP;
    Rotation rotation =
        block_rotation(memory, positions[blockIdx.x], inverse_frequencies, half, -1.0f);
    for (u32 head = threadIdx.x / WARP; head < heads; head += blockDim.x / WARP) {
        u64 row = (u64)blockIdx.x * heads + head;
        const float* from = x + row * head_dim;
        float* gradient = d_out + row * head_dim;
        float dot = 0.0f;
        for (u32 n = lane; n < half; n += WARP) {
            turn(rotation, n, gradient[n], gradient[n + half], gradient + n);
            dot = fmaf(from[n], weight[n] * gradient[n], dot);
            dot = fmaf(from[n + half], weight[n + half] * gradient[n + half], dot);
        }
        float r = inv_rms[row];
        float back = -(warp_sum(dot) / (float)head_dim) * r * r * r;
        // A lane meets the pairs again that it turned itself.
        for (u32 n = lane; n < half; n += WARP) {
            for (u32 d = n; d < head_dim; d += half) {
                d_x[row * head_dim + d] = fmaf(weight[d] * gradient[d], r, from[d] * back);
            }
        }
    }
}
