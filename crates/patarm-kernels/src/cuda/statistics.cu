// Linear -> log-probability: what becomes of a tile of logits. A block a row.

struct RowStates {
    float* max;
    // sum of exp(z - max), and of exp(z - max) (z - max)
    double* sum;
    double* weighted;
};

KERNEL statistics_begin(RowStates states, u32 rows) {
    EACH(n, rows) {
        states.max[n] = -infinity();
        states.sum[n] = 0;
        states.weighted[n] = 0;
    }
}

KERNEL statistics_add(const float* logits, u32 width, float scale, RowStates states) {
    __shared__ float shared_max[WARP];
    __shared__ double shared_sum[WARP];
    u32 row = blockIdx.x;
    logits += (u64)row * width;
    float old = states.max[row], largest = old;
    for (u32 n = threadIdx.x; n < width; n += blockDim.x) {
        largest = fmaxf(largest, logits[n] * scale);
    }
    largest = block_max(largest, shared_max);
    if (largest == -infinity()) return;
    float sum = 0.0f, weighted = 0.0f;
    for (u32 n = threadIdx.x; n < width; n += blockDim.x) {
        float below = not_below(logits[n] * scale - largest);
        float weight = expf(below);
        sum += weight;
        weighted = fmaf(weight, below, weighted);
    }
    double sums = block_sum((double)sum, shared_sum);
    double weighted_sums = block_sum((double)weighted, shared_sum);
    if (threadIdx.x == 0) {
        double shift = old == -infinity() ? 0.0 : (double)old - (double)largest;
        double factor = exp(shift);
        states.weighted[row] =
            factor * (states.weighted[row] + states.sum[row] * shift) + weighted_sums;
        states.sum[row] = factor * states.sum[row] + sums;
        states.max[row] = largest;
    }
}

// H = lse - E[z].
KERNEL statistics_finish(RowStates states, u32 rows, float* log_sum_exp, float* entropy) {
    EACH(n, rows) {
        double log_sum = log(states.sum[n]);
        log_sum_exp[n] = (float)((double)states.max[n] + log_sum);
        entropy[n] = (float)(log_sum - states.weighted[n] / states.sum[n]);
    }
}

// A tile of logits: its rows from `first_row` on, its columns from `first_column` on.
struct LogitTile {
    u32 first_row, rows, first_column, columns;
};

// The tempered logits of the chosen ids that lie in a tile. A thread a row.
KERNEL take_chosen(const float* logits, LogitTile tile, const u32* offsets, const u32* ids,
                   float scale, float* chosen) {
    EACH(row, tile.rows) {
        for (u32 n = offsets[tile.first_row + row]; n < offsets[tile.first_row + row + 1]; ++n) {
            u32 column = ids[n] - tile.first_column;
            if (column < tile.columns) chosen[n] = logits[row * tile.columns + column] * scale;
        }
    }
}

// Their gradients. One id may be chosen twice: a thread a row adds them in order.
KERNEL add_chosen(float* d_logits, LogitTile tile, const u32* offsets, const u32* ids,
                  float scale, const float* d_chosen) {
    EACH(row, tile.rows) {
        for (u32 n = offsets[tile.first_row + row]; n < offsets[tile.first_row + row + 1]; ++n) {
            u32 column = ids[n] - tile.first_column;
            if (column < tile.columns) d_logits[row * tile.columns + column] += d_chosen[n] * scale;
        }
    }
}

struct Slopes {
    const float* log_sum_exp;
    const float* entropy;
    const float* d_log_sum_exp;
    // may be null
    const float* d_entropy;
};

// With p = exp(z - lse): z <- scale (d_lse p - d_entropy p (log p + H)).
KERNEL statistics_slopes(float* logits, LogitTile tile, float scale, Slopes of) {
    u32 row = tile.first_row + blockIdx.x;
    float d_entropy = of.d_entropy ? of.d_entropy[row] : 0.0f;
    float constant = (of.d_log_sum_exp[row] - d_entropy * of.entropy[row]) * scale;
    float slope = -d_entropy * scale, log_sum_exp = of.log_sum_exp[row];
    float* z = logits + (u64)blockIdx.x * tile.columns;
    for (u32 n = threadIdx.x; n < tile.columns; n += blockDim.x) {
        float log_p = z[n] * scale - log_sum_exp;
        // 0 times minus infinity is 0 here.
        float p = expf(log_p);
        z[n] = p == 0.0f ? 0.0f : p * fmaf(slope, log_p, constant);
    }
}
