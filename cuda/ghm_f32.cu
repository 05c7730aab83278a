/* SPDX-License-Identifier: Apache-2.0 */
/* The GHM losses on f32 logits. */
#include "ghm_c.cuh"
#include "regression.cuh"

cudaError_t tare::launch_ghm_f32(const ghm_call &c, const launch_site &site) {
  return c.family == TARE_LOSS_FAMILY_REGRESSION ? regression::launch_type<float>(c, site)
                                                 : sigmoid::launch_ghm_type<float>(c, site);
}

cudaError_t tare::load_ghm_f32() {
  const cudaError_t status = sigmoid::load_ghm_type<float>();
  return status == cudaSuccess ? regression::load_type<float>() : status;
}
