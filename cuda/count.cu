/* SPDX-License-Identifier: Apache-2.0 */
/* Counts labels: the divisor of a loss, tare_counts, and rows of each class. Integers are added by atomics, where no
 * order shows; weights go through a partial sum for each tile. */
#include "kernels.cuh"
#include "two_hot.cuh"

namespace tare {
namespace {

#define TARE_INLINE __device__ __forceinline__
#include "core/divisor.h"

struct tally {
  uint32_t counted, positives, background, ignored, invalid;
  double weights;
};

/** `spoilt`: by a dense target or a score. */
__device__ void count_row(const call &c, const level &l, const tile &t, int32_t row, bool spoilt, tally *mine) {
  const int32_t found = spoilt ? row_invalid : find_taken_class(c, l, t, row), role = role_of(c, found);
  const bool labelled =
      (l.view.array[TARE_ARRAY_LABELS].data || c.bin_numbers) && (!c.soft || c.family == TARE_LOSS_FAMILY_REGRESSION);
  mine->ignored += found == row_ignored;
  mine->invalid += found == row_invalid;
  mine->background += labelled && found == row_background;
  mine->positives += labelled && found >= 0;
  mine->counted += role != row_skipped;
  if (role != row_skipped) mine->weights += double(row_weight_at(l, t, row)) * double(class_weight_of(c, role));
  if (c.per_class && found >= 0) atomic_add(reinterpret_cast<uint64_t *>(c.per_class) + found, uint64_t(1));
}

/** Whether the score of a row is invalid. */
__device__ bool is_spoilt(const call &c, const level &l, const tile &t, int32_t row) {
  const row_role r = look_at_row(c, l, t, row);
  if (r.weight == 0.0f) return false;
  return c.bin_numbers ? has_invalid_bins(c, l, t, r, row) : has_invalid_score(c, l, t, r, row);
}

__device__ void add_count(uint64_t *total, uint32_t mine) {
  const uint32_t sum = block_sum<block_threads>(mine);
  if (thread_rank() == 0 && sum) atomic_add(total, uint64_t(sum));
}

/** Rows with a class, also where a selection has left some out. */
__device__ double positives_of(const call &c, uint64_t counted) {
  double all = 0; /* exact below 2^53 */
  for (int i = 0; c.all_positives && i < c.level_count; i++) all += double(__ldcg(c.all_positives + i));
  return c.all_positives ? all : double(counted);
}

/** Thread 0 of the last block calls it. It writes the counts, and zeros for the next launch. */
__device__ void finish_counts(const call &c, double weights) {
  device_record &r = *c.record;
  const volatile device_record &seen = r;
  device_record now;
  now.rows = 0;
  for (int i = 0; i < c.level_count; i++) now.rows += uint64_t(c.levels[i].view.rows);
  now.counted = seen.counted;
  now.positives = seen.positives;
  now.background = seen.background;
  now.ignored = seen.ignored;
  now.invalid = seen.invalid;
  if (c.counts)
    *c.counts = {int64_t(now.rows),       int64_t(now.counted), int64_t(now.positives),
                 int64_t(now.background), int64_t(now.ignored), int64_t(now.invalid)};
  const double positives = positives_of(c, now.positives);
  r.sums = tare_sums_of_rows(c.family, c.classes, double(now.counted), positives, weights);
  r.inverse_divisor = reciprocal(tare_divisor_of_sums(c.normalizer, &r.sums, c.divisor_addend, c.divisor_minimum));
  r.counted = r.positives = r.background = r.ignored = r.invalid = 0;
}

__global__ void __launch_bounds__(block_threads) count_labels(const TARE_GRID_CONSTANT call c, int reports) {
  tally mine = {};
  for_each_tile(c, c.count_tile_count, &level::count_tiles, [&](const level &l, const tile &t) {
    mine.weights = 0;
    for (int32_t row = int32_t(thread_rank() / warp_size); c.checks_targets && row < t.rows;
         row += block_threads / int32_t(warp_size)) {
      const bool spoilt = look_at_row(c, l, t, row).weight != 0.0f && has_invalid_target<true>(c, l, t, row);
      if (lane() == 0) count_row(c, l, t, row, spoilt, &mine);
    }
    for (int32_t row = int32_t(thread_rank()); !c.checks_targets && row < t.rows; row += block_threads) {
      count_row(c, l, t, row, c.has_scores && is_spoilt(c, l, t, row), &mine);
      if (reports) report_if_invalid<true>(c, l, t, row);
    }
    return mine.weights;
  });
  add_count(&c.record->counted, mine.counted);
  add_count(&c.record->positives, mine.positives);
  add_count(&c.record->background, mine.background);
  add_count(&c.record->ignored, mine.ignored);
  add_count(&c.record->invalid, mine.invalid);
  if (!last_block(&c.record->ticket)) return;
  const double weights = sum_of_partials(c, c.count_tile_count);
  if (thread_rank() == 0) finish_counts(c, weights);
}

}  // namespace

cudaError_t launch_count(const call &c, const launch_site &site, bool reports) {
  return launch(count_labels, c.count_tile_count, site, c, int(reports));
}

cudaError_t load_count() { return load_kernels(count_labels); }

}  // namespace tare
