/* SPDX-License-Identifier: Apache-2.0 */
/* Gradient density on the GPU: from counts, or exactly from sorted keys. */
#include "kernels.cuh"

namespace tare {
namespace {

/** S of one bin: see core/ghm.c, which does the same on the host. */
__device__ double sum_of_bin(const tare_ghm_parameters &ghm, bool first_step, double sum, double count) {
  const double m = ghm.momentum;
  if (m == 0.0) return count;
  if (ghm.variant == TARE_GHM_MMDET) return count > 0 ? m * sum + (1 - m) * count : sum;
  return first_step ? count : m * sum + (1 - m) * count;
}

__global__ void __launch_bounds__(block_threads) update(const tare_ghm_parameters ghm, const tare_ghm_state state) {
  TARE_SHARED(double, regions);
  int occupied = 0;
  for (int k = int(thread_rank()); k < ghm.bins; k += block_threads) occupied += state.counts[k] > 0;
  const int all_occupied = block_sum<block_threads>(occupied);
  if (thread_rank() == 0) regions = ghm.variant == TARE_GHM_MMDET ? double(all_occupied) : double(ghm.bins);
  const bool first_step = *state.steps == 0;
  __syncthreads();
  for (int k = int(thread_rank()); k < ghm.bins; k += block_threads) {
    state.sums[k] = sum_of_bin(ghm, first_step, state.sums[k], double(state.counts[k]));
    const double density = state.sums[k] * regions;
    state.inverse_density[k] = density > 0 ? 1.0 / density : 0.0;
  }
  if (thread_rank() == 0 && ghm.momentum > 0.0) ++*state.steps;
}

/** Keys beyond those collected sort behind them all. */
__global__ void __launch_bounds__(block_threads) pad(double *keys, const uint64_t *count, uint64_t most) {
  for (uint64_t i = *count + blockIdx.x * uint64_t(block_threads) + thread_rank(); i < most;
       i += gridDim.x * uint64_t(block_threads))
    keys[i] = __longlong_as_double(0x7fffffffffffffffll);
}

__device__ double norm_of_key(const ghm_call &c, double key) {
  if (c.shape == TARE_SHAPE_REGRESSION) {
    const double ratio = key / c.mu;
    return ratio > 1e100 ? 1.0 : ratio / sqrt(ratio * ratio + 1.0);
  }
  if (c.soft) return key;
  const double e = exp(-fabs(key));
  return key < 0 ? e / (1.0 + e) : 1.0 / (1.0 + e);
}

__global__ void __launch_bounds__(block_threads) find_norms(const TARE_GRID_CONSTANT ghm_call c, double *norms) {
  for (uint64_t i = blockIdx.x * uint64_t(block_threads) + thread_rank(); i < *c.key_count;
       i += gridDim.x * uint64_t(block_threads))
    norms[i] = norm_of_key(c, c.keys[i]);
}

/** How many of the sorted norms are below `bound`, or not above it. */
__device__ uint64_t count_below(const double *norms, uint64_t count, double bound, bool or_equal) {
  uint64_t low = 0, high = count;
  while (low < high) {
    const uint64_t middle = low + (high - low) / 2;
    if (norms[middle] < bound || (or_equal && norms[middle] == bound))
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

__global__ void __launch_bounds__(block_threads)
    find_weights(const double *norms, const uint64_t *count, double epsilon, double *weights) {
  const double half = epsilon / 2;
  for (uint64_t i = blockIdx.x * uint64_t(block_threads) + thread_rank(); i < *count;
       i += gridDim.x * uint64_t(block_threads)) {
    const double low = norms[i] - half, high = norms[i] + half;
    const uint64_t within = count_below(norms, *count, high, true) - count_below(norms, *count, low, false);
    const double length = fmin(high, 1.0) - fmax(low, 0.0);
    weights[i] = within ? length / double(within) : 0.0;
  }
}

}  // namespace

cudaError_t launch_density_update(const tare_ghm_parameters &ghm, tare_ghm_state state, const launch_site &site) {
  return launch(update, 1, site, ghm, state);
}

cudaError_t launch_exact_density(const ghm_call &c, double epsilon, double *spare, void *sort_room, size_t sort_bytes,
                                 int64_t most, const launch_site &site) {
  const int64_t blocks = (most + block_threads - 1) / block_threads;
  cudaError_t status = launch(pad, blocks, site, c.keys, c.key_count, uint64_t(most));
  if (status == cudaSuccess) status = sort_keys(sort_room, &sort_bytes, c.keys, spare, most, site.stream);
  if (status == cudaSuccess)
    status = cudaMemcpyAsync(c.keys, spare, size_t(most) * sizeof(double), cudaMemcpyDeviceToDevice, site.stream);
  if (status == cudaSuccess) status = launch(find_norms, blocks, site, c, spare);
  if (status == cudaSuccess) status = launch(find_weights, blocks, site, spare, c.key_count, epsilon, c.key_weights);
  return status;
}

}  // namespace tare
