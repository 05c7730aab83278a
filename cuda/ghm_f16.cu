/* SPDX-License-Identifier: Apache-2.0 */
/* The GHM losses on f16 logits. */
#include "ghm_c.cuh"
#include "regression.cuh"

cudaError_t tare::launch_ghm_f16(const ghm_call &c, const launch_site &site) {
  return c.family == TARE_LOSS_FAMILY_REGRESSION ? regression::launch_type<__half>(c, site)
                                                 : sigmoid::launch_ghm_type<__half>(c, site);
}

cudaError_t tare::load_ghm_f16() {
  const cudaError_t status = sigmoid::load_ghm_type<__half>();
  return status == cudaSuccess ? regression::load_type<__half>() : status;
}
