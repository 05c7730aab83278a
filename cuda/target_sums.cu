/* SPDX-License-Identifier: Apache-2.0 */
/* Sums of targets and numbers of targets equal to 1: a pass of its own over labels, scores and targets, after the one
 * that counts labels. Numbers are added by atomics, where no order shows; sums go through a partial sum for each
 * tile. */
#include "kernels.cuh"
#include "two_hot.cuh"

namespace tare {
namespace {

#define TARE_INLINE __device__ __forceinline__
#include "core/divisor.h"

constexpr int32_t most_rows = 1024; /* of a tile of the label kernels */

struct tally {
  double sum;
  double elements; /* that a class mask lets count; exact below 2^53 */
  uint32_t ones;
  __device__ __forceinline__ void add(float target) {
    sum += double(target);
    ones += target == 1.0f;
  }
};

/** Whether a row counts; its target is checked where it has a weight. By a whole warp where targets are dense. */
__device__ __forceinline__ bool row_counts(const call &c, const level &l, const tile &t, int32_t row) {
  if (role_of(c, find_taken_class(c, l, t, row)) == row_skipped) return false;
  const row_role r = look_at_row(c, l, t, row);
  if (r.weight == 0.0f) return true;
  if (c.bin_numbers) return !has_invalid_bins(c, l, t, r, row);
  return c.soft ? !(c.checks_targets && has_invalid_target<true>(c, l, t, row))
                : !(c.has_scores && has_invalid_score(c, l, t, r, row));
}

__device__ __forceinline__ void sum_labels(const call &c, const level &l, const tile &t, tally *mine) {
  for (int32_t row = int32_t(thread_rank()); row < t.rows; row += block_threads) {
    const int32_t role = role_of(c, find_taken_class(c, l, t, row));
    if ((role < 0 && !c.masks_classes) || !row_counts(c, l, t, row)) continue;
    for (int64_t cls = 0; c.masks_classes && cls < c.classes; cls++) mine->elements += !is_masked(l, t, row, cls);
    if (role < 0 || is_masked(l, t, row, role)) continue;
    mine->add(c.bin_numbers ? 1.0f : fminf(fmaxf(score_at(c, l, t, row), 0.0f), 1.0f));
  }
}

/** Lanes share what lies side by side: classes, or rows. */
__device__ __forceinline__ void sum_dense(const call &c, const level &l, const tile &t, tally *mine) {
  TARE_SHARED(uint8_t[most_rows], counts);
  constexpr int32_t warps = block_threads / int32_t(warp_size);
  const int32_t warp = int32_t(thread_rank() / warp_size), own = int32_t(lane());
  for (int32_t row = warp; row < t.rows; row += warps) {
    const bool row_does = row_counts(c, l, t, row);
    if (own == 0) counts[row] = row_does;
  }
  __syncthreads();
  const tare_array &targets = l.view.array[TARE_ARRAY_TARGETS];
  const bool by_row = llabs(targets.stride[TARE_AXES - 1]) < llabs(targets.cls);
  const int64_t lines = by_row ? c.classes : t.rows, length = by_row ? t.rows : c.classes;
  const float most = c.family == TARE_LOSS_FAMILY_SOFTMAX ? c.target_most : 1.0f;
  for (int64_t line = warp; line < lines; line += warps)
    for (int64_t at = own; at < length; at += warp_size) {
      const int32_t row = int32_t(by_row ? at : line);
      const int64_t cls = by_row ? line : at;
      if (!counts[row] || is_masked(l, t, row, cls)) continue;
      mine->elements += 1.0;
      const int64_t where = place(l, t, TARE_ARRAY_TARGETS, row, cls);
      mine->add(fminf(fmaxf(read_as<float>(targets.data, c.target_dtype, where), 0.0f), most));
    }
}

/** Thread 0 of the last block calls it. It writes the sums, and a zero for the next launch. */
__device__ __forceinline__ void finish_sums(const call &c, double targets, tare_normalizer_sums *sums) {
  device_record &r = *c.record;
  const volatile device_record &seen = r;
  r.sums.targets = targets;
  r.sums.ones = double(seen.ones);
  if (c.masks_classes) r.sums.elements = double(seen.elements);
  r.ones = r.elements = 0;
  if (sums) *sums = r.sums;
  r.inverse_divisor = reciprocal(tare_divisor_of_sums(c.normalizer, &r.sums, c.divisor_addend, c.divisor_minimum));
}

__global__ void __launch_bounds__(block_threads, 6)
    sum_targets(const TARE_GRID_CONSTANT call c, tare_normalizer_sums *sums) {
  tally mine = {};
  for_each_tile(c, c.count_tile_count, &level::count_tiles, [&](const level &l, const tile &t) {
    mine.sum = 0;
    if (c.soft)
      sum_dense(c, l, t, &mine);
    else
      sum_labels(c, l, t, &mine);
    return mine.sum;
  });
  const uint32_t ones = block_sum<block_threads>(mine.ones);
  if (thread_rank() == 0 && ones) atomic_add(&c.record->ones, uint64_t(ones));
  const double elements = block_sum<block_threads>(mine.elements);
  if (thread_rank() == 0 && elements > 0.0) atomic_add(&c.record->elements, uint64_t(elements));
  if (!last_block(&c.record->ticket)) return;
  const double targets = sum_of_partials(c, c.count_tile_count);
  if (thread_rank() == 0) finish_sums(c, targets, sums);
}

}  // namespace

cudaError_t launch_target_sums(const call &c, tare_normalizer_sums *sums, const launch_site &site) {
  return launch(sum_targets, c.count_tile_count, site, c, sums);
}

cudaError_t load_target_sums() { return load_kernels(sum_targets); }

}  // namespace tare
