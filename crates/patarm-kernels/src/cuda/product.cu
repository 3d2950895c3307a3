// out (+)= scale left right of any strides: where the vendor's library has no kernel.
// Blocks of 16 x 16 threads in a row, an element of the result each; blocks stand in
// one row too, because a grid has few of them in its second direction.

#define SIDE 16

struct Operand {
    u64 outer, inner;
};

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(u16 x) { return from_bf16(x); }

template <class T>
__device__ void plain_product(const T* left, Operand by_row, const T* right, Operand by_column,
                              float* out, u32 rows, u32 columns, u32 inner, float scale, u32 add) {
    __shared__ float a[SIDE][SIDE + 1], b[SIDE][SIDE + 1];
    u32 x = threadIdx.x % SIDE, y = threadIdx.x / SIDE;
    u32 across = (columns + SIDE - 1) / SIDE;
    u64 top = (u64)(blockIdx.x / across) * SIDE, left_edge = (u64)(blockIdx.x % across) * SIDE;
    u64 row = top + y, column = left_edge + x, other = left_edge + y;
    float sum = 0.0f;
    for (u32 start = 0; start < inner; start += SIDE) {
        u32 k = start + x;
        a[y][x] = row < rows && k < inner ? widen(left[row * by_row.outer + k * by_row.inner]) : 0;
        b[y][x] = other < columns && k < inner
                      ? widen(right[other * by_column.outer + k * by_column.inner])
                      : 0;
        __syncthreads();
        for (u32 n = 0; n < SIDE; ++n) sum = fmaf(a[y][n], b[x][n], sum);
        __syncthreads();
    }
    if (row < rows && column < columns) {
        u64 at = row * columns + column;
        out[at] = fmaf(scale, sum, add ? out[at] : 0.0f);
    }
}

KERNEL product_f32(const float* left, Operand by_row, const float* right, Operand by_column,
                   float* out, u32 rows, u32 columns, u32 inner, float scale, u32 add) {
    plain_product(left, by_row, right, by_column, out, rows, columns, inner, scale, add);
}

KERNEL product_bf16(const u16* left, Operand by_row, const u16* right, Operand by_column,
                    float* out, u32 rows, u32 columns, u32 inner, float scale, u32 add) {
    plain_product(left, by_row, right, by_column, out, rows, columns, inner, scale, add);
}
