/* SPDX-License-Identifier: Apache-2.0 */
/* Counts keys of hard targets by their bins: by the table, or by their norm where bins are too many for it. */
#ifndef TARE_CUDA_GHM_COUNTER_CUH
#define TARE_CUDA_GHM_COUNTER_CUH

#include "ghm_table.cuh"

namespace tare {

struct counter {
  ghm_bins bins;
  ghm_histogram histogram;
  key_table table;

  /** Adds keys of hard targets to their bins, and not to ghm_histogram::counted. All places are found before anything
   *  is added: the compiler cannot know that the table is not what changes. */
  template <int size>
  __device__ __forceinline__ void add_to_bins(const float (&key)[size], int32_t times = 1) {
    if (table.serves) {
      shared_place at[size];
#pragma unroll
      for (int k = 0; k < size; k++) at[k] = table.count_of(key[k]);
#pragma unroll
      for (int k = 0; k < size; k++) add_at(at[k], uint32_t(times));
    } else {
#pragma unroll
      for (int k = 0; k < size; k++)
        histogram.add_to_bin(bin_of(bins, key[k], rcp_approx(1.0f + exp2_approx(key[k] * -0x1.715476p+0f))), times);
    }
  }
  __device__ __forceinline__ void add(float key, int32_t times = 1) {
    const float keys[1] = {key};
    histogram.counted += times;
    add_to_bins(keys, times);
  }
};

/** All threads call it. It ends with a barrier. */
__device__ __forceinline__ counter make_counter(const ghm_call &c) {
  counter n;
  n.bins = make_bins(c);
  n.histogram = make_histogram(c);
  __syncthreads();
  n.table = make_key_table(n.bins, n.histogram);
  return n;
}

}  // namespace tare

#endif
