// Softmax attention over a forest: tiles of 64 rows, online softmax with the
// log-sum-exp kept (Dao, arXiv 2307.08691, algorithm 1).
//
// A row is a query and one of the query heads that share a key head, so that a tile
// reads its keys once for all of them: row r of a run is query r / sharing, head
// kv_head sharing + r % sharing.

// Consecutive queries that share a path; `slots` is where its table of slots begins.
struct Run {
    u32 query, len, first_position, keys, slots, causal;
};

// Rows of a run from `row` on.
struct RowTile {
    u32 run, row;
};

struct Heads {
    u32 heads, kv_heads;
    float scale;
};

struct RowsOf {
    Run run;
    u32 kv_head, sharing, count;
    Heads heads;

    __device__ RowsOf(const Run& r, const Heads& h)
        : run(r), kv_head(blockIdx.y), sharing(h.heads / h.kv_heads), count(r.len * sharing),
          heads(h) {}

    // Which of the [queries, heads] a row is.
    __device__ u64 index(u32 row) const {
        return (u64)(run.query + row / sharing) * heads.heads + kv_head * sharing + row % sharing;
    }

    // Keys a row sees; rows beyond the last see none.
    __device__ u32 seen(u32 row) const {
        if (row >= count) return 0;
        return run.causal ? run.first_position + row / sharing + 1 : run.keys;
    }

    // Keys the last row of a tile sees: more than any other.
    __device__ u32 most_seen(u32 first_row) const {
        u32 last = min(first_row + TILE, count) - 1;
        return seen(last);
    }
};

// Rows of `x` [queries, heads, HEAD_DIM] into a tile, a warp a row.
__device__ void load_queries(Element* tile, const float* x, const RowsOf& rows, u32 first,
                             u32 height) {
    for (u32 r = threadIdx.x / WARP; r < height; r += THREADS / WARP) {
        u32 row = first + r;
        const float* from = row < rows.count ? x + rows.index(row) * HEAD_DIM : 0;
        load_row(tile + r * STRIDE, from, threadIdx.x % WARP);
    }
}

// Keys (or values) at positions from `first` on, none from `end` on.
__device__ void load_keys(Element* tile, const float* x, const RowsOf& rows, const u32* slots,
                          u32 first, u32 height, u32 end) {
    for (u32 r = threadIdx.x / WARP; r < height; r += THREADS / WARP) {
        u32 position = first + r;
        const float* from = 0;
        if (position < end) {
            u64 slot = slots[rows.run.slots + position];
            from = x + (slot * rows.heads.kv_heads + rows.kv_head) * HEAD_DIM;
        }
        load_row(tile + r * STRIDE, from, threadIdx.x % WARP);
    }
}

// One of a warp's 16 rows (the lane's upper or lower one) to `to` [HEAD_DIM], times a factor.
__device__ __forceinline__ void store_row(float* to, const float (&sums)[SLICES][4], int half,
                                          float factor) {
    Lane l = this_lane();
#pragma unroll
    for (int n = 0; n < SLICES; ++n) {
        u32 d = n * 8 + l.column;
        if (d < HEAD_DIM) to[d] = sums[n][half * 2] * factor;
        if (d + 1 < HEAD_DIM) to[d + 1] = sums[n][half * 2 + 1] * factor;
    }
}

// Largest of, and sum over, the four lanes that share a row.
__device__ __forceinline__ float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}

__device__ __forceinline__ float row_sum(float x) {
    x += __shfl_xor_sync(ALL_LANES, x, 1);
    return x + __shfl_xor_sync(ALL_LANES, x, 2);
}

struct Softmax {
    float max, sum;
};

