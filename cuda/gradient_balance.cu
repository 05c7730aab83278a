/* SPDX-License-Identifier: Apache-2.0 */
/* Weights of running gradients on the GPU, by one block: classes are few beside elements. */
#include "kernels.cuh"

namespace tare {
namespace {

#define TARE_INLINE __device__ __forceinline__
#include "losses/gradient_balance.h"

struct gradient_call {
  tare_gradient_step step;
  int64_t *steps;
  double *of_step, *running;
};

__global__ void __launch_bounds__(block_threads) balance_gradients(const TARE_GRID_CONSTANT gradient_call g) {
  const tare_gradient_balance &b = g.step.balance;
  for (int64_t c = thread_rank(); c < b.classes; c += block_threads) {
    double *const of_step = g.of_step + 2 * c, *const running = g.running + 2 * c;
    switch (g.step.action) {
      case TARE_GRADIENT_WEIGH:
        tare_write_factors(&b, c, tare_factors_of_class(&b, *g.steps, g.running, c));
        break;
      case TARE_GRADIENT_COLLECT:
        of_step[0] = tare_sound_sum(g.step.sums[c].positive_gradient);
        of_step[1] = tare_sound_sum(g.step.sums[c].negative_gradient);
        break;
      default:
        running[0] = tare_next_sum(running[0], of_step[0]);
        running[1] = tare_next_sum(running[1], of_step[1]);
    }
  }
  if (thread_rank() == 0 && g.step.action == TARE_GRADIENT_STEP)
    *g.steps = *g.steps < 0 ? 1 : *g.steps + (*g.steps < INT64_MAX);
}

}  // namespace

cudaError_t launch_balance_gradients(const tare_gradient_step &step, const launch_site &site) {
  const tare_gradient_balance &b = step.balance;
  const gradient_call g = {step, tare_gradient_steps(&b), tare_gradient_step_sums(&b), tare_gradient_sums(&b)};
  return launch(balance_gradients, 1, site, g);
}

cudaError_t load_gradient_balance() { return load_kernels(balance_gradients); }

}  // namespace tare
