/* SPDX-License-Identifier: Apache-2.0 */
/* Gradient density on the GPU: from counts, or exactly from sorted keys. */
#include "ghm.cuh"

namespace tare {
namespace {

__global__ void __launch_bounds__(block_threads) update(const tare_ghm_parameters ghm, const tare_ghm_state state) {
  update_density(ghm, state, false);
}

__device__ double norm_of_key(const ghm_call &c, double key) {
  if (c.shape == TARE_SHAPE_REGRESSION) {
    const double ratio = key / c.ghm.mu;
    return ratio > 1e100 ? 1.0 : ratio / sqrt(ratio * ratio + 1.0);
  }
  if (c.soft) return key;
  const double e = exp(-fabs(key));
  return key < 0 ? e / (1.0 + e) : 1.0 / (1.0 + e);
}

/** Norms of the sorted keys; whoever has the last of them knows how many they are. */
__global__ void __launch_bounds__(block_threads)
    find_norms(const TARE_GRID_CONSTANT ghm_call c, const double *sorted, uint64_t most, double *norms) {
  for (uint64_t i = blockIdx.x * uint64_t(block_threads) + thread_rank(); i < most;
       i += gridDim.x * uint64_t(block_threads)) {
    if (isnan(sorted[i])) continue;
    norms[i] = norm_of_key(c, sorted[i]);
    if (i + 1 == most || isnan(sorted[i + 1])) *c.key_count = i + 1;
  }
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

cudaError_t launch_exact_density(const ghm_call &c, double *sorted, void *sort_room, size_t sort_bytes, int64_t most,
                                 const launch_site &site) {
  const int64_t blocks = (most + block_threads - 1) / block_threads;
  double *const norms = c.keys;
  cudaError_t status = cudaMemsetAsync(c.key_count, 0, sizeof *c.key_count, site.stream);
  if (status == cudaSuccess) status = sort_keys(sort_room, &sort_bytes, c.keys, sorted, most, site.stream);
  if (status == cudaSuccess) status = launch(find_norms, blocks, site, c, sorted, uint64_t(most), norms);
  if (status == cudaSuccess)
    status = launch(find_weights, blocks, site, norms, c.key_count, c.ghm.epsilon, c.key_weights);
  return status;
}

}  // namespace tare
