/* SPDX-License-Identifier: Apache-2.0 */
/* The softmax family on f32 logits. */
#include "softmax_launch.cuh"

cudaError_t tare::launch_softmax_f32(const call &c, const launch_site &site) {
  return softmax::launch_type<float>(c, site);
}

cudaError_t tare::load_softmax_f32() { return softmax::load_type<float>(); }
