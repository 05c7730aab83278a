/* SPDX-License-Identifier: Apache-2.0 */
/* The GHM losses on bf16 logits. */
#include "ghm_c.cuh"
#include "regression.cuh"

cudaError_t tare::launch_ghm_bf16(const ghm_call &c, const launch_site &site) {
  return c.family == TARE_LOSS_FAMILY_REGRESSION ? regression::launch_type<__nv_bfloat16>(c, site)
                                                 : sigmoid::launch_ghm_type<__nv_bfloat16>(c, site);
}

cudaError_t tare::load_ghm_bf16() {
  const cudaError_t status = sigmoid::load_ghm_type<__nv_bfloat16>();
  return status == cudaSuccess ? regression::load_type<__nv_bfloat16>() : status;
}
