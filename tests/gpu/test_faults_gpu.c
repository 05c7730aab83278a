/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In each call of the library, each call of CUDA fails once. Then there is a status with a text, CUDA holds no error,
 * no memory is lost, inputs are untouched, and the context computes right results afterwards. The emulator makes the
 * calls fail.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "support/head.h"
#include "support/problem.h"

#ifndef TARE_TEST_EMULATED

Test(faults_gpu, every_call_in_turn) {
  FOR_EACH_GPU(device) { cr_skip_test("no GPU fails to order: the emulator does"); }
}

#else

#include "control.h"
#include "support/cuda_calls.h"

enum { MOST_CALLS = 2000 };

static const cudaError_t errors[] = {cudaErrorMemoryAllocation, cudaErrorLaunchOutOfResources, cudaErrorUnknown,
                                     cudaErrorIllegalAddress};
enum { ERRORS = sizeof errors / sizeof *errors, STICKY = ERRORS - 1 };

/* Which call fails, and whether it came to that. */
typedef struct fault {
  unsigned successes;
  cudaError_t error;
  bool came;
  char text[1024]; /* of the call, where another one came after it */
} fault;

static void expect_clean(const char *what, const fault *f) {
  const cudaError_t left = cudaPeekAtLastError();
  cr_assert_eq(left, cudaSuccess, "%s, call %u: left %s behind", what, f->successes, cudaGetErrorName(left));
}

static void expect_reported(const char *what, const fault *f, tare_status status, const char *text) {
  cr_assert(status == TARE_STATUS_CUDA_ERROR || status == TARE_STATUS_OUT_OF_MEMORY ||
                status == TARE_STATUS_NO_DEVICE || status == TARE_STATUS_NO_BLAS,
            "%s, call %u fails with %s: %s", what, f->successes, cudaGetErrorName(f->error), tare_status_name(status));
  if (!f->came) cr_assert_fail("%s: %s without a failure", what, tare_status_name(status));
  cr_assert_neq(text[0], '\0', "%s, call %u: %s without a text", what, f->successes, tare_status_name(status));
}

/* ---- Evaluations ------------------------------------------------------------------------------------------------- */

/* A device that is lost stays so: every call says it. Then another device stands in its place. */
static tare_status after(fault *f, tare_context *context, tare_status status) {
  f->came = tare_emulator_failed();
  if (f->error != errors[STICKY]) return status;
  snprintf(f->text, sizeof f->text, "%s", tare_error_text(context));
  if (f->came) {
    cr_assert_eq(tare_context_synchronize(context, NULL), TARE_STATUS_CUDA_ERROR, "call %u", f->successes);
    cr_assert_not_null(strstr(tare_error_text(context), "cudaErrorIllegalAddress"), "%s", tare_error_text(context));
  }
  tare_emulator_recover();
  return status;
}

static tare_status evaluate_with_fault(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                       const tare_output *output, void *user) {
  fault *f = user;
  tare_emulator_fail("", f->successes, f->error);
  return after(f, context, tare_evaluate(context, loss, batch, output, NULL));
}

static tare_status three_calls_with_fault(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                          const tare_output *output, void *user) {
  fault *f = user;
  tare_loss_spec given = *loss;
  given.ghm.use_stored_density = 1;
  tare_emulator_fail("", f->successes, f->error);
  tare_status status = tare_ghm_histogram(context, loss, batch, NULL);
  if (status == TARE_STATUS_OK) status = tare_ghm_density_update(context, loss, NULL);
  if (status == TARE_STATUS_OK) status = tare_evaluate(context, &given, batch, output, NULL);
  return after(f, context, status);
}

static tare_status head_with_fault(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                   const tare_linear *linear, const tare_output *output, void *user) {
  fault *f = user;
  tare_emulator_fail("", f->successes, f->error);
  return after(f, context, tare_linear_evaluate(context, loss, batch, linear, output, NULL));
}

static void set_call(problem *p, problem_call *call, head_call *head, fault *f) {
  p->call = call;
  p->user = f;
  if (p->head == NULL) return;
  p->call = NULL;
  p->head->call = head;
  p->head->user = f;
}

/* One failure; false once the call has fewer calls of CUDA than that. A fresh context, since its first fused head
 * starts cuBLAS. */
static bool fails_at(problem *p, const test_device *device, problem_call *call, fault *f) {
  const bool sticky = f->error == errors[STICKY];
  p->context = device_context(device, 0);
  p->device_lost = sticky;
  set_call(p, call, head_with_fault, f);
  outcome *o = problem_run(p, device);
  if (o->status != TARE_STATUS_OK) expect_reported(problem_text(p), f, o->status, sticky ? f->text : o->text);
  if (p->head != NULL) cudaGetLastError(); /* cuBLAS's own runtime would keep it */
  expect_clean(problem_text(p), f);
  if (o->status == TARE_STATUS_OK) { /* without the call that failed it went another way */
    outcome *want = problem_expect(p);
    CHECK_OUTCOME(p, o, want);
    outcome_free(want);
  }
  outcome_free(o);
  set_call(p, NULL, NULL, NULL);
  if (p->ghm_state == NULL) CHECK_PROBLEM(p, device);
  tare_context_destroy(p->context);
  p->context = NULL;
  return f->came;
}

static void check_every_call(problem *p, const test_device *device, problem_call *call) {
  for (int e = 0; e < ERRORS; e++) {
    fault f = {.error = errors[e]};
    while (fails_at(p, device, call, &f)) cr_assert_lt(f.successes++, MOST_CALLS);
    cr_assert_gt(f.successes, 0, "%s: no call of CUDA failed", problem_text(p));
  }
  problem_free(p);
}