// Turns one row's scores (element `half` of every slice) into weights relative to the
// new maximum, and returns what earlier weights must be multiplied by.
template <int N>
__device__ __forceinline__ float softmax_row(float (&scores)[N][4], int half, u32 first_key,
                                             u32 seen, float scale, Softmax& state) {
    u32 column = this_lane().column;
    float largest = state.max;
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
            float& score = scores[n][half * 2 + c];
            bool visible = first_key + n * 8 + column + c < seen;
            score = visible ? score * scale : -infinity();
            largest = fmaxf(largest, score);
        }
    }
    largest = row_max(largest);
    // A row that has seen nothing yet keeps weights of zero.
    float reference = largest == -infinity() ? 0.0f : largest;
    float sum = 0.0f;
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
            float& score = scores[n][half * 2 + c];
            score = expf(score - reference);
            sum += score;
        }
    }
    float correction = expf(state.max - reference);
    state.sum = state.sum * correction + row_sum(sum);
    state.max = largest;
    return correction;
}

// What a lane holds of its two rows: sums of weights and of weighted values.
struct Attended {
    float sums[SLICES][4];
    Softmax state[2];
    u32 row[2];

    __device__ float factor(int half) const {
        return state[half].sum == 0.0f ? 0.0f : 1.0f / state[half].sum;
    }
    __device__ float log_sum_exp(int half) const {
        return state[half].max + logf(state[half].sum);
    }
};

// Attention of the rows of a tile to the keys at positions from `first` on, none from
// `end` on: multiples of FORWARD_COLUMNS both, unless no row sees a key from `end` on.
__device__ __forceinline__ void attend(const float* q, const float* k, const float* v,
                                       const RowsOf& rows, const u32* slots, u32 first_row,
                                       u32 first, u32 end, u8* memory, Attended& a) {
    const u32 columns = FORWARD_COLUMNS, weight_stride = FORWARD_COLUMNS + PAD;
    Element* queries = (Element*)memory;
    Element* keys = queries + TILE * STRIDE;
    Element* values = keys + columns * STRIDE;
    Element* weights = values + columns * STRIDE;
    u32 warp_row = threadIdx.x / WARP * 16;
    Element* warp_weights = weights + warp_row * weight_stride;
    u32 seen[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        a.row[half] = first_row + warp_row + this_lane().row + half * 8;
        a.state[half].max = -infinity();
        a.state[half].sum = 0.0f;
        seen[half] = rows.seen(a.row[half]);
    }
    clear(a.sums);
    load_queries(queries, q, rows, first_row, TILE);
    for (; first < end; first += columns) {
        __syncthreads();
        load_keys(keys, k, rows, slots, first, columns, end);
        load_keys(values, v, rows, slots, first, columns, end);
        __syncthreads();
        float scores[FORWARD_COLUMNS / 8][4];
        clear(scores);
        add_rows_by_rows(scores, queries + warp_row * STRIDE, keys, DIM, STRIDE);
        float correction[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            correction[half] =
                softmax_row(scores, half, first, seen[half], rows.heads.scale, a.state[half]);
        }
#pragma unroll
        for (int n = 0; n < SLICES; ++n) {
            a.sums[n][0] *= correction[0];
            a.sums[n][1] *= correction[0];
            a.sums[n][2] *= correction[1];
            a.sums[n][3] *= correction[1];
        }
        store_tile(warp_weights, weight_stride, scores);
        __syncwarp();
        add_rows_by_columns(a.sums, warp_weights, weight_stride, values, columns);
        __syncwarp();
    }
}

// One of the lane's two rows, as row `row` of the results.
__device__ __forceinline__ void store_attended(const Attended& a, int half, u64 row, float* out,
                                               float* log_sum_exp) {
    store_row(out + row * HEAD_DIM, a.sums, half, a.factor(half));
    if (threadIdx.x % 4 == 0) log_sum_exp[row] = a.log_sum_exp(half);
}

KERNEL __launch_bounds__(THREADS)
    attention_forward(const float* q, const float* k, const float* v, const Run* runs,
                      const RowTile* tiles, const u32* slots, Heads heads, float* out,
                      float* log_sum_exp) {
    SHARED_MEMORY(memory);
    RowTile tile = tiles[blockIdx.x];
    RowsOf rows(runs[tile.run], heads);
    Attended a;
    attend(q, k, v, rows, slots, tile.row, 0, rows.most_seen(tile.row), memory, a);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        if (a.row[half] >= rows.count) continue;
        u64 row = rows.index(a.row[half]);
        store_attended(a, half, row, out, log_sum_exp);
    }
}

