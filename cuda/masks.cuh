/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of the loss of masks as the host sees them. */
#ifndef TARE_CUDA_MASKS_CUH
#define TARE_CUDA_MASKS_CUH

#include "kernels.cuh"

#include "core/masks.h"

namespace tare {

/** A checked call, by value. Types are looked up at run time: an instance for each would be a multiple of the code. */
struct mask_call {
  tare_masks masks;
  tare_mask_output output;
  tare_overlap_setting setting;
  double overlap_weight, focal_weight;
  float gamma_hi, gamma_lo, at_0, at_1; /* of the focal loss; alpha_t */
  float target_least, target_most;
  int32_t power;
  int32_t aligned_logits, aligned_targets, aligned_gradient; /* 8 pixels of a mask begin at a vector's address */
  int64_t chunks;
  tare_mask_totals *totals;
  tare_mask_result *results;
  tare_mask_partial *partials;
  device_record *record;
};

/** The sums of every chunk. */
cudaError_t launch_mask_sums(const mask_call &c, const launch_site &site);

/** What follows for each mask, and the losses. */
cudaError_t launch_finish_masks(const mask_call &c, const launch_site &site);

cudaError_t launch_mask_gradients(const mask_call &c, const launch_site &site);

cudaError_t load_masks();

}  // namespace tare

#endif
