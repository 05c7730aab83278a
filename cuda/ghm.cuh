/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GHM-C as a loss of the sigmoid family: cross-entropy whose weight is 1/GD of the element's gradient norm. Two passes:
 * one counts norms (or collects keys for the exact density), the other evaluates. Counts are integers: most elements fall
 * in the first bin, which each thread keeps in a register; the rest goes to shared memory and from there, a bin at a time,
 * to the caller's state.
 */
#ifndef TARE_CUDA_GHM_CUH
#define TARE_CUDA_GHM_CUH

#include "kernels.cuh"
#include "primitives.cuh"

namespace tare {

/** What a thread needs of it, in shared memory but for the keys. */
struct ghm_setting {
  ghm_pass pass;
  int32_t bins;
  const float *lower; /* first key of each bin; [0] -infinity, [bins] NaN */
  const float *weight;
  uint32_t *histogram;
  mutable uint32_t first_bin;       /* this thread's count of it */
  const double *keys, *key_weights; /* exact density */
  uint64_t key_count;
};

__device__ __forceinline__ ghm_setting make_ghm_setting(const ghm_call &c) {
  TARE_SHARED(float[TARE_MAX_BINS + 1], lower);
  TARE_SHARED(float[TARE_MAX_BINS], weight);
  TARE_SHARED(uint32_t[TARE_MAX_BINS], histogram);
  const bool binned = c.pass == ghm_pass::count || (c.pass == ghm_pass::evaluate && !c.exact);
  for (int32_t k = int32_t(thread_rank()); binned && k <= c.bins; k += block_threads) lower[k] = float(c.lower[k]);
  for (int32_t k = int32_t(thread_rank()); k < c.bins; k += block_threads) {
    weight[k] = c.pass == ghm_pass::evaluate && !c.exact ? float(c.state.inverse_density[k]) : 0.0f;
    histogram[k] = 0;
  }
  __syncthreads();
  ghm_setting s;
  s.pass = c.pass;
  s.bins = c.bins;
  s.lower = lower;
  s.weight = weight;
  s.histogram = histogram;
  s.first_bin = 0;
  s.keys = c.exact ? c.keys : nullptr;
  s.key_weights = c.key_weights;
  s.key_count = c.exact && c.pass == ghm_pass::evaluate ? *c.key_count : 0;
  return s;
}

/** The bin of a key whose norm is about `norm`: a guess, put right by its own ends. NaN lands in the first. */
__device__ __forceinline__ int32_t bin_of(const ghm_setting &s, float key, float norm) {
  if (s.bins == 1 || !(key >= s.lower[1])) return 0;
  int32_t k = int32_t(norm * float(s.bins));
  k = k > s.bins - 1 ? s.bins - 1 : k;
  return k + (key >= s.lower[k + 1]) - (key < s.lower[k]);
}

/** The last of the sorted keys that is not above `key`. */
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

/** Counts or collects an element of weight > 0. */
__device__ __forceinline__ void note_key(const ghm_call &c, const ghm_setting &s, float key, float norm, double least) {
  if (s.pass == ghm_pass::collect) {
    c.keys[atomic_add(c.key_count, uint64_t(1))] = key == key ? double(key) : least;
    return;
  }
  const int32_t k = bin_of(s, key, norm);
  if (k == 0)
    s.first_bin++;
  else
    atomic_add(s.histogram + k, 1u);
}

__device__ __forceinline__ float density_weight(const ghm_setting &s, float key, float norm) {
  if (s.keys) return s.key_count ? float(s.key_weights[place_of_key(s.keys, s.key_count, double(key))]) : 0.0f;
  return s.weight[bin_of(s, key, norm)];
}

/** Hands the block's counts to the state; the last block adds up N. By all threads, once a kernel. */
__device__ __forceinline__ void finish_histogram(const ghm_call &c, const ghm_setting &s) {
  const uint64_t first = block_sum<block_threads>(uint64_t(s.first_bin)); /* its barriers end the counting as well */
  for (int32_t k = int32_t(thread_rank()); k < c.bins; k += block_threads) {
    const uint64_t count = uint64_t(s.histogram[k]) + (k == 0 ? first : 0);
    if (count) atomic_add(reinterpret_cast<uint64_t *>(c.state.counts) + k, count);
  }
  if (!last_block(&c.record->ticket)) return;
  double mine = 0;
  for (int32_t k = int32_t(thread_rank()); k < c.bins; k += block_threads)
    mine += double(__ldcg(reinterpret_cast<const long long *>(c.state.counts) + k));
  const double total = block_sum<block_threads>(mine);
  if (thread_rank() == 0) *c.state.total = int64_t(total);
}

}  // namespace tare

#endif