// A stretch of the keys of a tile, so that few rows behind many keys still fill the device
// (split-KV: Dao et al., "Flash-Decoding for long-context inference", 2023).
struct Part {
    u32 run, row, first, end;
};

// As `attention_forward`, each part by itself: `partial` [parts, kv_heads, TILE, HEAD_DIM]
// and `partial_log_sum_exp` [parts, kv_heads, TILE]; rows that do not exist are not written.
KERNEL __launch_bounds__(THREADS)
    attention_forward_parts(const float* q, const float* k, const float* v, const Run* runs,
                            const Part* parts, const u32* slots, Heads heads, float* partial,
                            float* partial_log_sum_exp) {
    SHARED_MEMORY(memory);
    Part part = parts[blockIdx.x];
    RowsOf rows(runs[part.run], heads);
    Attended a;
    attend(q, k, v, rows, slots, part.row, part.first, part.end, memory, a);
    u64 first = ((u64)blockIdx.x * heads.kv_heads + rows.kv_head) * TILE;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        if (a.row[half] >= rows.count) continue;
        u64 row = first + a.row[half] - part.row;
        store_attended(a, half, row, partial, partial_log_sum_exp);
    }
}

// A tile and its parts.
struct JoinedTile {
    u32 run, row, part, parts;
};

// Joins the parts of every row, a warp a row: with l_p the parts' log-sum-exps,
// out = sum_p exp(l_p - l) out_p and l = log sum_p exp(l_p).
KERNEL attention_join_parts(const float* partial, const float* partial_log_sum_exp,
                            const Run* runs, const JoinedTile* tiles, Heads heads, float* out,
                            float* log_sum_exp) {
    JoinedTile tile = tiles[blockIdx.x];
    RowsOf rows(runs[tile.run], heads);
    u32 lane = threadIdx.x % WARP;
    u64 part_stride = (u64)heads.kv_heads * TILE;
    u64 first = (u64)tile.part * part_stride + (u64)rows.kv_head * TILE;
    for (u32 r = threadIdx.x / WARP; r < TILE; r += THREADS / WARP) {
        if (tile.row + r >= rows.count) return;
        const float* logs = partial_log_sum_exp + first + r;
        float largest = -infinity();
        for (u32 p = 0; p < tile.parts; ++p) largest = fmaxf(largest, logs[p * part_stride]);
        // A row that saw nothing in any part keeps zeros.
        float reference = largest == -infinity() ? 0.0f : largest;
        float sum = 0.0f;
        for (u32 p = 0; p < tile.parts; ++p) sum += expf(logs[p * part_stride] - reference);
        float factor = sum == 0.0f ? 0.0f : 1.0f / sum;
        u64 row = rows.index(tile.row + r);
        for (u32 d = lane; d < HEAD_DIM; d += WARP) {
            float joined = 0.0f;
            for (u32 p = 0; p < tile.parts; ++p) {
                float weight = expf(logs[p * part_stride] - reference) * factor;
                u64 at = (first + r + p * part_stride) * HEAD_DIM + d;
                joined = fmaf(weight, partial[at], joined);
            }
            out[row * HEAD_DIM + d] = joined;
        }
        if (lane == 0) log_sum_exp[row] = reference + logf(sum);
    }
}

// D = rowsum(d_out out) of every query and head, a warp each.
KERNEL attention_delta(const float* out, const float* d_out, u32 rows, float* delta) {
    u64 row = warp_of_grid();
    u32 lane = threadIdx.x % WARP;
    if (row >= rows) return;
    float sum = 0.0f;
    for (u32 d = lane; d < HEAD_DIM; d += WARP) {
        sum = fmaf(out[row * HEAD_DIM + d], d_out[row * HEAD_DIM + d], sum);
    }
    sum = warp_sum(sum);
    if (lane == 0) delta[row] = sum;
}

// What the backward reads of the forward's results.
struct Saved {
    const float* log_sum_exp;
    const float* delta;
    const float* d_out;
};

// exp(scale s - lse) of a visible score. A row that saw no key has no visible one.
__device__ __forceinline__ float weight_of(float score, float scale, float log_sum_exp,
                                           bool visible) {
    return visible ? expf(score * scale - log_sum_exp) : 0.0f;
}

