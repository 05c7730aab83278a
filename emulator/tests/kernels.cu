/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels that are right: what the emulator must run as a GPU would. Valid CUDA as it stands. */
#include "kernels.h"

#include "../../cuda/device.cuh"

namespace {

constexpr int block_size = 256;

template <typename... P, typename... A>
cudaError_t launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream, A... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, P(arguments)...);
}

/* Adds the blocks' partials in their order: one launch, and the same sum from run to run. */
__device__ void finish_sum(double mine, double *partials, uint32_t *ticket, double *total) {
  const double sum = tare::block_sum<block_size>(mine);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
  if (!tare::last_block(ticket)) return;
  if (threadIdx.x != 0) return;
  double all = 0;
  for (unsigned i = 0; i < gridDim.x; i++) all += partials[i];
  *total = all;
}

__global__ void __launch_bounds__(block_size)
    sum(const float *x, int64_t size, double *partials, uint32_t *ticket, double *total) {
  using vector = tare::vector<float>;
  double mine = 0;
  const int64_t step = int64_t(gridDim.x) * block_size * vector::size;
  for (int64_t i = (int64_t(blockIdx.x) * block_size + threadIdx.x) * vector::size; i < size; i += step) {
    const vector v = tare::load_vector<tare::cache::once>(x + i);
#pragma unroll
    for (int k = 0; k < vector::size; k++) mine += v.at[k];
  }
  finish_sum(mine, partials, ticket, total);
}

/* Sigmoid focal loss with gamma 2 and its gradient, in place, over a flat run of vectors. */
__global__ void __launch_bounds__(block_size)
    focal(float *logits, const int32_t *labels, unsigned rows, unsigned classes, double *partials, uint32_t *ticket,
          double *loss) {
  using vector = tare::vector<float>;
  const unsigned size = rows * classes, step = gridDim.x * block_size * vector::size;
  double mine = 0;
  for (unsigned i = (blockIdx.x * block_size + threadIdx.x) * vector::size; i < size; i += step) {
    vector v = tare::load_vector(logits + i);
    const unsigned row = i / classes, column = i % classes; /* classes is a multiple of the vector here */
    const int label = __ldg(labels + row);
#pragma unroll
    for (int k = 0; k < vector::size; k++) {
      const bool hit = label == int(column) + k;
      const float z = hit ? v.at[k] : -v.at[k];
      const float e = tare::exp2_approx(-1.44269504f * fabsf(z));
      const float r = tare::rcp_approx(1.0f + e);
      const float p = z >= 0 ? r : e * r, q = z >= 0 ? e * r : r;
      const float l = fmaxf(-z, 0.0f) + 0.693147181f * tare::log2_approx(1.0f + e);
      const float alpha = hit ? 0.25f : 0.75f;
      mine += double(alpha * q * q * l);
      const float dz = -alpha * q * q * fmaf(2.0f * p, l, q);
      v.at[k] = hit ? dz : -dz;
    }
    tare::store_vector<tare::cache::once>(logits + i, v);
  }
  finish_sum(mine, partials, ticket, loss);
}

/* Each round every block takes its right neighbour's value: wrong at once if one block runs ahead. */
__global__ void rotate(uint32_t *values, tare::grid_barrier_state *state, unsigned rounds) {
  for (unsigned i = 0; i < rounds; i++) {
    const uint32_t next = __ldcg(values + (blockIdx.x + 1) % gridDim.x);
    tare::grid_barrier(state);
    if (threadIdx.x == 0) values[blockIdx.x] = next;
    tare::grid_barrier(state);
  }
}

__global__ void lanes(const float *x, float *results) {
  const unsigned t = threadIdx.x;
  const float mine = x[t];
  int row = 0;
  const auto put = [&](float value) { results[row++ * 64 + t] = value; };
  put(__shfl_xor_sync(tare::full_mask, mine, 5));
  put(__shfl_down_sync(tare::full_mask, mine, 3));
  put(__shfl_up_sync(tare::full_mask, mine, 3));
  put(__shfl_sync(tare::full_mask, mine, 7));
  put(__shfl_xor_sync(tare::full_mask, mine, 2, 8));
  put(__shfl_down_sync(tare::full_mask, mine, 3, 8));
  put(__shfl_sync(tare::full_mask, mine, 1, 16));
  put(float(__popc(__ballot_sync(tare::full_mask, mine > 0))));
  put(float(__any_sync(tare::full_mask, mine > 60)));
  put(float(__all_sync(tare::full_mask, mine > -1000)));
  put(tare::warp_sum(mine));
  put(tare::warp_max<16>(mine));
}

__global__ void halves(float *from_half, float *from_bf16, uint16_t *half_again, uint16_t *bf16_again) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  const __half h = __ushort_as_half(uint16_t(i));
  const __nv_bfloat16 b = __ushort_as_bfloat16(uint16_t(i));
  from_half[i] = tare::to_float(h);
  from_bf16[i] = tare::to_float(b);
  half_again[i] = __half_as_ushort(tare::from_float<__half>(from_half[i]));
  bf16_again[i] = __bfloat16_as_ushort(tare::from_float<__nv_bfloat16>(from_bf16[i]));
}

__global__ void round_to_halves(const float *x, uint16_t *half, uint16_t *bf16, unsigned size) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= size) return;
  half[i] = __half_as_ushort(tare::from_float<__half>(x[i]));
  bf16[i] = __bfloat16_as_ushort(tare::from_float<__nv_bfloat16>(x[i]));
}

