/* SPDX-License-Identifier: Apache-2.0 */
/* The sigmoid family on f16 logits, GHM-C apart. */
#include "sigmoid.cuh"

cudaError_t tare::launch_sigmoid_f16(const call &c, const launch_site &site) {
  return sigmoid::launch_type<__half>(c, site);
}

cudaError_t tare::load_sigmoid_f16() { return sigmoid::load_type<__half>(); }