// d_q = d_S k with d_S = scale P (d_out v^T - D); recomputes P by blocks of keys.
KERNEL __launch_bounds__(THREADS)
    attention_backward_queries(const float* q, const float* k, const float* v, const Run* runs,
                               const RowTile* tiles, const u32* slots, Heads heads, Saved saved,
                               float* d_q) {
    SHARED_MEMORY(memory);
    const u32 columns = BACKWARD_COLUMNS, slope_stride = BACKWARD_COLUMNS + PAD;
    Element* queries = (Element*)memory;
    Element* d_outs = queries + TILE * STRIDE;
    Element* keys = d_outs + TILE * STRIDE;
    Element* values = keys + columns * STRIDE;
    Element* slopes = values + columns * STRIDE;
    RowTile tile = tiles[blockIdx.x];
    RowsOf rows(runs[tile.run], heads);
    u32 warp_row = threadIdx.x / WARP * 16;
    Element* warp_slopes = slopes + warp_row * slope_stride;
    Lane l = this_lane();
    u32 upper = tile.row + warp_row + l.row;
    u32 seen[2];
    float log_sum_exp[2], delta[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        u32 row = upper + half * 8;
        bool exists = row < rows.count;
        seen[half] = rows.seen(row);
        log_sum_exp[half] = exists ? saved.log_sum_exp[rows.index(row)] : 0.0f;
        delta[half] = exists ? saved.delta[rows.index(row)] : 0.0f;
    }
    u32 end = rows.most_seen(tile.row);

    load_queries(queries, q, rows, tile.row, TILE);
    load_queries(d_outs, saved.d_out, rows, tile.row, TILE);
    float sums[SLICES][4];
    clear(sums);
    for (u32 first = 0; first < end; first += columns) {
        __syncthreads();
        load_keys(keys, k, rows, slots, first, columns, end);
        load_keys(values, v, rows, slots, first, columns, end);
        __syncthreads();
        float scores[BACKWARD_COLUMNS / 8][4], products[BACKWARD_COLUMNS / 8][4];
        clear(scores);
        clear(products);
        add_rows_by_rows(scores, queries + warp_row * STRIDE, keys, DIM, STRIDE);
        add_rows_by_rows(products, d_outs + warp_row * STRIDE, values, DIM, STRIDE);
#pragma unroll
        for (int n = 0; n < BACKWARD_COLUMNS / 8; ++n) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                int half = e / 2;
                bool visible = first + n * 8 + l.column + e % 2 < seen[half];
                float weight = weight_of(scores[n][e], heads.scale, log_sum_exp[half], visible);
                scores[n][e] = heads.scale * weight * (products[n][e] - delta[half]);
            }
        }
        store_tile(warp_slopes, slope_stride, scores);
        __syncwarp();
        add_rows_by_columns(sums, warp_slopes, slope_stride, keys, columns);
        __syncwarp();
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        u32 row = upper + half * 8;
        if (row < rows.count) store_row(d_q + rows.index(row) * HEAD_DIM, sums, half, 1.0f);
    }
}

// Consecutive slots, and which stretches of which runs read them.
struct KeyTile {
    u32 slot, count, readers, num_readers;
};

// Slots `slot` and on are positions `position` and on of a run.
struct Reader {
    u32 run, slot, len, position;
};

