/* SPDX-License-Identifier: Apache-2.0 */
/* The softmax family on bf16 logits. */
#include "softmax_launch.cuh"

cudaError_t tare::launch_softmax_bf16(const call &c, const launch_site &site) {
  return softmax::launch_type<__nv_bfloat16>(c, site);
}

cudaError_t tare::load_softmax_bf16() { return softmax::load_type<__nv_bfloat16>(); }