__global__ void functions(const float *x, float *results, unsigned size) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= size) return;
  results[i] = tare::exp2_approx(x[i]);
  results[size + i] = tare::log2_approx(x[i]);
  results[2 * size + i] = tare::rcp_approx(x[i]);
  results[3 * size + i] = tare::sqrt_approx(x[i]);
}

__global__ void high(const uint64_t *a, const uint64_t *b, uint64_t *high64, uint32_t *high32, unsigned size) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= size) return;
  high64[i] = __umul64hi(a[i], b[i]);
  high32[i] = __umulhi(uint32_t(a[i]), uint32_t(b[i]));
}

__global__ void increment(uint32_t *values, unsigned size, uint32_t by) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < size) values[i] += by;
}

/* Counts in shared memory whose size is given at launch, then one atomic per bin and block. */
__global__ void histogram(const uint32_t *keys, unsigned size, uint64_t *counts, unsigned bins) {
  TARE_SHARED_DYNAMIC(uint32_t, local);
  for (unsigned b = threadIdx.x; b < bins; b += blockDim.x) local[b] = 0;
  __syncthreads();
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < size; i += gridDim.x * blockDim.x)
    tare::atomic_add(&local[keys[i] % bins], 1);
  __syncthreads();
  for (unsigned b = threadIdx.x; b < bins; b += blockDim.x) tare::atomic_add(&counts[b], local[b]);
}

__global__ void indices(uint32_t *out) {
  const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
  out[tare::block_rank() * threads + tare::thread_rank()] =
      blockIdx.z << 20 | blockIdx.y << 16 | blockIdx.x << 12 | threadIdx.z << 8 | threadIdx.y << 4 | threadIdx.x;
}

__global__ void far(float *base, int64_t stride, unsigned count) {
  const unsigned i = threadIdx.x;
  if (i < count) base[int64_t(i) * stride] = float(i);
}

}  // namespace

cudaError_t launch_sum(const float *x, int64_t size, double *partials, uint32_t *ticket, double *total, unsigned blocks,
                       cudaStream_t stream) {
  return launch(sum, blocks, block_size, 0, stream, x, size, partials, ticket, total);
}

cudaError_t launch_focal(float *logits, const int32_t *labels, unsigned rows, unsigned classes, double *partials,
                         uint32_t *ticket, double *loss, unsigned blocks, cudaStream_t stream) {
  return launch(focal, blocks, block_size, 0, stream, logits, labels, rows, classes, partials, ticket, loss);
}

cudaError_t launch_rotate(uint32_t *values, uint32_t *state, unsigned rounds, unsigned blocks, bool cooperative) {
  tare::grid_barrier_state *barrier = reinterpret_cast<tare::grid_barrier_state *>(state);
  if (!cooperative) return launch(rotate, blocks, 64, 0, nullptr, values, barrier, rounds);
  void *arguments[] = {&values, &barrier, &rounds};
  return cudaLaunchCooperativeKernel(TARE_KERNEL(rotate), dim3(blocks), dim3(64), arguments, 0, nullptr);
}

int most_rotate_blocks() {
  int each = 0, processors = 0;
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, TARE_KERNEL(rotate), 64, 0);
  cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0);
  return each * processors;
}

cudaError_t launch_lanes(const float *x, float *results) { return launch(lanes, 1, 64, 0, nullptr, x, results); }

cudaError_t launch_halves(float *from_half, float *from_bf16, uint16_t *half_again, uint16_t *bf16_again) {
  return launch(halves, 256, 256, 0, nullptr, from_half, from_bf16, half_again, bf16_again);
}

cudaError_t launch_round(const float *x, uint16_t *half, uint16_t *bf16, unsigned size) {
  return launch(round_to_halves, (size + 127) / 128, 128, 0, nullptr, x, half, bf16, size);
}

cudaError_t launch_functions(const float *x, float *results, unsigned size) {
  return launch(functions, (size + 127) / 128, 128, 0, nullptr, x, results, size);
}

cudaError_t launch_high(const uint64_t *a, const uint64_t *b, uint64_t *high64, uint32_t *high32, unsigned size) {
  return launch(high, (size + 127) / 128, 128, 0, nullptr, a, b, high64, high32, size);
}

cudaError_t launch_increment(uint32_t *values, unsigned size, uint32_t by, cudaStream_t stream) {
  return launch(increment, (size + 127) / 128, 128, 0, stream, values, size, by);
}

cudaError_t launch_histogram(const uint32_t *keys, unsigned size, uint64_t *counts, unsigned bins, size_t shared) {
  return launch(histogram, 8, 128, shared, nullptr, keys, size, counts, bins);
}

cudaError_t allow_histogram(int shared) {
  return cudaFuncSetAttribute(TARE_KERNEL(histogram), cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
}

cudaError_t launch_indices(uint32_t *out, dim3 grid, dim3 block) {
  return launch(indices, grid, block, 0, nullptr, out);
}

cudaError_t launch_indices_by_address(uint32_t *out, dim3 grid, dim3 block) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  void *arguments[] = {&out};
  return cudaLaunchKernelExC(&config, TARE_KERNEL(indices), arguments);
}

cudaError_t launch_far(float *base, int64_t stride, unsigned count) {
  return launch(far, 1, 64, 0, nullptr, base, stride, count);
}
