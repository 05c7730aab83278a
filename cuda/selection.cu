/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hard negative mining: which background rows of an image have the largest losses.
 *
 * A block takes an image. A radix selection, most significant digit first, reads the image's losses once for each of
 * four digits and moves nothing; the last reading takes ties in row order, so that the result is the same on every run.
 * Few blocks run, so they mostly wait for memory: each thread asks for several rows at a time.
 */
#include "selection.cuh"

#include <cstring>

namespace tare {
namespace {

#define TARE_INLINE __device__ __forceinline__
#include "losses/loss_key.h"

constexpr uint32_t digits = TARE_DIGITS;
static_assert(digits == block_threads, "a digit for each thread");

__global__ void __launch_bounds__(block_threads)
    gather_labels(const TARE_GRID_CONSTANT call c, int32_t background, int32_t *label) {
  for_each_tile(c, c.count_tile_count, &level::count_tiles, [&](const level &l, const tile &t) {
    for (int32_t row = int32_t(thread_rank()); row < t.rows; row += block_threads) {
      const int32_t found = find_taken_class(c, l, t, row);
      const int32_t without_class = found == row_background ? background : int32_t(TARE_NOT_SELECTED);
      label[row_number(l, t, row)] = found >= 0 ? found : without_class;
    }
  });
}

constexpr int rows_ahead = 8;
constexpr int32_t no_row = INT32_MIN;

/** Every thread calls work(row, label, loss) for an image's rows, block_threads at a time and in row order. Beyond the
 *  last row of a level the label is no_row. */
template <typename Work>
__device__ __forceinline__ void for_each_row(const selection_call &s, int64_t image, Work &&work) {
  for (int32_t level = 0; level < s.levels; level++) {
    const int64_t step = s.of_level[level].step, first = s.of_level[level].first + image * step;
    for (int64_t at = thread_rank(); at - int64_t(thread_rank()) < step; at += rows_ahead * block_threads) {
      int32_t label[rows_ahead];
      float loss[rows_ahead];
#pragma unroll
      for (int k = 0; k < rows_ahead; k++) {
        const int64_t row = at + k * int64_t(block_threads);
        label[k] = row < step ? s.label[first + row] : no_row;
        loss[k] = row < step ? s.loss[first + row] : 0.0f;
      }
#pragma unroll
      for (int k = 0; k < rows_ahead; k++) work(first + at + k * int64_t(block_threads), label[k], loss[k]);
    }
  }
}

/** How many negatives of an image are taken, and how many it has. */
struct amount {
  int64_t taken, negatives;
};

__device__ amount count_image(const selection_call &s, int64_t image) {
  TARE_SHARED(amount, found);
  double positives = 0, negatives = 0; /* exact below 2^53 */
  for_each_row(s, image, [&](int64_t, int32_t label, float) {
    negatives += label == s.background;
    positives += label != s.background && label >= 0;
  });
  const double all_positives = block_sum<block_threads>(positives);
  const double all_negatives = block_sum<block_threads>(negatives);
  if (thread_rank() == 0) {
    found.negatives = int64_t(all_negatives);
    found.taken = tare_negatives_taken(s.ratio, s.minimum, all_positives, all_negatives);
  }
  __syncthreads();
  const amount result = found;
  __syncthreads();
  return result;
}

/** The key of the last negative taken, and how many of that key are. */
struct threshold {
  uint32_t key;
  int64_t ties;
};

__device__ threshold find_threshold(const selection_call &s, int64_t image, int64_t taken) {
  TARE_SHARED(uint32_t[digits], counts);
  threshold now = {0, taken};
  for (int shift = 32 - TARE_DIGIT_BITS; shift >= 0; shift -= TARE_DIGIT_BITS) {
    counts[thread_rank()] = 0;
    __syncthreads();
    for_each_row(s, image, [&](int64_t, int32_t label, float loss) {
      if (label != s.background) return;
      const uint32_t key = tare_key_of_loss(loss);
      if (tare_key_has_prefix(key, now.key, shift)) atomic_add(&counts[(key >> shift) % digits], uint32_t(1));
    });
    __syncthreads();
    const last_digit last = find_last_digit(counts[thread_rank()], now.ties);
    now.key |= last.digit << shift;
    now.ties = last.ties;
  }
  return now;
}

__device__ void drop_below(const selection_call &s, int64_t image, threshold lowest) {
  for_each_row(s, image, [&](int64_t row, int32_t label, float loss) {
    const bool negative = label == s.background;
    const uint32_t key = negative ? tare_key_of_loss(loss) : 0u;
    const bool is_tie = negative && key == lowest.key;
    uint32_t ties;
    const uint32_t before = rank_among(is_tie, &ties);
    if (negative && (key < lowest.key || (is_tie && int64_t(before) >= lowest.ties))) s.label[row] = TARE_NOT_SELECTED;
    lowest.ties = lowest.ties > int64_t(ties) ? lowest.ties - int64_t(ties) : 0;
  });
}

__device__ void drop_all(const selection_call &s, int64_t image) {
  for_each_row(s, image, [&](int64_t row, int32_t label, float) {
    if (label == s.background) s.label[row] = TARE_NOT_SELECTED;
  });
}

__global__ void __launch_bounds__(block_threads) select_negatives(const TARE_GRID_CONSTANT selection_call s) {
  for (int64_t image = blockIdx.x; image < s.images; image += gridDim.x) {
    const amount a = count_image(s, image);
    if (a.taken == a.negatives) continue;
    if (a.taken == 0)
      drop_all(s, image);
    else
      drop_below(s, image, find_threshold(s, image, a.taken));
  }
}

}  // namespace

selection_call make_selection_call(const tare_problem *problem, const tare_selection_room &room) {
  selection_call s;
  memset(static_cast<void *>(&s), 0, sizeof s);
  tare_selection_images(problem, s.of_level);
  s.levels = problem->level_count;
  s.background = tare_selection_background(problem);
  s.images = problem->batch.images;
  s.minimum = problem->batch.selection_minimum;
  s.ratio = problem->batch.selection_ratio;
  s.loss = static_cast<const float *>(room.loss);
  s.label = room.label;
  s.rows = problem->rows;
  s.count = problem->batch.selection_count;
  s.fraction = problem->batch.selection_fraction;
  s.hard = room.hard;
  s.ties = room.ties;
  return s;
}

cudaError_t launch_gather_labels(const call &c, int32_t background, int32_t *label, const launch_site &site) {
  return launch(gather_labels, c.count_tile_count, site, c, background, label);
}

cudaError_t launch_select_negatives(const selection_call &s, const launch_site &site) {
  return launch(select_negatives, s.images, site, s);
}

cudaError_t load_selection() { return load_kernels(gather_labels, select_negatives); }

}  // namespace tare