Test(faults_gpu, evaluations) {
  FOR_EACH_GPU(device) {
    FOR_EACH_LOSS(kind) {
      problem *p = problem_new(kind, TARE_DTYPE_F32, 40, 7);
      if (!is_ghm(kind)) p->normalizer = TARE_NORMALIZER_POSITIVES; /* two kernels */
      check_every_call(p, device, evaluate_with_fault);
    }
  }
}

Test(faults_gpu, levels_and_planes) {
  static const level_shape levels[] = {{9, 7, 3}, {5, 4, 3}};
  FOR_EACH_GPU(device) {
    FOR_EACH_LOSS(kind) {
      problem *p = problem_new_levels(kind, TARE_DTYPE_F16, 2, 5, 2, levels);
      for (int a = 0; a < ARRAY_KINDS; a++) p->place[a].channels_first = true;
      check_every_call(p, device, evaluate_with_fault);
    }
  }
}

Test(faults_gpu, exact_density) {
  FOR_EACH_GPU(device) {
    problem *p = problem_new(TARE_LOSS_GHM_C, TARE_DTYPE_F32, 40, 7);
    p->loss.ghm.density = TARE_GHM_DENSITY_EXACT;
    check_every_call(p, device, evaluate_with_fault);
  }
}

Test(faults_gpu, density_in_three_calls) {
  FOR_EACH_GPU(device) {
    problem *p = problem_new(TARE_LOSS_GHM_C, TARE_DTYPE_F32, 40, 7);
    problem_add_ghm_state(p);
    check_every_call(p, device, three_calls_with_fault);
  }
}

Test(faults_gpu, fused_head) {
  FOR_EACH_GPU(device) {
    head_require_blas(device);
    for (int32_t dtype = TARE_DTYPE_F32; dtype <= TARE_DTYPE_F16; dtype++) {
      check_every_call(head_problem(TARE_LOSS_SIGMOID_FOCAL, dtype, 40, 7, 5), device, NULL);
      check_every_call(head_problem(TARE_LOSS_SOFTMAX_CE, dtype, 40, 7, 5), device, NULL);
      check_every_call(head_problem(TARE_LOSS_GHM_C, dtype, 40, 7, 5), device, NULL);
    }
  }
}

/* ---- Contexts ---------------------------------------------------------------------------------------------------- */

static bool creation_fails_at(const test_device *device, fault *f) {
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = device->kind;
  tare_context *context = NULL;
  const uint64_t before = tare_emulator_bytes_allocated();
  tare_emulator_fail("", f->successes, f->error);
  const tare_status status = tare_context_create(&context, &options);
  f->came = tare_emulator_failed();
  if (f->error == errors[STICKY]) tare_emulator_recover();
  if (f->came && status != TARE_STATUS_OK) {
    expect_reported("a context", f, status, tare_error_text(NULL));
    cr_assert_null(context);
    if (f->error != errors[STICKY]) cr_assert_eq(tare_emulator_bytes_allocated(), before, "call %u", f->successes);
  }
  expect_clean("a context", f);
  tare_context_destroy(context);
  expect_clean("destroying a context", f);
  return f->came;
}

Test(faults_gpu, creation) {
  FOR_EACH_GPU(device) {
    for (int e = 0; e < ERRORS; e++) {
      fault f = {.error = errors[e]};
      while (creation_fails_at(device, &f)) cr_assert_lt(f.successes++, MOST_CALLS);
      cr_assert_gt(f.successes, 2, "making a context calls CUDA");
    }
  }
}

/* What is called on a context without a batch of logits: each fails in turn, and then works. */
typedef tare_status small_call(tare_context *context, const test_device *device);

static tare_status check_call(tare_context *context, const test_device *device) {
  (void)device;
  return tare_context_synchronize(context, NULL);
}

static tare_status count_labels(tare_context *context, const test_device *device) {
  static const int32_t labels[4] = {0, 1, -1, -2};
  static void *memory = NULL; /* labels, counts, per class */
  if (memory == NULL) {
    memory = device->allocate(256);
    device->upload(memory, labels, sizeof labels);
  }
  tare_level level;
  tare_level_init_rows(&level, 4, 2);
  level.labels = memory;
  tare_batch batch;
  tare_batch_init(&batch);
  batch.levels = &level;
  batch.level_count = 1;
  batch.classes = 2;
  char *at = memory;
  return tare_label_counts(context, &batch, (tare_counts *)(void *)(at + 64), (int64_t *)(void *)(at + 128), NULL);
}

static void check_small_call(const test_device *device, const char *what, small_call *call) {
  cr_assert_eq(call(device->context, device), TARE_STATUS_OK, "%s", tare_error_text(device->context));
  for (int e = 0; e < STICKY; e++) {
    for (fault f = {.error = errors[e], .came = true}; f.came; f.successes++) {
      cr_assert_lt(f.successes, MOST_CALLS);
      tare_emulator_fail("", f.successes, f.error);
      const tare_status status = call(device->context, device);
      f.came = tare_emulator_failed();
      if (f.came) expect_reported(what, &f, status, tare_error_text(device->context));
      expect_clean(what, &f);
      cr_assert_eq(call(device->context, device), TARE_STATUS_OK, "%s after call %u: %s", what, f.successes,
                   tare_error_text(device->context));
    }
  }
}

Test(faults_gpu, checks_and_label_counts) {
  FOR_EACH_GPU(device) {
    check_small_call(device, "tare_context_synchronize", check_call);
    check_small_call(device, "tare_label_counts", count_labels);
  }
}

#endif
