/* SPDX-License-Identifier: Apache-2.0 */
/* Several streams, and errors of the device. */
#define _GNU_SOURCE
#include "gpu.h"

/* ---- Streams ----------------------------------------------------------------------------------------------------- */

typedef struct lane {
  pthread_t thread;
  pthread_barrier_t *start;
  const test_device *device;
  problem *p;
  outcome *outcome;
  int rounds;
} lane;

static tare_status many_rounds(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                               const tare_output *output, void *user) {
  const lane *l = user;
  cudaStream_t stream = new_stream();
  tare_status status = TARE_STATUS_OK;
  wait_for_uploads();
  if (l->start != NULL) pthread_barrier_wait(l->start);
  for (int i = 0; i < l->rounds && status == TARE_STATUS_OK; i++) {
    status = tare_evaluate(context, loss, batch, output, stream);
  }
  if (status == TARE_STATUS_OK) status = tare_context_synchronize(context, stream);
  MUST(cudaStreamDestroy(stream));
  return status;
}

static void *run_lane(void *argument) {
  lane *l = argument;
  tare_context *context = device_context(l->device, 0);
  l->p->context = context;
  l->outcome = problem_run(l->p, l->device);
  tare_context_destroy(context);
  return NULL;
}

Test(gpu, two_contexts_on_two_streams_at_once) {
  FOR_EACH_GPU(device) {
    FOR_EACH_LOSS(kind) {
      pthread_barrier_t start;
      pthread_barrier_init(&start, NULL, 2);
      lane lanes[2] = {{.p = flat(kind, TARE_DTYPE_F32)},
                       {.p = channels_first(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32)}};
      outcome *alone[2];
      for (int i = 0; i < 2; i++) alone[i] = problem_run(lanes[i].p, device);
      for (int i = 0; i < 2; i++) {
        lanes[i].device = device;
        lanes[i].start = &start;
        lanes[i].rounds = (int)test_size(200, 4);
        lanes[i].p->call = many_rounds;
        lanes[i].p->user = &lanes[i];
        cr_assert_eq(pthread_create(&lanes[i].thread, NULL, run_lane, &lanes[i]), 0);
      }
      for (int i = 0; i < 2; i++) pthread_join(lanes[i].thread, NULL);
      for (int i = 0; i < 2; i++) {
        CHECK_SAME_OUTCOME(lanes[i].p, lanes[i].outcome, alone[i]);
        outcome_free(lanes[i].outcome);
        outcome_free(alone[i]);
        problem_free(lanes[i].p);
      }
      pthread_barrier_destroy(&start);
    }
  }
}

/* ---- Errors ------------------------------------------------------------------------------------------------------ */

/* Work on the legacy stream while another stream is captured is refused by CUDA: our launch fails, for a reason that
 * passes. */
static tare_status on_a_forbidden_stream(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                         const tare_output *output, void *user) {
  (void)user;
  cudaStream_t stream;
  cudaGraph_t graph = NULL;
  MUST(cudaStreamCreate(&stream));
  wait_for_uploads();
  MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  const tare_status status = tare_evaluate(context, loss, batch, output, NULL);
  const cudaError_t left = cudaPeekAtLastError();
  cr_expect_neq(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  cudaGetLastError(); /* the capture's own */
  MUST(cudaStreamDestroy(stream));
  cr_assert_eq(left, cudaSuccess, "the failed launch left %s behind", cudaGetErrorName(left));
  return status;
}

Test(gpu, a_launch_that_fails_is_reported_and_leaves_no_trace) {
  FOR_EACH_GPU(device) {
    FOR_EACH_LOSS(kind) {
      problem *p = flat(kind, TARE_DTYPE_F32);
      p->call = on_a_forbidden_stream;
      outcome *o = problem_run(p, device); /* and nothing was written */
      cr_assert(o->status == TARE_STATUS_CUDA_ERROR || o->status == TARE_STATUS_CAPTURING, "%s: %s",
                tare_status_name(o->status), o->text);
      cr_assert_neq(o->text[0], '\0');
      outcome_free(o);
      p->call = NULL;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* An error that somebody else left pending is neither reported nor taken away. */
Test(gpu, errors_of_others_are_left_alone) {
  FOR_EACH_GPU(device) {
    FOR_EACH_LOSS(kind) {
      problem *p = flat(kind, TARE_DTYPE_F32);
      void *memory = NULL;
      cr_assert_eq(cudaMalloc(&memory, (size_t)1 << 60), cudaErrorMemoryAllocation);
      CHECK_PROBLEM(p, device);
      cr_assert_eq(cudaGetLastError(), cudaErrorMemoryAllocation);
      problem_free(p);
    }
  }
}

/* A pointer to nowhere: the kernel fails while it runs. The process can use the GPU no more, but gets a status and a
 * text from every call, and can end. */
Test(gpu, a_kernel_that_fails_is_reported_by_every_call) {
#ifdef TARE_TEST_EMULATED
  cr_skip_test("no GPU: an illegal address ends the emulator");
#else
  test_device *device = devices_first();
  const void *nowhere = (const void *)(uintptr_t)64;
  float *loss = device->allocate(sizeof *loss);
  int32_t *labels = device->allocate(1000 * sizeof *labels);
  MUST(cudaMemset(labels, 0, 1000 * sizeof *labels)); /* of class 0: a row without a valid label is not read */
  tare_status status = tare_sigmoid_focal(device->context, 1000, 8, TARE_DTYPE_F32, nowhere, labels, 2, 0.25,
                                          TARE_NORMALIZER_SUM, loss, NULL, NULL);
  cr_assert_eq(status, TARE_STATUS_OK, "%s", tare_error_text(device->context));
  for (int i = 0; i < 2; i++) {
    status = tare_context_synchronize(device->context, NULL);
    cr_assert_eq(status, TARE_STATUS_CUDA_ERROR, "%s", tare_status_name(status));
    cr_assert_not_null(strstr(tare_error_text(device->context), "cudaErrorIllegalAddress"), "%s",
                       tare_error_text(device->context));
  }
  status = tare_sigmoid_focal(device->context, 1000, 8, TARE_DTYPE_F32, nowhere, labels, 2, 0.25, TARE_NORMALIZER_SUM,
                              loss, NULL, NULL);
  cr_assert_eq(status, TARE_STATUS_CUDA_ERROR, "%s", tare_status_name(status));
  tare_context_destroy(device->context);
#endif
}
