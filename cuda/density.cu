/* SPDX-License-Identifier: Apache-2.0 */
/* Gradient density on the GPU: from counts, or exactly from sorted keys. */
#include "ghm.cuh"

namespace tare {
namespace {

__global__ void __launch_bounds__(block_threads)
    ghm_update_density(const tare_ghm_parameters ghm, const tare_ghm_state state) {
  update_density(ghm, state, false);
}

#include "losses/window.h"

/** The gradient norm of a key, folded. */
__device__ double norm_of_key(const ghm_call &c, double key) {
  if (c.family == TARE_LOSS_FAMILY_REGRESSION) return tare_norm_of_difference(key, c.ghm.mu);
  return tare_norm_of_logit(key);
}

/** Norms of the sorted keys. The thread with the last of them writes their number. */
__global__ void __launch_bounds__(block_threads)
    exact_density_norms(const TARE_GRID_CONSTANT ghm_call c, const double *sorted, uint64_t most, double *norms) {
  for (uint64_t i = blockIdx.x * uint64_t(block_threads) + thread_rank(); i < most;
       i += gridDim.x * uint64_t(block_threads)) {
    if (isnan(sorted[i])) continue;
    norms[i] = norm_of_key(c, sorted[i]);
    if (i + 1 == most || isnan(sorted[i + 1])) *c.key_count = i + 1;
  }
}

/** The first of the sorted norms [low, high) for which `is_past` holds. It holds for all that follow. */
template <typename Predicate>
__device__ uint64_t first_past(uint64_t low, uint64_t high, Predicate &&is_past) {
  while (low < high) {
    const uint64_t middle = low + (high - low) / 2;
    if (is_past(middle))
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

__global__ void __launch_bounds__(block_threads)
    exact_density_weights(const double *norms, const uint64_t *count, double epsilon, double *weights) {
  const double half = epsilon / 2;
  for (uint64_t i = blockIdx.x * uint64_t(block_threads) + thread_rank(); i < *count;
       i += gridDim.x * uint64_t(block_threads)) {
    const double norm = norms[i];
    const uint64_t first = first_past(0, i, [&](uint64_t k) { return !(tare_norm_distance(norms[k], norm) > half); });
    const uint64_t end =
        first_past(i + 1, *count, [&](uint64_t k) { return tare_norm_distance(norm, norms[k]) > half; });
    weights[i] = tare_window_length(norm, half) / double(end - first);
  }
}

}  // namespace

cudaError_t load_density() { return load_kernels(ghm_update_density, exact_density_norms, exact_density_weights); }

cudaError_t launch_density_update(const tare_ghm_parameters &ghm, tare_ghm_state state, const launch_site &site) {
  return launch(ghm_update_density, 1, site, ghm, state);
}

cudaError_t launch_exact_density(const ghm_call &c, double *sorted, void *sort_room, size_t sort_bytes, int64_t most,
                                 const launch_site &site) {
  const int64_t blocks = (most + block_threads - 1) / block_threads;
  double *const norms = c.keys;
  cudaError_t status = cudaMemsetAsync(c.key_count, 0, sizeof *c.key_count, site.stream);
  if (status == cudaSuccess) status = sort_keys(sort_room, &sort_bytes, c.keys, sorted, most, site.stream);
  if (status == cudaSuccess) status = launch(exact_density_norms, blocks, site, c, sorted, uint64_t(most), norms);
  if (status == cudaSuccess)
    status = launch(exact_density_weights, blocks, site, norms, c.key_count, c.ghm.epsilon, c.key_weights);
  return status;
}

}  // namespace tare
