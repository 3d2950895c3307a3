// Runs CUDA kernels on a CPU, for tests: every thread of a block is a coroutine, and
// warps and blocks wait for each other where the hardware would. Meant to be slow and
// plain. Threads run between two meetings in one order, or in the opposite one, so
// that a meeting that is missing shows in one of the two.

#include <math.h>
#include <string.h>
#include <ucontext.h>

#include <memory>
#include <vector>

#define EMULATED 1
#define KERNEL extern "C" void
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(n)
#define __shared__ static
#define SHARED_MEMORY(name) unsigned char* name = emulator::shared_memory

struct dim3 {
    unsigned x, y, z;
};
static dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

const unsigned LANES = 32;
const size_t STACK = 256 << 10;

alignas(256) static unsigned char shared_memory[256 << 10];

// A thread begins through its context; after that it is left and taken up again where
// `place` says, which costs no call of the system.
struct Thread {
    ucontext_t context;
    void* place[5];
    bool begun, ended;
};

struct Barrier {
    unsigned waiting = 0, round = 0;
};

// What lanes show each other, by lane.
struct Warp {
    Barrier barrier;
    unsigned long long words[LANES][8];
};

static std::vector<Thread> threads;
static std::vector<Warp> warps;
static std::unique_ptr<unsigned char[]> stacks;
static size_t stacks_len;
static void* scheduler[5];
static Barrier block_barrier;
static unsigned current;
static void (*body)(void**);
static void** arguments;

// What jumps and what is jumped to may not be one function.
static __attribute__((noinline)) void go_to(void** place) { __builtin_longjmp(place, 1); }

static __attribute__((noinline)) void yield() {
    if (__builtin_setjmp(threads[current].place) == 0) go_to(scheduler);
}

static __attribute__((noinline)) void take_up(Thread& thread) {
    if (__builtin_setjmp(scheduler) != 0) return;
    if (thread.begun) go_to(thread.place);
    thread.begun = true;
    setcontext(&thread.context);
}

static void meet(Barrier& barrier, unsigned expected) {
    unsigned round = barrier.round;
    if (++barrier.waiting == expected) {
        barrier.waiting = 0;
        ++barrier.round;
    } else {
        while (barrier.round == round) yield();
    }
}

static Warp& warp() { return warps[current / LANES]; }

static void meet_warp() {
    unsigned first = current / LANES * LANES;
    unsigned left = (unsigned)threads.size() - first;
    meet(warp().barrier, left < LANES ? left : LANES);
}

// A thread of every block in turn.
static void entry() {
    for (;;) {
        body(arguments);
        threads[current].ended = true;
        yield();
    }
}

static void make_threads(unsigned count) {
    threads.assign(count, Thread());
    if (stacks_len < count * STACK) {
        stacks_len = count * STACK;
        stacks.reset(new unsigned char[stacks_len]);
    }
    for (unsigned n = 0; n < count; ++n) {
        getcontext(&threads[n].context);
        threads[n].context.uc_stack.ss_sp = stacks.get() + n * STACK;
        threads[n].context.uc_stack.ss_size = STACK;
        threads[n].context.uc_link = nullptr;
        makecontext(&threads[n].context, entry, 0);
    }
}

static void run_block(bool backwards) {
    unsigned count = (unsigned)threads.size();
    for (Thread& thread : threads) thread.ended = false;
    for (bool running = true; running;) {
        running = false;
        for (unsigned turn = 0; turn < count; ++turn) {
            current = backwards ? count - 1 - turn : turn;
            if (threads[current].ended) continue;
            running = true;
            threadIdx.x = current;
            take_up(threads[current]);
        }
    }
}

static void run(void (*kernel)(void**), const unsigned grid[3], unsigned block, void** given,
                bool backwards) {
    body = kernel;
    arguments = given;
    blockDim = {block, 1, 1};
    gridDim = {grid[0], grid[1], grid[2]};
    make_threads(block);
    for (unsigned y = 0; y < grid[1]; ++y) {
        for (unsigned x = 0; x < grid[0]; ++x) {
            blockIdx = {x, y, 0};
            warps.assign((block + LANES - 1) / LANES, Warp());
            block_barrier = Barrier();
            // Every bit set is NaN: shared memory holds nothing one may rely on.
            memset(shared_memory, 0xff, sizeof shared_memory);
            run_block(backwards);
        }
    }
}

