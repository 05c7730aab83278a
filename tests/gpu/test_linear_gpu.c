/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What only a GPU has of the fused head: streams, captured graphs, gradients of half types near the ends of their
 * range, and the search for cuBLAS, whose answers the emulator plays.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

#include "support/cuda_calls.h"
#include "support/head.h"
#ifdef TARE_TEST_EMULATED
#include "control.h"
#endif

/* Several chunks with little workspace, one with enough. */
static problem *some_head(int32_t kind, int32_t dtype, double room) {
  problem *p = head_problem(kind, dtype, 300, 40, 12);
  p->head->room = room;
  return p;
}

static outcome *run_with(problem *p, const test_device *device, head_call *call, void *user) {
  p->head->call = call;
  p->head->user = user;
  outcome *o = problem_run(p, device);
  p->head->call = NULL;
  return o;
}

/* ---- Graphs ------------------------------------------------------------------------------------------------------ */

static tare_status replay(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                          const tare_linear *linear, const tare_output *output, void *times) {
  cudaStream_t stream = new_stream();
  wait_for_uploads();
  cudaGraph_t graph = NULL;
  cudaGraphExec_t exec = NULL;
  MUST(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  const tare_status status = tare_linear_evaluate(context, loss, batch, linear, output, stream);
  MUST(cudaStreamEndCapture(stream, &graph));
  if (status == TARE_STATUS_OK) {
    MUST(cudaGraphInstantiate(&exec, graph, 0));
    for (int i = 0; i < *(int *)times; i++) MUST(cudaGraphLaunch(exec, stream));
    MUST(cudaStreamSynchronize(stream));
    MUST(cudaGraphExecDestroy(exec));
  }
  MUST(cudaGraphDestroy(graph));
  MUST(cudaStreamDestroy(stream));
  return status;
}

/* The plain call comes first: it starts cuBLAS. */
static void check_replays(problem *p, const test_device *device, int times) {
  outcome *plain = problem_run(p, device), *want = problem_expect(p);
  outcome *replayed = run_with(p, device, replay, &times);
  CHECK_SAME_OUTCOME(p, replayed, plain);
  CHECK_OUTCOME(p, replayed, want);
  outcome_free(want);
  outcome_free(replayed);
  outcome_free(plain);
  problem_free(p);
}

Test(linear_gpu, a_graph_of_every_loss) {
  FOR_EACH_GPU(device) {
    head_require_blas(device);
    for (int32_t dtype = TARE_DTYPE_F32; dtype <= TARE_DTYPE_BF16; dtype++) {
      FOR_EACH_LOSS(kind) {
        check_replays(some_head(kind, dtype, 0), device, 3);
        check_replays(some_head(kind, dtype, 1), device, 3);
      }
    }
  }
}

Test(linear_gpu, cublas_is_not_started_during_a_capture) {
  FOR_EACH_GPU(device) {
    int times = 1;
    problem *p = some_head(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F16, 0);
    outcome *refused = run_with(p, device, replay, &times);
    if (refused->status == TARE_STATUS_NO_BLAS) head_require_blas(device);
    cr_assert_eq(refused->status, TARE_STATUS_CAPTURING, "%s: %s", tare_status_name(refused->status), refused->text);
    cr_assert_not_null(strstr(refused->text, "once before the capture"), "%s", refused->text);
    CHECK_PROBLEM(p, device); /* starts it, for every context of this GPU */
    p->context = device_context(device, 0);
    outcome *captured = run_with(p, device, replay, &times);
    cr_assert_eq(captured->status, TARE_STATUS_OK, "%s", captured->text);
    outcome_free(captured);
    outcome_free(refused);
    tare_context_destroy(p->context);
    problem_free(p);
  }
}

/* ---- Streams ----------------------------------------------------------------------------------------------------- */

typedef struct lane {
  pthread_t thread;
  const test_device *device;
  problem *p;
  outcome *outcome;
} lane;

static tare_status on_a_stream(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                               const tare_linear *linear, const tare_output *output, void *user) {
  (void)user;
  cudaStream_t stream = new_stream();
  wait_for_uploads();
  tare_status status = TARE_STATUS_OK;
  for (int i = 0; i < 3 && status == TARE_STATUS_OK; i++) {
    status = tare_linear_evaluate(context, loss, batch, linear, output, stream);
  }
  MUST(cudaStreamSynchronize(stream));
  MUST(cudaStreamDestroy(stream));
  return status;
}

static void *run_lane(void *argument) {
  lane *l = argument;
  l->p->context = device_context(l->device, 0);
  l->outcome = run_with(l->p, l->device, on_a_stream, NULL);
  tare_context_destroy(l->p->context);
  return NULL;
}

/* Both start cuBLAS at about the same time. */
Test(linear_gpu, two_contexts_on_two_streams_at_once) {
  FOR_EACH_GPU(device) {
    head_require_blas(device);
    FOR_EACH_LOSS(kind) {
      lane lanes[2] = {{.p = some_head(kind, TARE_DTYPE_F16, 0)},
                       {.p = some_head(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, 1)}};
      for (int i = 0; i < 2; i++) {
        lanes[i].device = device;
        cr_assert_eq(pthread_create(&lanes[i].thread, NULL, run_lane, &lanes[i]), 0);
      }
      for (int i = 0; i < 2; i++) pthread_join(lanes[i].thread, NULL);
      for (int i = 0; i < 2; i++) {
        lanes[i].p->context = NULL;
        outcome *alone = problem_run(lanes[i].p, device);
        CHECK_SAME_OUTCOME(lanes[i].p, lanes[i].outcome, alone);
        outcome_free(alone);
        outcome_free(lanes[i].outcome);
        problem_free(lanes[i].p);
      }
    }
  }
}

/* ---- The range of f16 -------------------------------------------------------------------------------------------- */

/* The gradient by the logits is far below or above f16's range; that by the weights, f32, has all its digits. */
Test(linear_gpu, gradients_beyond_the_range_of_f16) {
  static const double scales[] = {0x1p-60, 0x1p-30, 0x1p30, 0x1p60};
  FOR_EACH_GPU(device) {
    head_require_blas(device);
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) {
      problem *p = some_head(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F16, 0);
      p->head->outputs = HEAD_WEIGHTS | HEAD_BIAS;
      p->gradient_scale = scales[i];
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* In one context: the range that f16 is given is that of its own chunk, whatever came before. */
/* Gradients so small that the power of two which takes them to the top of f16 would not be a float's. Large features
 * bring the weights' gradient back to where it can be compared. */
Test(linear_gpu, gradients_that_no_scale_takes_to_the_top_of_f16) {
  FOR_EACH_GPU(device) {
    head_require_blas(device);
    problem *p = some_head(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F16, 1);
    for (int64_t i = 0; i < p->rows * p->head->dimensions; i++) p->head->features[i] = i % 2 ? 32768 : 65504;
    for (int64_t i = 0; i < p->classes * p->head->dimensions; i++) p->head->weights[i] = 0;
    head_multiply(p);
    p->head->outputs = HEAD_WEIGHTS;
    p->gradient_scale = 0x1p-117;
    p->drawn = true; /* the few classes without an object of theirs have sums that nearly cancel */
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}

Test(linear_gpu, a_small_gradient_of_f16_after_a_large_one) {
  static const double scales[] = {0x1p60, 1, 0x1p-60};
  FOR_EACH_GPU(device) {
    head_require_blas(device);
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) {
      problem *p = some_head(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F16, 0);
      p->head->outputs = HEAD_WEIGHTS | HEAD_BIAS;
      p->gradient_scale = scales[i];
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* ---- The search for cuBLAS --------------------------------------------------------------------------------------- */

#ifdef TARE_TEST_EMULATED

static void expect_no_blas(const char *found, const char *text) {
  cr_assert(tare_emulator_set_cublas(found));
  FOR_EACH_GPU(device) {
    problem *p = some_head(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, 1);
    outcome *o = problem_run(p, device); /* and nothing was written */
    cr_assert_eq(o->status, TARE_STATUS_NO_BLAS, "%s: %s", tare_status_name(o->status), o->text);
    cr_assert_not_null(strstr(o->text, text), "the text does not say '%s': %s", text, o->text);
    outcome_free(o);
    problem *other = problem_new(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, 50, 5);
    CHECK_PROBLEM(other, device);
    problem_free(other);
    cr_assert(tare_emulator_set_cublas("there")); /* installed since */
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}

Test(linear_gpu, without_cublas) { expect_no_blas("missing", "neither libcublas.so.13 nor libcublas.so.12"); }

Test(linear_gpu, a_cublas_that_lacks_a_function) { expect_no_blas("stripped", "has no cublasSetWorkspace_v2"); }

Test(linear_gpu, a_cublas_too_old) { expect_no_blas("11", "is version 11"); }

Test(linear_gpu, a_cublas_that_is_loaded_already) {
  cr_assert(tare_emulator_set_cublas("loaded"));
  FOR_EACH_GPU(device) {
    const uint64_t before = tare_emulator_products_run();
    problem *p = some_head(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, 1);
    CHECK_PROBLEM(p, device);
    cr_assert_gt(tare_emulator_products_run(), before);
    problem_free(p);
  }
}

Test(linear_gpu, a_product_that_fails_is_reported) {
  FOR_EACH_GPU(device) {
    problem *p = some_head(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, 1);
    CHECK_PROBLEM(p, device);
    tare_emulator_fail("cublasGemmEx", 0, cudaErrorLaunchOutOfResources);
    p->head->outputs = 0;
    p->want = 0;
    outcome *o = problem_run(p, device);
    cr_assert_eq(o->status, TARE_STATUS_CUDA_ERROR, "%s: %s", tare_status_name(o->status), o->text);
    cr_assert_not_null(strstr(o->text, "CUBLAS_STATUS_EXECUTION_FAILED"), "%s", o->text);
    cudaGetLastError(); /* cuBLAS's own runtime would keep it */
    outcome_free(o);
    problem_free(p);
  }
}

/* Blocks that take several pieces of the sums, in many orders of their threads: more strips of rows than blocks run at
 * a time, and more columns, which takes a cache that holds several strips of them. */
Test(linear_gpu, blocks_that_take_several_pieces) {
  static const int64_t shapes[][2] = {{2600, 5}, {700, 600}};
  cr_assert(tare_emulator_set_profile("cache"));
  FOR_EACH_GPU(device) {
    for (int s = 0; s < 2; s++) {
      problem *p = head_problem(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, shapes[s][0], shapes[s][1], 1);
      p->head->outputs = HEAD_BIAS;
      p->head->room = 1;
      p->want = WANT_LOSS;
      for (uint64_t seed = 1; seed <= 8; seed++) {
        tare_emulator_set_seed(seed);
        CHECK_PROBLEM(p, device);
      }
      problem_free(p);
    }
  }
}

/* A pass that stops half-way has counted norms already; they must not be found by the next call. */
Test(linear_gpu, counts_of_a_call_that_failed_are_forgotten) {
  FOR_EACH_GPU(device) {
    for (unsigned products = 1; products < 5; products++) {
      problem *p = some_head(TARE_LOSS_GHM_C, TARE_DTYPE_F32, 0); /* several chunks */
      CHECK_PROBLEM(p, device);                                   /* starts cuBLAS */
      tare_emulator_fail("cublasGemmEx", products, cudaErrorLaunchOutOfResources);
      outcome *o = problem_run(p, device);
      cr_assert_eq(o->status, TARE_STATUS_CUDA_ERROR, "product %u: %s %s", products, tare_status_name(o->status),
                   o->text);
      cudaGetLastError(); /* cuBLAS's own runtime would keep it */
      outcome_free(o);
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/** Runs a call and returns its products. */
static uint64_t products_of(problem *p, const test_device *device) {
  const uint64_t before = tare_emulator_products_run();
  CHECK_PROBLEM(p, device);
  return tare_emulator_products_run() - before;
}

static void expect_products(problem *p, const test_device *device, double room, uint64_t want) {
  p->head->room = room;
  const uint64_t got = products_of(p, device);
  cr_assert_eq(got, want, "%s: %d products instead of %d", problem_text(p), (int)got, (int)want);
}

/* With the least workspace 300 rows are three chunks. The first one's logits stay from the pass that counts. */
Test(linear_gpu, products_of_each_loss) {
  FOR_EACH_GPU(device) {
    head_require_blas(device);
    FOR_EACH_LOSS(kind) {
      problem *p = some_head(kind, TARE_DTYPE_F16, 0);
      expect_products(p, device, 0, is_ghm(kind) ? 3 + 2 + 6 : 3 + 6);
      expect_products(p, device, 1, 3);
      p->head->outputs = 0;
      expect_products(p, device, 0, is_ghm(kind) ? 3 + 2 : 3);
      if (is_ghm(kind)) problem_add_ghm_state(p);
      if (is_ghm(kind)) CHECK_PROBLEM(p, device);
      if (is_ghm(kind)) p->loss.ghm.use_stored_density = 1;
      expect_products(p, device, 0, 3);
      problem_free(p);
    }
  }
}

/* An ample chunk of this GPU has 768 rows. Beyond that the workspace keeps the logits of more chunks, in its places. */
Test(linear_gpu, logits_are_kept_where_the_workspace_has_room) {
  static const double rooms[] = {1, 1.035, 2};
  FOR_EACH_GPU(device) {
    head_require_blas(device);
    for (int32_t dtype = TARE_DTYPE_F32; dtype <= TARE_DTYPE_BF16; dtype++) {
      problem *p = head_problem(TARE_LOSS_GHM_C, dtype, 2000, 40, 3);
      outcome *first = NULL;
      for (int r = 0; r < 3; r++) {
        expect_products(p, device, rooms[r], 3 + 2 - (uint64_t)r + 6);
        outcome *o = problem_run(p, device);
        if (first != NULL) CHECK_SAME_OUTCOME(p, o, first);
        if (first == NULL) first = o;
        if (first != o) outcome_free(o);
      }
      outcome_free(first);
      problem_free(p);
    }
  }
}

#endif
