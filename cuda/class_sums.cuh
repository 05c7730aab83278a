/* SPDX-License-Identifier: Apache-2.0 */
/* Sums of each class on a GPU: see core/class_sums.h. */
#ifndef TARE_CUDA_CLASS_SUMS_CUH
#define TARE_CUDA_CLASS_SUMS_CUH

#include "kernels.cuh"

extern "C" {
#include "core/class_sums.h"
}

namespace tare {

/** The call of any loss, without divisor and scale. Its tiles have at most `rows_summed` rows. If it `follows`, it adds
 *  to the sums of the chunks before. */
struct class_sums_call : ghm_call {
  tare_class_sums *sums, *room; /* of slice 0, and of those that follow it */
  int32_t slices, reserved;
};

constexpr int32_t rows_summed = block_threads;

/** To be launched before the loss: a gradient may take the place of its logit. GHM-C's density is then known. */
cudaError_t launch_class_sums(const class_sums_call &c, const launch_site &site);

}  // namespace tare

#endif
