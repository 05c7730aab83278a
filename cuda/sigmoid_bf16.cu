/* SPDX-License-Identifier: Apache-2.0 */
/* The sigmoid family on bf16 logits, GHM-C apart. */
#include "sigmoid.cuh"

cudaError_t tare::launch_sigmoid_bf16(const call &c, const launch_site &site) {
  return sigmoid::launch_type<__nv_bfloat16>(c, site);
}

cudaError_t tare::load_sigmoid_bf16() { return sigmoid::load_type<__nv_bfloat16>(); }
