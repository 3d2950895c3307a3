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

// A block a token; angles are formed in f64, so that far positions lose nothing.
KERNEL rope(float* x, const u32* positions, const float* inverse_frequencies, u32 heads,
            u32 head_dim, float sign) {
    SHARED_MEMORY(memory);
    u32 half = head_dim / 2;
    float* cosines = (float*)memory;
    float* sines = cosines + half;
    double position = (double)positions[blockIdx.x];
    for (u32 n = threadIdx.x; n < half; n += blockDim.x) {
        double sine, cosine;
        sincos(position * (double)inverse_frequencies[n], &sine, &cosine);
        cosines[n] = (float)cosine;
        sines[n] = sign * (float)sine;
    }
    __syncthreads();
    float* token = x + (u64)blockIdx.x * heads * head_dim;
    for (u32 n = threadIdx.x; n < heads * half; n += blockDim.x) {
        float* low = token + n / half * head_dim + n % half;
        float a = low[0], b = low[half];
        low[0] = a * cosines[n % half] - b * sines[n % half];
        low[half] = b * cosines[n % half] + a * sines[n % half];
    }
}
