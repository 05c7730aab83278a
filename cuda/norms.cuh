/* SPDX-License-Identifier: Apache-2.0 */
/* The histogram of gradient norms beside a loss, on a GPU: see core/norms.h. */
#ifndef TARE_CUDA_NORMS_CUH
#define TARE_CUDA_NORMS_CUH

#include "kernels.cuh"

extern "C" {
#include "core/norms.h"
}

namespace tare {

/** Its tiles have at most `rows_counted` rows, and `ghm` its bins. */
struct norms_call : ghm_call {
  int64_t *counted; /* [bins] */
};

constexpr int32_t rows_counted = block_threads;

/** To be launched before the loss: a gradient may take the place of its logit. */
cudaError_t launch_norms_of(const norms_call &c, const launch_site &site);

}  // namespace tare

#endif
