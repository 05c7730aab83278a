/* SPDX-License-Identifier: Apache-2.0 */
/* Selection of rows on a GPU (core/selection.h): two kernels between the one that measures and those that evaluate. */
#ifndef TARE_CUDA_SELECTION_CUH
#define TARE_CUDA_SELECTION_CUH

#include "kernels.cuh"

extern "C" {
#include "core/selection.h"
}

namespace tare {

/** The parameters of select_negatives. */
struct selection_call {
  tare_image_rows of_level[TARE_MAX_LEVELS];
  int32_t levels, background;
  int64_t images, minimum;
  double ratio;
  const float *loss;
  int32_t *label;
};

/** Writes the caller's labels to the room, as classes. An ignored or invalid row is one that is not selected. */
cudaError_t launch_gather_labels(const call &c, int32_t background, int32_t *label, const launch_site &site);

/** Settles the labels, a block for each image. */
cudaError_t launch_select_negatives(const selection_call &s, const launch_site &site);

}  // namespace tare

#endif
