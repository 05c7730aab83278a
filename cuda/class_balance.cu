/* SPDX-License-Identifier: Apache-2.0 */
/* Class-balanced weights of running counts on the GPU, by one block: classes are few beside elements. */
#include "kernels.cuh"

namespace tare {
namespace {

#define TARE_INLINE __device__ __forceinline__
#include "losses/class_balance.h"

/** The arrays of a state, and what the weights are formed with. */
struct balance_call {
  int64_t *steps;
  const int64_t *more;
  double *counts;
  float *weights, *log_counts;
  int64_t classes;
  double decay, least_count, log_beta;
  int32_t adds, reserved;
};

__device__ double inverse_of(const balance_call &b, int64_t cls) {
  return tare_inverse_of_count(tare_sound_count(b.counts[cls]), b.least_count, b.log_beta);
}

__global__ void __launch_bounds__(block_threads) balance_classes(const TARE_GRID_CONSTANT balance_call b) {
  TARE_SHARED(double[2], all);
  double sum = 0, present = 0;
  for (int64_t cls = thread_rank(); cls < b.classes; cls += block_threads) {
    if (b.adds) b.counts[cls] = tare_next_count(b.counts[cls], b.more[cls], b.decay);
    if (b.log_counts) b.log_counts[cls] = tare_log_of_count(tare_sound_count(b.counts[cls]));
    const double inverse = inverse_of(b, cls);
    sum += inverse;
    present += inverse > 0 ? 1 : 0;
  }
  sum = block_sum<block_threads>(sum);
  present = block_sum<block_threads>(present);
  if (thread_rank() == 0) {
    all[0] = present, all[1] = present > 0 ? present / sum : 0.0;
    if (b.adds) *b.steps = *b.steps < 0 ? 1 : *b.steps + (*b.steps < INT64_MAX);
  }
  __syncthreads();
  for (int64_t cls = thread_rank(); b.weights && cls < b.classes; cls += block_threads)
    b.weights[cls] = all[0] > 0 ? float(inverse_of(b, cls) * all[1]) : 1.0f;
}

}  // namespace

cudaError_t launch_balance_classes(const tare_balance_step &step, const launch_site &site) {
  const tare_class_balance &b = step.balance;
  const balance_call c = {tare_balance_steps(&b),
                          tare_balance_step_counts(&b),
                          tare_balance_counts(&b),
                          b.weights,
                          b.log_counts,
                          b.classes,
                          b.decay,
                          b.least_count,
                          step.log_beta,
                          step.steps,
                          0};
  return launch(balance_classes, 1, site, c);
}

cudaError_t load_class_balance() { return load_kernels(balance_classes); }

}  // namespace tare
