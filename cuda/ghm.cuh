/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernels of GHM-C and GHM-R share: bins, a block's counts, and the density that follows from them.
 *
 * Counts are integers, in shared memory. Blocks add them to the context's record, and the last hands the sums to the
 * caller's state and forms the density. Most elements fall in the first bin, which has what the others leave of all
 * that was counted. The record is left as it was found, 0, so nothing has to be cleared before a call.
 */
#ifndef TARE_CUDA_GHM_CUH
#define TARE_CUDA_GHM_CUH

#include "ghm_places.cuh"
#include "kernels.cuh"
#include "primitives.cuh"

namespace tare {

#include "losses/momentum.h"

/* ---- Bins -------------------------------------------------------------------------------------------------------- */

/** The bins of GHM-C, in shared memory. */
struct ghm_bins {
  int32_t count;
  float second;       /* first key of the second bin, NaN if there is none: what is not above is in the first */
  const float *lower; /* first key of each bin; [0] -infinity, [count] NaN */
};

/** By all threads, which use it after a barrier. */
__device__ __forceinline__ ghm_bins make_bins(const ghm_call &c) {
  TARE_SHARED(float[TARE_MAX_BINS + 1], lower);
  for (int32_t k = int32_t(thread_rank()); k <= c.ghm.bins; k += block_threads) lower[k] = c.ghm_c.lower[k];
  return {c.ghm.bins, c.ghm_c.lower[1], lower};
}

/** The bin whose first norm is nearest to a norm, as a number from first_nearest on; the end of the last bin is that
 *  of one more. These are the last bits of a float. Of NaN, eight times the number is that of end_of_nearest: among
 *  entries of 8 bytes, NaN has a place of its own. */
constexpr uint32_t end_of_nearest = 0x5fffffff, first_nearest = end_of_nearest - TARE_MAX_BINS - 1;
__device__ __forceinline__ uint32_t nearest_bin(float bins_in_units, float norm) {
  return bits_of_fma(norm, bins_in_units, __uint_as_float(first_nearest));
}
constexpr float unit_of_nearest = 0x1p41f; /* between these floats */

/** The bin of a key whose norm is, to far less than half a bin, `norm`: the nearest one, or the one before. That of NaN
 *  is the first. */
__device__ __forceinline__ int32_t bin_of(const ghm_bins &bins, float key, float norm) {
  if (!(key >= bins.second)) return 0;
  const uint32_t k = nearest_bin(float(bins.count) * unit_of_nearest, norm) - first_nearest;
  return int32_t(k) - !(key >= bins.lower[k]);
}

/** The last of the sorted keys of the exact density that is not above `key`. */
__device__ __forceinline__ uint64_t place_of_key(const double *keys, uint64_t count, double key) {
  uint64_t low = 0, high = count;
  while (high - low > 1) {
    const uint64_t middle = low + (high - low) / 2;
    if (keys[middle] <= key)
      low = middle;
    else
      high = middle;
  }
  return low;
}

/** Keeps an element's key for the sort, or NaN if the element does not count: NaN is sorted to the end. Many
 *  parameters: an element is named by level, tile, row and class. */
__device__ __forceinline__ void collect_key(const ghm_call &c, const level &l, const tile &t, int32_t row, int64_t cls,
                                            bool counts, double key, double if_nan) {
  const double kept = key == key ? key : if_nan;
  c.keys[row_number(l, t, row) * c.classes + cls] = counts ? kept : __longlong_as_double(0x7fffffffffffffffll);
}

/* ---- Counts ------------------------------------------------------------------------------------------------------ */

/** A block's counts, in shared memory. Each bin has as many copies, side by side, as there is room for, up to one for
 *  each lane, so that lanes that fall in one bin need not wait for each other. */
struct ghm_histogram {
  uint32_t *counts; /* [bins << shift]; nobody reads those of the first bin, which has what the others have not */
  int32_t shift;
  uint32_t copy;
  int64_t counted; /* what this thread has counted, whatever the bin */