// d_v += P^T d_out and d_k += d_S^T q of 64 slots: a block walks through every row
// that sees one of them, so that nothing is added by two blocks.
KERNEL __launch_bounds__(THREADS)
    attention_backward_keys(const float* q, const float* k, const float* v, const Run* runs,
                            const KeyTile* tiles, const Reader* readers, Heads heads, Saved saved,
                            float* d_k, float* d_v) {
    SHARED_MEMORY(memory);
    const u32 columns = BACKWARD_COLUMNS, weight_stride = BACKWARD_COLUMNS + PAD;
    Element* keys = (Element*)memory;
    Element* values = keys + TILE * STRIDE;
    Element* queries = values + TILE * STRIDE;
    Element* d_outs = queries + columns * STRIDE;
    Element* weights = d_outs + columns * STRIDE;
    Element* slopes = weights + TILE * weight_stride;
    __shared__ float log_sum_exp[BACKWARD_COLUMNS], delta[BACKWARD_COLUMNS];
    __shared__ u32 seen[BACKWARD_COLUMNS];
    KeyTile tile = tiles[blockIdx.x];
    u32 kv_head = blockIdx.y, warp_row = threadIdx.x / WARP * 16;
    Element* warp_weights = weights + warp_row * weight_stride;
    Element* warp_slopes = slopes + warp_row * weight_stride;
    Lane l = this_lane();
    for (u32 r = threadIdx.x / WARP; r < TILE; r += THREADS / WARP) {
        u64 at = ((u64)(tile.slot + r) * heads.kv_heads + kv_head) * HEAD_DIM;
        load_row(keys + r * STRIDE, r < tile.count ? k + at : 0, l.lane);
        load_row(values + r * STRIDE, r < tile.count ? v + at : 0, l.lane);
    }
    float key_sums[SLICES][4], value_sums[SLICES][4];
    clear(key_sums);
    clear(value_sums);
    for (u32 n = tile.readers; n < tile.readers + tile.num_readers; ++n) {
        Reader reader = readers[n];
        RowsOf rows(runs[reader.run], heads);
        u32 first_query = 0;
        if (rows.run.causal && reader.position > rows.run.first_position) {
            first_query = reader.position - rows.run.first_position;
        }
        for (u32 first = first_query * rows.sharing; first < rows.count; first += columns) {
            __syncthreads();
            load_queries(queries, q, rows, first, columns);
            load_queries(d_outs, saved.d_out, rows, first, columns);
            if (threadIdx.x < columns) {
                u32 row = first + threadIdx.x;
                bool exists = row < rows.count;
                seen[threadIdx.x] = rows.seen(row);
                log_sum_exp[threadIdx.x] = exists ? saved.log_sum_exp[rows.index(row)] : 0.0f;
                delta[threadIdx.x] = exists ? saved.delta[rows.index(row)] : 0.0f;
            }
            __syncthreads();
            float scores[BACKWARD_COLUMNS / 8][4], products[BACKWARD_COLUMNS / 8][4];
            clear(scores);
            clear(products);
            add_rows_by_rows(scores, keys + warp_row * STRIDE, queries, DIM, STRIDE);
            add_rows_by_rows(products, values + warp_row * STRIDE, d_outs, DIM, STRIDE);
#pragma unroll
            for (int s = 0; s < BACKWARD_COLUMNS / 8; ++s) {
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    u32 slot = tile.slot + warp_row + l.row + e / 2 * 8;
                    u32 column = s * 8 + l.column + e % 2;
                    u32 offset = slot - reader.slot;
                    bool read = slot >= reader.slot && offset < reader.len;
                    bool visible = read && reader.position + offset < seen[column];
                    float weight =
                        weight_of(scores[s][e], heads.scale, log_sum_exp[column], visible);
                    scores[s][e] = weight;
                    products[s][e] = heads.scale * weight * (products[s][e] - delta[column]);
                }
            }
            store_tile(warp_weights, weight_stride, scores);
            store_tile(warp_slopes, weight_stride, products);
            __syncwarp();
            add_rows_by_columns(value_sums, warp_weights, weight_stride, d_outs, columns);
            add_rows_by_columns(key_sums, warp_slopes, weight_stride, queries, columns);
            __syncwarp();
        }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        u32 row = warp_row + l.row + half * 8;
        if (row >= tile.count) continue;
        u64 at = ((u64)(tile.slot + row) * heads.kv_heads + kv_head) * HEAD_DIM;
#pragma unroll
        for (int n = 0; n < SLICES; ++n) {
#pragma unroll
            for (int c = 0; c < 2; ++c) {
                u32 d = n * 8 + l.column + c;
                if (d >= HEAD_DIM) continue;
                d_k[at + d] += key_sums[n][half * 2 + c];
                d_v[at + d] += value_sums[n][half * 2 + c];
            }
        }
    }
}
