// Drawing one token a row: a block a row of logits.
//
// Weights relative to the most likely token are counted in fixed point, so that sums
// do not depend on their order. Filters keep a prefix of the tokens ordered by logit
// (equal ones by id); its end, and the token drawn within it, are found by descent
// over the bits of that order, not by sorting.

struct SampleOptions {
    float temperature, top_p, min_p;
    u32 top_k;
    u64 seed, sequence, position;
};

#define DRAW_THREADS 512
#define BINS 256
#define FIXED_ONE 1099511627776.0  // 2^40: 2^24 weights of 1 still fit

// The finaliser of SplitMix64 as in `random.rs`, bit for bit.
__device__ __forceinline__ u64 mix(u64 state, u64 word) {
    u64 z = (state + 0x9e3779b97f4a7c15ull) ^ (word * 0xd6e8feb86659fd93ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

// A uniform draw in [0, 1) at (seed, sequence, position).
__device__ __forceinline__ double uniform_draw(const SampleOptions& o) {
    u64 bits = mix(mix(mix(0, o.seed), o.sequence), o.position);
    return (double)(bits >> 11) / 9007199254740992.0;
}

// Ascending keys are descending logits; NaN counts as the least likely.
__device__ __forceinline__ u32 order_key(float logit) {
    u32 bits = __float_as_uint(logit != logit ? -infinity() : logit);
    return bits >> 31 == 0 ? ~bits & 0x7fffffffu : bits;
}

struct Row {
    const float* logits;
    u32 vocab;
    float scale, max;

    __device__ u64 weight(u32 id) const {
        double w = (double)expf(logits[id] * scale - max);
        return w == w ? (u64)(w * FIXED_ONE + 0.5) : 0;
    }
};

struct Place {
    u32 key, id;
};

// The consecutive ids of one thread, so that threads in order are ids in order.
__device__ __forceinline__ u32 stretch_start(u32 vocab, u32 thread) {
    u32 each = (vocab + DRAW_THREADS - 1) / DRAW_THREADS;
    return min(vocab, each * thread);
}

// The first thread at which the running sum of `mine` exceeds `target`; what of
// `target` lies in it is left in `rest`.
__device__ u32 owner(u64 mine, u64 target, u64* shared, u64* rest) {
    shared[threadIdx.x] = mine;
    __syncthreads();
    u64 before = 0;
    u32 found = 0, last = 0;
    u64 at_last = target;
    for (found = 0; found < DRAW_THREADS; ++found) {
        if (shared[found] > 0) {
            last = found;
            at_last = target - before;
        }
        if (before + shared[found] > target) break;
        before += shared[found];
    }
    __syncthreads();
    *rest = at_last;
    return last;
}

// The first token, in order of id, at which the running weight exceeds `target`.
__device__ u32 pick_by_id(const Row& row, u64 target, u64* shared, u32* result) {
    u32 start = stretch_start(row.vocab, threadIdx.x);
    u32 end = stretch_start(row.vocab, threadIdx.x + 1);
    u64 mine = 0, rest;
    for (u32 id = start; id < end; ++id) mine += row.weight(id);
    if (owner(mine, target, shared, &rest) == threadIdx.x) {
        u64 before = 0;
        u32 last = start;
        for (u32 id = start; id < end; ++id) {
            u64 weight = row.weight(id);
            if (weight > 0) last = id;
            if (before + weight > rest) break;
            before += weight;
        }
        *result = last;
    }
    __syncthreads();
    u32 id = *result;
    __syncthreads();
    return id;
}

// The first token, most likely first, at which the running count (or weight) exceeds
// `target`, which is below the total.
template <bool COUNT>
__device__ Place select(const Row& row, u64 target, u64* bins, u64* shared, u32* result) {
    u32 prefix = 0;
    u64 rest = target;
    for (int shift = 24; shift >= 0; shift -= 8) {
        for (u32 n = threadIdx.x; n < BINS; n += blockDim.x) bins[n] = 0;
        __syncthreads();
        for (u32 id = threadIdx.x; id < row.vocab; id += blockDim.x) {
            u32 key = order_key(row.logits[id]);
            // The first digit is chosen among all keys.
            if (shift == 24 || key >> (shift + 8) == prefix >> (shift + 8)) {
                atomicAdd(&bins[key >> shift & (BINS - 1)], COUNT ? 1 : row.weight(id));
            }
        }
        __syncthreads();
        u32 digit = 0;
        while (digit < BINS - 1 && bins[digit] <= rest) rest -= bins[digit++];
        prefix |= digit << shift;
        __syncthreads();
    }
    u32 start = stretch_start(row.vocab, threadIdx.x);
    u32 end = stretch_start(row.vocab, threadIdx.x + 1);
    u64 mine = 0, within;
    for (u32 id = start; id < end; ++id) {
        if (order_key(row.logits[id]) == prefix) mine += COUNT ? 1 : row.weight(id);
    }
    if (owner(mine, rest, shared, &within) == threadIdx.x) {
        u64 before = 0;
        u32 last = start;
        for (u32 id = start; id < end; ++id) {
            if (order_key(row.logits[id]) != prefix) continue;
            last = id;
            u64 size = COUNT ? 1 : row.weight(id);
            if (before + size > within) break;
            before += size;
        }
        *result = last;
    }
    __syncthreads();
    Place place = {prefix, *result};
    __syncthreads();
    return place;
}

__device__ __forceinline__ bool is_kept(const Row& row, u32 id, Place end, u64 least) {
    u32 key = order_key(row.logits[id]);
    bool before = key < end.key || (key == end.key && id <= end.id);
    return before && row.weight(id) >= least;
}

// Total weight of the tokens up to `end` that weigh at least `least`.
__device__ u64 kept_weight(const Row& row, Place end, u64 least, u64* shared) {
    u64 mine = 0;
    for (u32 id = threadIdx.x; id < row.vocab; id += blockDim.x) {
        if (is_kept(row, id, end, least)) mine += row.weight(id);
    }
    return block_sum(mine, shared);
}

__device__ __forceinline__ u64 part_of(double fraction, u64 total) {
    u64 part = (u64)(fraction * (double)total);
    return part < total ? part : total - 1;
}

__device__ u32 pick_filtered(const Row& row, const SampleOptions& o, double u, u64* bins,
                             u64* shared, u32* result) {
    Place end = {0xffffffffu, 0xffffffffu};
    if (o.top_k > 0 && o.top_k < row.vocab) {
        end = select<true>(row, o.top_k - 1, bins, shared, result);
    }
    u64 total = kept_weight(row, end, 0, shared);
    if (o.top_p < 1.0f) {
        // The running weight reaches x where it exceeds ceil(x) - 1.
        u64 reach = (u64)ceil((double)o.top_p * (double)total);
        reach = reach > total ? total : reach;
        end = select<false>(row, reach > 0 ? reach - 1 : 0, bins, shared, result);
    }
    // The most likely token weighs 1 and is always kept.
    double least = o.min_p < 1.0f ? (double)o.min_p : 1.0;
    u64 kept = kept_weight(row, end, least > 0.0 ? (u64)ceil(least * FIXED_ONE) : 0, shared);
    return select<false>(row, part_of(u, kept), bins, shared, result).id;
}

// The lowest id among the largest logits; a NaN is never chosen before a number.
__device__ u32 most_likely(const float* logits, u32 vocab, u64* shared) {
    u64 best = ~0ull;
    for (u32 id = threadIdx.x; id < vocab; id += blockDim.x) {
        float logit = logits[id] == 0.0f ? 0.0f : logits[id];
        // Numbers by descending logit, then what is not a number.
        u64 key = logit != logit ? 0xffffffffull : order_key(logit);
        u64 candidate = key << 32 | id;
        best = candidate < best ? candidate : best;
    }
    shared[threadIdx.x] = best;
    __syncthreads();
    for (u32 n = 0; n < DRAW_THREADS; ++n) best = shared[n] < best ? shared[n] : best;
    __syncthreads();
    return (u32)best;
}

KERNEL __launch_bounds__(DRAW_THREADS)
    draw_tokens(const float* logits, u32 vocab, const SampleOptions* options, float* ids,
                float* logprobs) {
    __shared__ u64 shared[DRAW_THREADS], bins[BINS];
    __shared__ double sums[WARP];
    __shared__ float maxima[WARP];
    __shared__ u32 result;
    SampleOptions o = options[blockIdx.x];
    bool greedy = o.temperature == 0.0f;
    Row row = {logits + (u64)blockIdx.x * vocab, vocab, greedy ? 1.0f : 1.0f / o.temperature, 0};
    float largest = -infinity();
    for (u32 id = threadIdx.x; id < vocab; id += blockDim.x) {
        largest = fmaxf(largest, row.logits[id] * row.scale);
    }
    row.max = block_max(largest, maxima);
    float sum = 0.0f;
    for (u32 id = threadIdx.x; id < vocab; id += blockDim.x) {
        sum += expf(not_below(row.logits[id] * row.scale - row.max));
    }
    double total = block_sum((double)sum, sums);
    bool usable = fabsf(row.max) < infinity() && total < (double)infinity();
    u32 id;
    if (greedy || !usable) {
        id = most_likely(row.logits, vocab, shared);
    } else {
        double u = uniform_draw(o);
        bool all = (o.top_k == 0 || o.top_k >= vocab) && o.top_p >= 1.0f && o.min_p <= 0.0f;
        if (all) {
            Place everything = {0xffffffffu, 0xffffffffu};
            u64 weight = kept_weight(row, everything, 0, shared);
            id = pick_by_id(row, part_of(u, weight), shared, &result);
        } else {
            id = pick_filtered(row, o, u, bins, shared, &result);
        }
    }
    if (threadIdx.x == 0) {
        ids[blockIdx.x] = (float)id;
        float log_sum_exp = (float)((double)row.max + log(total));
        logprobs[blockIdx.x] = row.logits[id] * row.scale - log_sum_exp;
    }
}
