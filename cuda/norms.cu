/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The histogram of gradient norms beside a loss. The kernels of a loss know nothing of it. This one reads the logits
 * once more, for every sigmoid loss and every type of logits, which it looks up at run time: an instance for each would
 * multiply the library's size. The bins are those of GHM-C.
 */
#include "norms.cuh"

#include "ghm_c.cuh"

namespace tare {
namespace norms {

/** The role of a row. A target or a score that no formula takes leaves its row out. Dense targets are looked at by a
 *  whole warp. */
__device__ __forceinline__ row_role look(const call &c, const level &l, const tile &t, int32_t row) {
  const row_role r = look_at_row(c, l, t, row);
  bool spoilt = false;
  if (c.soft) spoilt = r.weight != 0.0f && c.checks_targets && has_invalid_target(c, l, t, row);
  if (c.has_scores) spoilt = r.weight != 0.0f && has_invalid_score(c, l, t, r, row);
  return spoilt ? row_role{row_skipped, 0.0f} : r;
}

__device__ __forceinline__ void look_at_tile(const call &c, const level &l, const tile &t, row_role *rows) {
  const int32_t together = c.soft ? int32_t(warp_size) : 1, rank = int32_t(thread_rank());
  for (int32_t row = rank / together; row < t.rows; row += block_threads / together) {
    const row_role found = look(c, l, t, row);
    if (rank % together == 0) rows[row] = found;
  }
  __syncthreads();
}

__device__ __forceinline__ float target_of(const call &c, const level &l, const tile &t, row_role r, int32_t row,
                                           int64_t cls) {
  if (c.soft) return target_at(c, l, t, row, cls);
  if (cls != r.cls) return 0.0f;
  return c.has_scores ? sigmoid::clamped_score(c, l, t, row) : 1.0f;
}

__device__ __forceinline__ void count_one(const norms_call &c, const level &l, const tile &t, counter &n, row_role r,
                                          int32_t row, int64_t cls) {
  const float *const weights = static_cast<const float *>(l.view.array[TARE_ARRAY_ELEMENT_WEIGHTS].data);
  if (r.weight == 0.0f || is_masked(l, t, row, cls)) return;
  if (weights && __ldg(weights + place(l, t, TARE_ARRAY_ELEMENT_WEIGHTS, row, cls)) == 0.0f) return;
  const float x =
      read_as<float>(l.view.array[TARE_ARRAY_LOGITS].data, c.dtype, place(l, t, TARE_ARRAY_LOGITS, row, cls));
  const float target = target_of(c, l, t, r, row, cls);
  if (target != 0.0f && target != 1.0f) {
    const float norm = sigmoid::soft_norm(exact::terms_of(x).p, target);
    n.histogram.add(bin_of(sigmoid::norm_bins(c), norm, norm));
    return;
  }
  n.add(target == 1.0f ? -x : x);
}

/** Lanes share what lies side by side: classes, or rows. */
__device__ __forceinline__ void count_tile(const norms_call &c, const level &l, const tile &t, counter &n,
                                           const row_role *rows) {
  const tare_array &logits = l.view.array[TARE_ARRAY_LOGITS];
  constexpr int32_t warps = block_threads / int32_t(warp_size);
  const int32_t warp = int32_t(thread_rank() / warp_size), mine = int32_t(lane());
  if (llabs(logits.stride[TARE_AXES - 1]) < llabs(logits.cls)) {
    for (int64_t cls = warp; cls < c.classes; cls += warps)
      for (int32_t row = mine; row < t.rows; row += int32_t(warp_size)) count_one(c, l, t, n, rows[row], row, cls);
  } else {
    for (int32_t row = warp; row < t.rows; row += warps)
      for (int64_t cls = mine; cls < c.classes; cls += warp_size) count_one(c, l, t, n, rows[row], row, cls);
  }
}

/** The last block hands the counts over, and leaves zeros for the next launch. */
__device__ __forceinline__ void finish(const norms_call &c, const ghm_histogram &h) {
  hand_over(c, h);
  if (!last_block(&c.record->ticket)) return;
  for (int32_t k = int32_t(thread_rank()); k < c.ghm.bins; k += block_threads) {
    c.counted[k] = int64_t(__ldcg(c.record->histogram + k));
    c.record->histogram[k] = 0;
  }
}

__global__ void __launch_bounds__(block_threads, 4) count_norms(const TARE_GRID_CONSTANT norms_call c) {
  TARE_SHARED(row_role[rows_counted], rows);
  counter n = make_counter(c);
  for_each_tile(c, c.tile_count, &level::tiles, [&](const level &l, const tile &t) {
    look_at_tile(c, l, t, rows);
    count_tile(c, l, t, n, rows);
  });
  finish(c, n.histogram);
}

}  // namespace norms

cudaError_t launch_norms_of(const norms_call &c, const launch_site &site) {
  return launch(norms::count_norms, c.tile_count, site, c);
}

cudaError_t load_norms() { return load_kernels(norms::count_norms); }

}  // namespace tare
