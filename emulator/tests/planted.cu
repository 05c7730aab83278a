/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels with one mistake each, which the emulator must catch: by stopping with a message, or by a result that is not
 * what a right kernel gives, under some seed. Each gets `size` floats of value 1; a right one would leave 1 in each. */
#include <string.h>

#include "kernels.h"

#include "../../cuda/device.cuh"

namespace {

__device__ unsigned index() { return blockIdx.x * blockDim.x + threadIdx.x; }

/* The first six give wrong results rather than stop; `right` is the same kernel without its mistake. */

/* Reads another thread's value without a barrier after the write. */
template <bool right>
__global__ void missing_barrier(float *x) {
  TARE_SHARED(float[128], kept);
  kept[threadIdx.x] = x[index()];
  if (right) __syncthreads();
  x[index()] = kept[127 - threadIdx.x];
}

/* A barrier of the warp where one of the block is needed: if warps went in step nothing would show. */
template <bool right>
__global__ void warp_barrier_only(float *x) {
  TARE_SHARED(float[4], sums);
  const float sum = tare::warp_sum(x[index()]);
  if (tare::lane() == 0) sums[threadIdx.x / 32] = sum;
  if (right)
    __syncthreads();
  else
    __syncwarp();
  x[index()] = (sums[0] + sums[1] + sums[2] + sums[3]) / 128;
}

/* Writes its shared memory again before all have read it. */
template <bool right>
__global__ void reused_too_early(float *x) {
  TARE_SHARED(float[128], kept);
  for (int i = 0; i < 2; i++) {
    kept[threadIdx.x] = x[index()] + float(i);
    __syncthreads();
    x[index()] = kept[(threadIdx.x + 64) % 128] - float(i);
    if (right) __syncthreads();
  }
}

/* The last block adds what its own other threads may not have written yet. */
__device__ float partial[64];
__device__ uint32_t tickets;
template <bool right>
__global__ void ticket_too_early(float *x) {
  TARE_SHARED(bool, last);
  if (threadIdx.x == 64) partial[blockIdx.x] = x[index()];
  __threadfence();
  if (right) __syncthreads();
  if (threadIdx.x == 0) last = atomicInc(&tickets, gridDim.x - 1) == gridDim.x - 1;
  if (threadIdx.x == 0 && last) x[0] = partial[0] + partial[1] + partial[2] + partial[3] - 3;
}

/* Uses what a copy that runs ahead brings too early: it waits for the group before the last, not for the last. */
template <bool right>
__global__ void copied_too_early(float *x) {
  TARE_SHARED(float4[128], kept);
  float *const from = x + index() / 4 * 4;
  const tare::shared_place to = tare::place_in_shared(&kept[threadIdx.x]);
  tare::start_copy<tare::cache::keep>(to, from);
  tare::close_copies();
  tare::wait_for_copies<right ? 0 : 1>();
  x[index()] = __uint_as_float(tare::load_16_bytes(to).x);
}

template <bool right>
__global__ void unwritten_shared(float *x) {
  TARE_SHARED(float[128], kept);
  if (right || threadIdx.x > 0) kept[threadIdx.x] = 0;
  __syncthreads();
  x[index()] += kept[threadIdx.x ^ 1];
}

__global__ void shared_overrun(float *x) {
  TARE_SHARED(float[100], kept);
  float *p = kept;
  p[threadIdx.x % 101] = x[index()];
  __syncthreads();
  x[index()] = p[threadIdx.x % 100];
}

__global__ void shared_underrun(float *x) {
  TARE_SHARED(float[100], kept);
  float *p = kept;
  if (threadIdx.x == 3) p[int(x[0]) - 3] = 5;
}

__global__ void global_overrun(float *x) { x[index() + 1] = 1; }
__global__ void global_underrun(float *x) { x[int(index()) - 1] = 1; }
__global__ void global_far(float *x) { x[int64_t(index()) * 1000000] = 1; }
__global__ void global_read_far(float *x) { x[index()] = x[index() + 300000]; }

__global__ void misaligned(float *x) { tare::store_vector(x, tare::load_vector<tare::cache::once>(x + 1)); }

__global__ void barrier_in_branch(float *x) {
  if (threadIdx.x < 64) __syncthreads();
  x[index()] = 1;
}

__global__ void barrier_after_return(float *x) {
  if (threadIdx.x == 77) return;
  __syncthreads();
  x[index()] = 1;
}

__global__ void two_barriers(float *x) {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
  x[index()] = 1;
}

__global__ void barrier_against_shuffle(float *x) {
  if (threadIdx.x % 32 < 16)
    __syncthreads();
  else
    x[index()] = tare::warp_max(x[index()]);
}

__global__ void shuffle_in_branch(float *x) {
  if (threadIdx.x % 32 < 16) x[index()] = tare::warp_max(x[index()]);
}

__global__ void half_mask(float *x) { x[index()] = __shfl_sync(0xffffu, x[index()], 0); }

__global__ void waits_for_a_block(float *x, uint32_t *state) {
  tare::grid_barrier(reinterpret_cast<tare::grid_barrier_state *>(state));
  x[index()] = 1;
}

/* In a cooperative launch, so the others wait for it for ever. */
__global__ void block_leaves(float *x, uint32_t *state) {
  if (blockIdx.x == 1) return;
  tare::grid_barrier(reinterpret_cast<tare::grid_barrier_state *>(state));
  x[index()] = 1;
}

struct by_value {
  int64_t rows;
  float *host;
};
__global__ void host_pointer(float *x, by_value batch) { x[0] = *batch.host; }

__global__ void stack_overflow(float *x) {
  volatile char deep[65536 * 5];
  for (int i = 65536 * 5 - 1; i >= 0; i -= 64) deep[i] = 1;
  x[index()] = deep[100];
}

template <typename... P, typename... A>
cudaError_t launch(void (*kernel)(P...), unsigned blocks, A... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(128);
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

uint32_t *grid_state() {
  void *state = nullptr;
  cudaMalloc(&state, sizeof(tare::grid_barrier_state));
  cudaMemset(state, 0, sizeof(tare::grid_barrier_state));
  return static_cast<uint32_t *>(state);
}

}  // namespace

cudaError_t launch_planted(const char *name, float *x, unsigned size) {
  const unsigned blocks = size / 128;
#define PAIR(kernel)                                                       \
  if (strcmp(name, #kernel) == 0) return launch(kernel<false>, blocks, x); \
  if (strcmp(name, #kernel "_right") == 0) return launch(kernel<true>, blocks, x);
#define SIMPLE(kernel) \
  if (strcmp(name, #kernel) == 0) return launch(kernel, blocks, x);
  PAIR(missing_barrier)
  PAIR(warp_barrier_only)
  PAIR(reused_too_early)
  PAIR(ticket_too_early)
  PAIR(copied_too_early)
  PAIR(unwritten_shared)
  SIMPLE(shared_overrun)
  SIMPLE(shared_underrun)
  SIMPLE(global_overrun)
  SIMPLE(global_underrun)
  SIMPLE(global_far)
  SIMPLE(global_read_far)
  SIMPLE(misaligned)
  SIMPLE(barrier_in_branch)
  SIMPLE(barrier_after_return)
  SIMPLE(two_barriers)
  SIMPLE(barrier_against_shuffle)
  SIMPLE(shuffle_in_branch)
  SIMPLE(half_mask)
  SIMPLE(stack_overflow)
#undef PAIR
#undef SIMPLE
  static float on_the_host = 1;
  if (strcmp(name, "host_pointer") == 0) return launch(host_pointer, blocks, x, by_value{1, &on_the_host});
  if (strcmp(name, "host_pointer_itself") == 0) return launch(global_underrun, blocks, &on_the_host);
  if (strcmp(name, "waits_for_a_block") == 0) return launch(waits_for_a_block, 3, x, grid_state());
  if (strcmp(name, "block_leaves") == 0) {
    uint32_t *state = grid_state();
    void *arguments[] = {&x, &state};
    return cudaLaunchCooperativeKernel(TARE_KERNEL(block_leaves), dim3(3), dim3(128), arguments, 0, nullptr);
  }
  if (strcmp(name, "freed") == 0) {
    float *gone = nullptr;
    cudaMalloc(&gone, 512);
    cudaFree(gone);
    return launch(missing_barrier<true>, 1, gone);
  }
  if (strcmp(name, "host_touches_device") == 0) {
    x[3] = 1;
    return cudaSuccess;
  }
  return cudaErrorInvalidValue;
}