  /** Beside `counted`. -1 takes one back that any thread has added: a copy may be below 0. */
  __device__ __forceinline__ void add_to_bin(int32_t bin, int32_t times) {
    if (bin > 0) atomic_add(counts + (uint32_t(bin) << shift) + copy, uint32_t(times));
  }
  __device__ __forceinline__ void add(int32_t bin, int32_t times = 1) {
    counted += times;
    add_to_bin(bin, times);
  }
};

/** By all threads, which use it after a barrier. */
__device__ __forceinline__ ghm_histogram make_histogram(const ghm_call &c) {
  TARE_SHARED(uint32_t[TARE_MAX_BINS], counts);
  for (int32_t k = int32_t(thread_rank()); k < TARE_MAX_BINS; k += block_threads) counts[k] = 0;
  int32_t shift = 0;
  while (shift < 5 && c.ghm.bins << (shift + 1) <= TARE_MAX_BINS) shift++;
  return {counts, shift, lane() & ((1u << shift) - 1), 0};
}

/** Adds a block's counts to the record. By all threads, once a kernel. */
__device__ __forceinline__ void hand_over(const ghm_call &c, const ghm_histogram &h) {
  int64_t first = h.counted; /* of the whole block, less the other bins */
  __syncthreads();
  for (int32_t k = 1 + int32_t(thread_rank()); k < c.ghm.bins; k += block_threads) {
    uint32_t count = 0; /* a copy below 0 is a large one here, which comes right in the sum */
    for (int32_t i = 0; i < 1 << h.shift; i++) count += h.counts[(k << h.shift) + i];
    if (count) atomic_add(c.record->histogram + k, uint64_t(count));
    first -= count;
  }
  first = block_sum<block_threads>(first);
  if (thread_rank() == 0 && first) atomic_add(c.record->histogram, uint64_t(first));
}

/* ---- Density ----------------------------------------------------------------------------------------------------- */

/** Momentum sums, 1/GD and one step more from the counts of a state: tare_ghm_density_from_counts by a block. N, which
 *  its first thread may just have written, is read behind a barrier. A fresh state has no past that could stay. */
__device__ __forceinline__ void update_density(const tare_ghm_parameters &ghm, const tare_ghm_state &state,
                                               bool fresh) {
  TARE_SHARED(double, regions);
  int occupied = 0;
  for (int k = int(thread_rank()); k < ghm.bins; k += block_threads) occupied += state.counts[k] > 0;
  const int all_occupied = block_sum<block_threads>(occupied);
  const int64_t steps = fresh ? 0 : *state.steps;
  if (thread_rank() == 0) regions = ghm.variant == TARE_GHM_VARIANT_MMDET ? double(all_occupied) : double(ghm.bins);
  __syncthreads();
  if (*state.total == 0 && !fresh) return;
  for (int k = int(thread_rank()); k < ghm.bins; k += block_threads) {
    const double sum = tare_momentum_sum(&ghm, steps <= 0, fresh ? 0.0 : state.sums[k], double(state.counts[k]));
    const double density = sum * regions;
    state.sums[k] = sum;
    state.inverse_density[k] = density > 0 ? 1.0 / density : 0.0;
  }
  if (thread_rank() == 0 && ghm.momentum > 0.0) *state.steps = tare_next_step(steps);
}

/** The last block calls it when all have added their counts. It writes them to the state, and the density if wanted. */
__device__ __forceinline__ void settle(const ghm_call &c) {
  uint64_t mine = 0;
  for (int32_t k = int32_t(thread_rank()); k < c.ghm.bins; k += block_threads) {
    const uint64_t count = __ldcg(c.record->histogram + k);
    c.record->histogram[k] = 0;
    c.state.counts[k] = int64_t(count);
    mine += count;
  }
  const uint64_t total = block_sum<block_threads>(mine); /* its barriers let all see the counts */
  if (thread_rank() == 0) *c.state.total = int64_t(total);
  if (c.updates) update_density(c.ghm, c.state, c.fresh);
}

/** Ends a kernel that counts (if other launches go on counting, their counts are added before anything follows); or the
 *  counting half of one that then evaluates, whose every block then sees the density. By all threads. */
__device__ __forceinline__ void finish_histogram(const ghm_call &c, const ghm_histogram &h) {
  hand_over(c, h);
  if (c.goes_on) return;
  if (c.pass == ghm_pass::fused)
    grid_barrier(&c.record->barrier, [&] { settle(c); });
  else if (last_block(&c.record->ticket))
    settle(c);
}

}  // namespace tare

#endif
