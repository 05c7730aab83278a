/* SPDX-License-Identifier: Apache-2.0 */
/* GHM-C counts gradient norms, or collects their keys, by the walks of the sigmoid family with nothing to write. */
#ifndef TARE_CUDA_GHM_C_COUNT_CUH
#define TARE_CUDA_GHM_C_COUNT_CUH

#include "ghm_c_tiles.cuh"

namespace tare {
namespace sigmoid {

/** g of a target between 0 and 1, which decides the bin; rounded the same in both passes. */
__device__ __forceinline__ float soft_norm(float p, float target) { return fabsf(__fsub_rn(p, target)); }

/** Its key for the exact density: the signed logit that has this g, to the precision of a float. */
__device__ __forceinline__ double key_of_norm(float norm) {
  if (norm < FLT_MIN) return double(-INFINITY);
  if (norm >= 1.0f) return double(INFINITY);
  const exact::log_parts g = exact::log_positive(norm), rest = exact::log_positive(1.0f - norm);
  return (double(g.hi) - double(rest.hi)) + (double(g.lo) - double(rest.lo));
}

/** The bins of such a g, in the call's own memory. */
__device__ __forceinline__ ghm_bins norm_bins(const ghm_call &c) { return {c.ghm.bins, c.ghm_c.norm[1], c.ghm_c.norm}; }

/** Counts or collects one element. Many parameters: an element is named by level, tile, row and class. */
__device__ __forceinline__ void count_element(const ghm_call &c, const level &l, const tile &t, counter &n, row_role r,
                                              int32_t row, int64_t cls, float x) {
  const bool collects = c.pass == ghm_pass::collect;
  if (r.weight == 0.0f && !collects) return;
  bool hit = cls == r.cls;
  if (c.soft) {
    const float target = target_at(c, l, t, row, cls);
    hit = target == 1.0f;
    if (!hit && target != 0.0f) {
      const float norm = soft_norm(exact::terms_of(x).p, target);
      if (collects)
        collect_key(c, l, t, row, cls, r.weight != 0.0f, key_of_norm(norm), double(-INFINITY));
      else
        n.histogram.add(bin_of(norm_bins(c), norm, norm));
      return;
    }
  }
  const float key = hit ? -x : x;
  if (collects)
    collect_key(c, l, t, row, cls, r.weight != 0.0f, double(key), double(-INFINITY));
  else
    n.add(key);
}

/** Counts or collects a tile element by element, those of a row side by side or, in NCHW, those of a class. */
template <typename T, int32_t walk>
__device__ __forceinline__ void count_elements(const ghm_call &c, const level &l, const tile &t, counter &n,
                                               const row_role *roles) {
  for_elements<T>(
      l, t, int32_t(c.classes), walk == walk_flat, [](int32_t) { return true; },
      [&](int32_t row, int32_t cls, float x) { count_element(c, l, t, n, roles[row], row, cls, x); });
}

template <typename T>
__device__ __forceinline__ void count_row_of_warp(const ghm_call &c, const level &l, const tile &t, counter &n,
                                                  int32_t row, bool reports) {
  const row_role r = c.soft ? look_at_row_of_warp(c, l, t, row, true, reports) : look_at_row(c, l, t, row);
  for (int64_t cls = lane(); cls < c.classes; cls += warp_size)
    count_element(c, l, t, n, is_masked(l, t, row, cls) ? row_role{r.cls, 0.0f} : r, row, cls,
                  to_float(static_cast<const T *>(
                      l.view.array[TARE_ARRAY_LOGITS].data)[place(l, t, TARE_ARRAY_LOGITS, row, cls)]));
}

/** Counts or collects every element once. Rows without a valid label are reported by a histogram that is a call of its
 *  own; else by what evaluates. */
template <typename T, int32_t walk>
__device__ __forceinline__ void count_pass(const ghm_call &c, counter &n, row_role *roles) {
  for_each_tile(c, c.tile_count, &level::tiles, [&](const level &l, const tile &t) {
    const bool reports = c.pass == ghm_pass::count && !c.updates;
    if (reports)
      for (int32_t row = int32_t(thread_rank()); row < t.rows; row += block_threads) report_if_invalid(c, l, t, row);
    if constexpr (walk == walk_rows) {
      for (int32_t row = int32_t(thread_rank() / warp_size); row < t.rows; row += block_threads / warp_size)
        count_row_of_warp<T>(c, l, t, n, row, reports);
    } else {
      const int32_t skipped = look_at_rows(c, l, t, roles);
      if (!c.soft && c.pass != ghm_pass::collect) return count_tile<T, walk>(c, l, t, n, roles, skipped);
      if (c.soft) skip_invalid_rows<T>(c, l, t, roles, reports);
      count_elements<T, walk>(c, l, t, n, roles);
    }
  });
}

template <typename T, int32_t walk>
__global__ void __launch_bounds__(block_threads, walk == walk_nchw ? 3 : 4)
    ghm_c_histogram(const TARE_GRID_CONSTANT ghm_call c) {
  TARE_SHARED(row_role[most_rows_counted<walk>], roles);
  counter n = make_counter(c);
  count_pass<T, walk>(c, n, roles);
  if (c.pass == ghm_pass::count) finish_histogram(c, n.histogram);
}

}  // namespace sigmoid
}  // namespace tare

#endif
