/* SPDX-License-Identifier: Apache-2.0 */
/* Captured graphs give the plain call's numbers, however often they are replayed. */
#define _GNU_SOURCE
#include "gpu.h"

/* Compares with the oracle, and bit for bit with the plain call. */
static void check_replays(problem *p, const test_device *device, int times) {
  outcome *plain = problem_run(p, device);
  p->call = replay;
  p->user = &times;
  outcome *replayed = problem_run(p, device);
  CHECK_SAME_OUTCOME(p, replayed, plain);
  CHECK_PROBLEM(p, device);
  outcome_free(replayed);
  outcome_free(plain);
  problem_free(p);
}

Test(gpu, a_graph_of_every_loss) {
  FOR_EACH_GPU(device) {
    FOR_EACH_LOSS(kind) {
      check_replays(flat(kind, TARE_DTYPE_F32), device, 3);
      check_replays(flat(kind, TARE_DTYPE_BF16), device, 3);
      check_replays(channels_first(kind, TARE_DTYPE_F32), device, 3);
    }
  }
}

Test(gpu, a_graph_of_the_exact_density) {
  FOR_EACH_GPU(device) {
    problem *p = flat(TARE_LOSS_GHM_C, TARE_DTYPE_F32);
    p->loss.ghm.density = TARE_GHM_DENSITY_EXACT;
    check_replays(p, device, 3);
  }
}

Test(gpu, a_graph_replayed_1000_times) {
  FOR_EACH_GPU(device) {
    problem *focal = flat(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32);
    focal->normalizer = TARE_NORMALIZER_POSITIVES;
    check_replays(focal, device, (int)test_size(1000, 100));
    check_replays(channels_first(TARE_LOSS_GHM_C, TARE_DTYPE_F32), device, (int)test_size(1000, 100));
    check_replays(flat(TARE_LOSS_SOFTMAX_FOCAL, TARE_DTYPE_F16), device, (int)test_size(1000, 100));
  }
}

/* Device scalars are read when the graph runs: here a scale twice the one at capture, put back afterwards. */
static tare_status double_the_scale(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                    const tare_output *output, void *scale) {
  capture c;
  float *at = (float *)output->gradient_scale_pointer;
  const float was = *(float *)scale, doubled = 2 * was;
  const tare_status status = capture_call(&c, context, loss, batch, output);
  MUST(cudaMemcpyAsync(at, &doubled, sizeof doubled, cudaMemcpyHostToDevice, c.stream));
  MUST(cudaGraphLaunch(c.exec, c.stream));
  end_capture(&c);
  MUST(cudaMemcpy(at, &was, sizeof was, cudaMemcpyHostToDevice));
  return status;
}

Test(gpu, a_graph_reads_device_scalars_anew) {
  FOR_EACH_GPU(device) {
    float scale = 3;
    problem *p = flat(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32);
    p->device_scale = scale;
    p->call = double_the_scale;
    p->user = &scale;
    outcome *got = problem_run(p, device);
    p->device_scale = 2 * scale;
    outcome *want = problem_expect(p);
    CHECK_OUTCOME(p, got, want);
    outcome_free(want);
    outcome_free(got);
    problem_free(p);
  }
}
