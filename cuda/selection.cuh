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

}  // namespace tare

#endif
