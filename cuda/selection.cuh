/* SPDX-License-Identifier: Apache-2.0 */
/* Selection of rows on a GPU (core/selection.h): kernels between the one that measures and those that evaluate. */
#ifndef TARE_CUDA_SELECTION_CUH
#define TARE_CUDA_SELECTION_CUH

#include "kernels.cuh"

extern "C" {
#include "core/selection.h"
}

namespace tare {

/** The parameters of the kernels that settle labels. */
struct selection_call {
  tare_image_rows of_level[TARE_MAX_LEVELS];
  int32_t levels, background;
  int64_t images, minimum;
  double ratio;
  const float *loss;
  int32_t *label;
  /* of OHEM */
  int64_t rows, count;
  double fraction;
  tare_hard_rows *hard;
  uint32_t *ties;
};

selection_call make_selection_call(const tare_problem *problem, const tare_selection_room &room);

/** Writes the caller's labels to the room, as classes. An ignored or invalid row is one that is not selected. */
cudaError_t launch_gather_labels(const call &c, int32_t background, int32_t *label, const launch_site &site);

/** Settles the labels, a block for each image. */
cudaError_t launch_select_negatives(const selection_call &s, const launch_site &site);

/** Settles the labels for OHEM, in six launches. */
cudaError_t launch_select_hard_rows(const selection_call &s, const launch_site &site);

/** How many threads before this one say yes, and how many of the block do. */
__device__ __forceinline__ uint32_t rank_among(bool yes, uint32_t *all) {
  TARE_SHARED(uint32_t[block_threads / warp_size], of_warp);
  const uint32_t votes = __ballot_sync(~0u, yes);
  if (lane() == 0) of_warp[thread_rank() / warp_size] = uint32_t(__popc(votes));
  __syncthreads();
  uint32_t before = uint32_t(__popc(votes & ((1u << lane()) - 1u)));
  *all = 0;
  for (uint32_t w = 0; w < block_threads / warp_size; w++) {
    if (w < thread_rank() / warp_size) before += of_warp[w];
    *all += of_warp[w];
  }
  __syncthreads();
  return before;
}

/** A digit of the key of the last row that is taken, and how many rows of this prefix are. */
struct last_digit {
  uint32_t digit;
  int64_t ties;
};

/** Of `count` rows with this thread's digit, and so on, those with the largest digits are taken, `ties` in all. By all
 *  threads: one that walks down the digits would wait for the memory at each. */
__device__ __forceinline__ last_digit find_last_digit(uint64_t count, int64_t ties) {
  TARE_SHARED(uint64_t[block_threads], from_here);
  TARE_SHARED(last_digit, found);
  const uint32_t digit = thread_rank();
  from_here[digit] = count;
  __syncthreads();
  for (uint32_t step = 1; step < block_threads; step *= 2) {
    const uint64_t more = digit + step < block_threads ? from_here[digit + step] : 0;
    __syncthreads();
    from_here[digit] += more;
    __syncthreads();
  }
  const int64_t with = int64_t(from_here[digit]), above = with - int64_t(count);
  if (ties == 0 ? digit == block_threads - 1 : above < ties && (with >= ties || digit == 0))
    found = {digit, ties - above};
  __syncthreads();
  const last_digit result = found;
  __syncthreads();
  return result;
}

}  // namespace tare

#endif