template <class... A, size_t... N>
void call(void (*kernel)(A...), void** given, std::index_sequence<N...>) {
    kernel(*(typename std::remove_reference<A>::type*)given[N]...);
}

template <class... A>
void call(void (*kernel)(A...), void** given) {
    call(kernel, given, std::index_sequence_for<A...>());
}

}  // namespace emulator

#define EMULATE(name)                                                                       \
    extern "C" void run_##name(const unsigned* grid, unsigned block, void** given, bool b) { \
        emulator::run([](void** given) { emulator::call(name, given); }, grid, block, given, b); \
    }

static void __syncthreads() {
    emulator::meet(emulator::block_barrier, (unsigned)emulator::threads.size());
}
static void __syncwarp() { emulator::meet_warp(); }

template <class T>
static T __shfl_xor_sync(unsigned, T x, int offset) {
    unsigned lane = emulator::current % emulator::LANES;
    memcpy(emulator::warp().words[lane], &x, sizeof x);
    emulator::meet_warp();
    memcpy(&x, emulator::warp().words[lane ^ offset], sizeof x);
    emulator::meet_warp();
    return x;
}

static float __uint_as_float(unsigned x) {
    float y;
    memcpy(&y, &x, sizeof y);
    return y;
}
static unsigned __float_as_uint(float x) {
    unsigned y;
    memcpy(&y, &x, sizeof y);
    return y;
}
static unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
template <class T, class U>
static T atomicAdd(T* at, U x) {
    T old = *at;
    *at += x;
    return old;
}

// The three instructions of `tiles.cu`, from the layouts the PTX ISA gives.

static void load_matrices_from(unsigned (&to)[4], const unsigned short* row, bool transposed) {
    unsigned lane = emulator::current % emulator::LANES;
    auto& words = emulator::warp().words;
    words[lane][0] = (unsigned long long)row;
    emulator::meet_warp();
    for (unsigned m = 0; m < 4; ++m) {
        unsigned r = lane / 4, c = lane % 4 * 2, pair[2];
        for (unsigned i = 0; i < 2; ++i) {
            unsigned from_row = transposed ? c + i : r, from_column = transposed ? r : c + i;
            pair[i] = ((const unsigned short*)words[m * 8 + from_row][0])[from_column];
        }
        to[m] = pair[0] | pair[1] << 16;
    }
    emulator::meet_warp();
}
static void load_matrices(unsigned (&to)[4], const unsigned short* row) {
    load_matrices_from(to, row, false);
}
static void load_transposed(unsigned (&to)[4], const unsigned short* row) {
    load_matrices_from(to, row, true);
}

static float half_of(unsigned long long word, unsigned half) {
    return __uint_as_float((unsigned)(word >> (16 * half)) << 16);
}

// a: rows 16, inner 16; register 0 rows 0 to 7 and inner 0 to 7, register 1 the lower
// rows, register 2 the higher inner indices, register 3 both. b: inner 16, columns 8.
static void multiply(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    unsigned lane = emulator::current % emulator::LANES;
    auto& words = emulator::warp().words;
    for (unsigned i = 0; i < 4; ++i) words[lane][i] = a[i];
    words[lane][4] = b0;
    words[lane][5] = b1;
    emulator::meet_warp();
    for (unsigned e = 0; e < 4; ++e) {
        unsigned row = lane / 4 + e / 2 * 8, column = lane % 4 * 2 + e % 2;
        float total = sum[e];
        for (unsigned k = 0; k < 16; ++k) {
            unsigned left = words[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2];
            unsigned right = words[column * 4 + k % 8 / 2][4 + k / 8];
            total += half_of(left, k % 2) * half_of(right, k % 2);
        }
        sum[e] = total;
    }
    emulator::meet_warp();
}
