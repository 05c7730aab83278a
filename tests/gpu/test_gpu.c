/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What only a GPU has: streams, captured graphs, errors of the device, and tensors of more than 2^32 elements. The last
 * of these and a device that fails for good are for a real GPU; the rest runs on the emulated one too.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "support/cuda_calls.h"
#include "support/problem.h"

static const level_shape head[] = {{9, 7, 3}, {5, 4, 3}, {3, 2, 3}};

static problem *flat(int32_t kind, int32_t dtype) { return problem_new(kind, dtype, test_size(3000, 200), 23); }

static problem *channels_first(int32_t kind, int32_t dtype) {
  problem *p = problem_new_levels(kind, dtype, 2, 5, 3, head);
  for (int a = 0; a < ARRAY_KINDS; a++) p->place[a].channels_first = true;
  return p;
}

/* ---- Graphs ------------------------------------------------------------------------------------------------------ */

typedef struct capture {
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t exec;
} capture;

static tare_status capture_call(capture *c, tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                const tare_output *output) {
  c->stream = new_stream();
  wait_for_uploads();
  MUST(cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeGlobal));
  const tare_status status = tare_evaluate(context, loss, batch, output, c->stream);
  MUST(cudaStreamEndCapture(c->stream, &c->graph));
  MUST(cudaGraphInstantiate(&c->exec, c->graph, 0));
  return status;
}

static void end_capture(capture *c) {
  MUST(cudaStreamSynchronize(c->stream));
  MUST(cudaGraphExecDestroy(c->exec));
  MUST(cudaGraphDestroy(c->graph));
  MUST(cudaStreamDestroy(c->stream));
}

static tare_status replay(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                          const tare_output *output, void *times) {
  capture c;
  const tare_status status = capture_call(&c, context, loss, batch, output);
  for (int i = 0; i < *(int *)times; i++) MUST(cudaGraphLaunch(c.exec, c.stream));
  end_capture(&c);
  return status;
}

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

/* ---- Captures ---------------------------------------------------------------------------------------------------- */

typedef struct made_inside {
  const test_device *device;
  tare_context *context;
} made_inside;

/* A context may be made during a capture, by the thread that captures; it serves in that capture, and is no part of it.
 * Nothing was launched before, so no kernel may still have to be loaded. */
static tare_status make_context_inside(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                       const tare_output *output, void *user) {
  made_inside *inside = user;
  (void)context;
  capture c = {.stream = new_stream()};
  wait_for_uploads();
  MUST(cudaStreamBeginCapture(c.stream, cudaStreamCaptureModeGlobal));
  inside->context = device_context(inside->device, 0);
  const tare_status status = tare_evaluate(inside->context, loss, batch, output, c.stream);
  MUST(cudaStreamEndCapture(c.stream, &c.graph));
  MUST(cudaGraphInstantiate(&c.exec, c.graph, 0));
  MUST(cudaGraphLaunch(c.exec, c.stream));
  end_capture(&c);
  return status;
}

Test(gpu, a_context_made_during_a_capture) {
  FOR_EACH_GPU(device) {
    problem *p = flat(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32);
    p->normalizer = TARE_NORMALIZER_POSITIVES;
    made_inside inside = {.device = device};
    p->call = make_context_inside;
    p->user = &inside;
    CHECK_PROBLEM(p, device);
    tare_context_destroy(inside.context);
    problem_free(p);
  }
}

/* No test of the process has launched a kernel before: each must have been loaded with the context. */
static void capture_first(problem *p, const test_device *device) {
  int once = 1;
  p->call = replay;
  p->user = &once;
  CHECK_PROBLEM(p, device);
  problem_free(p);
}

static void capture_every_loss_first(int32_t dtype) {
  FOR_EACH_GPU(device) {
    FOR_EACH_LOSS(kind) {
      capture_first(flat(kind, dtype), device);
      capture_first(channels_first(kind, dtype), device);
      capture_first(problem_new(kind, dtype, 20, 2000), device);
    }
  }
}

Test(gpu, the_first_launch_is_in_a_capture_f32) { capture_every_loss_first(TARE_DTYPE_F32); }
Test(gpu, the_first_launch_is_in_a_capture_f16) { capture_every_loss_first(TARE_DTYPE_F16); }
Test(gpu, the_first_launch_is_in_a_capture_bf16) { capture_every_loss_first(TARE_DTYPE_BF16); }
Test(gpu, the_first_launch_is_in_a_capture_exact_density) {
  FOR_EACH_GPU(device) {
    problem *p = flat(TARE_LOSS_GHM_C, TARE_DTYPE_F32);
    p->loss.ghm.density = TARE_GHM_DENSITY_EXACT;
    capture_first(p, device);
  }
}

/* The default stream waits for every blocking one: while one of these is captured, neither can be checked. */
static void expect_capturing(tare_context *context, cudaStream_t stream) {
  cr_assert_eq(tare_context_synchronize(context, stream), TARE_STATUS_CAPTURING, "%s", tare_error_text(context));
  cr_assert_not_null(strstr(tare_error_text(context), "captured"), "%s", tare_error_text(context));
  cr_assert_eq(cudaPeekAtLastError(), cudaSuccess);
}

static tare_status check_inside(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                const tare_output *output, void *user) {
  capture c = {0};
  cudaStream_t other = new_stream();
  if (*(bool *)user)
    MUST(cudaStreamCreate(&c.stream));
  else
    c.stream = new_stream();
  wait_for_uploads();
  MUST(cudaStreamBeginCapture(c.stream, cudaStreamCaptureModeGlobal));
  expect_capturing(context, c.stream);
  const tare_status status = tare_evaluate(context, loss, batch, output, c.stream);
  expect_capturing(context, c.stream);
  if (*(bool *)user) expect_capturing(context, NULL);
  cr_assert_eq(tare_context_synchronize(context, other), TARE_STATUS_OK, "%s",
               tare_error_text(context)); /* it is not captured */
  MUST(cudaStreamEndCapture(c.stream, &c.graph));
  MUST(cudaGraphInstantiate(&c.exec, c.graph, 0));
  MUST(cudaGraphLaunch(c.exec, c.stream));
  cr_assert_eq(tare_context_synchronize(context, c.stream), TARE_STATUS_OK, "%s", tare_error_text(context));
  end_capture(&c);
  MUST(cudaStreamDestroy(other));
  return status;
}

Test(gpu, a_check_during_a_capture) {
  FOR_EACH_GPU(device) {
    for (int blocking = 0; blocking < 2; blocking++) {
      bool is_blocking = blocking;
      problem *p = flat(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32);
      p->call = check_inside;
      p->user = &is_blocking;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* Kernels step through the classes with 32 bits. */
/* Images at an odd stride, with rows that are otherwise fit for vectors. No axis can be merged with another. */
typedef struct odd_images {
  const test_device *device;
  int64_t image, y, x; /* strides */
} odd_images;

static void move_images(const odd_images *o, const tare_level *level, int64_t images, const tare_strides *of,
                        float *plain, float *odd, bool back) {
  for (int64_t n = 0; n < images; n++)
    for (int64_t y = 0; y < level->height; y++)
      for (int64_t x = 0; x < level->width; x++)
        for (int64_t i = 0; i < level->anchors * of->anchor; i++) {
          float *there = odd + n * o->image + y * o->y + x * o->x + i;
          float *here = plain + n * of->image + y * of->y + x * of->x + i;
          *(back ? here : there) = back ? *there : *here;
        }
}

static tare_status with_odd_images(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                   const tare_output *output, void *user) {
  const odd_images *o = user;
  tare_batch moved = *batch;
  tare_level level = *(const tare_level *)batch->levels;
  const tare_strides of = level.logits_strides;
  const size_t plain_bytes = (size_t)(batch->images * of.image) * sizeof(float);
  const size_t bytes = (size_t)(batch->images * o->image) * sizeof(float);
  float *plain = malloc(plain_bytes), *odd = calloc(1, bytes);
  void *const device_logits = o->device->allocate(bytes), *const device_gradient = o->device->allocate(bytes);
  o->device->download(plain, level.logits, plain_bytes);
  move_images(o, &level, batch->images, &of, plain, odd, false);
  o->device->upload(device_logits, odd, bytes);
  void *const gradient = level.gradient;
  level.logits = device_logits;
  level.gradient = device_gradient;
  level.logits_strides = level.gradient_strides =
      (tare_strides){.image = o->image, .y = o->y, .x = o->x, .anchor = of.anchor, .cls = of.cls};
  moved.levels = &level;
  const tare_status status = tare_evaluate(context, loss, &moved, output, NULL);
  tare_context_synchronize(context, NULL);
  o->device->download(odd, device_gradient, bytes);
  move_images(o, &level, batch->images, &of, plain, odd, true);
  o->device->upload(gradient, plain, plain_bytes);
  o->device->release(device_logits);
  o->device->release(device_gradient);
  free(plain);
  free(odd);
  return status;
}

Test(gpu, images_an_odd_number_of_elements_apart) {
  FOR_EACH_GPU(device) {
    const level_shape shape = {3, 3, 2};
    problem *p = problem_new_levels(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, 2, 4, 1, &shape);
    odd_images odd = {.device = device, .image = 3 * 40 + 1, .y = 40, .x = 12};
    p->want = WANT_LOSS | WANT_GRADIENT;
    p->call = with_odd_images;
    p->user = &odd;
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}

Test(gpu, more_classes_than_a_gpu_takes) {
  FOR_EACH_GPU(device) {
    for (int softmax = 0; softmax < 2; softmax++) {
      const int64_t classes = INT64_C(2147483647) - 100;
      const tare_status status = softmax ? tare_softmax_ce(device->context, 0, classes, TARE_DTYPE_F32, NULL, NULL,
                                                           TARE_NORMALIZER_SUM, NULL, NULL, NULL)
                                         : tare_sigmoid_ce(device->context, 0, classes, TARE_DTYPE_F32, NULL, NULL, -1,
                                                           TARE_NORMALIZER_SUM, NULL, NULL, NULL);
      cr_assert_eq(status, TARE_STATUS_UNSUPPORTED, "%s", tare_status_name(status));
      cr_assert_not_null(strstr(tare_error_text(device->context), "2147483547"), "%s",
                         tare_error_text(device->context));
    }
  }
}

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

/* ---- More than 2^32 elements ------------------------------------------------------------------------------------- */

#ifndef TARE_TEST_EMULATED

typedef struct huge {
  tare_loss_spec loss;
  int64_t rows, classes;
  bool channels_first;
  unsigned char label_byte; /* of the plain rows: 0xFF background, 0 class 0 */
  uint16_t *logits;         /* device, bf16; becomes the gradient */
  int32_t *labels;
  double *sum;
  tare_counts *counts;
  uint64_t *state;
} huge;

enum { SPECIAL = 7, PLAIN_BITS = 0xC0C0, CHUNK = 1 << 27, AT_ONCE = 4096 }; /* -6 in bf16 */

static int64_t huge_place(const huge *h, int64_t row, int64_t c) {
  return h->channels_first ? c * h->rows + row : row * h->classes + c;
}

/* Rows at the ends and around the elements 2^31 and 2^32. */
static int64_t special_row(const huge *h, int i) {
  const int64_t rows[SPECIAL] = {0,
                                 (INT64_C(1) << 31) / h->classes,
                                 (INT64_C(1) << 31) / h->classes + 1,
                                 (INT64_C(1) << 32) / h->classes,
                                 (INT64_C(1) << 32) / h->classes + 1,
                                 h->rows - 2,
                                 h->rows - 1};
  return rows[i];
}

static uint16_t special_logit(int i, int64_t c) { return (uint16_t)(0x3F00 + (i * 37 + c * 11) % 256); } /* 0.5..8 */

static tare_status huge_evaluate(const huge *h, tare_context *context) {
  tare_level level;
  if (h->channels_first)
    tare_level_init_nchw(&level, 1, h->classes, 1, h->rows);
  else
    tare_level_init_rows(&level, h->rows, h->classes);
  level.logits = level.gradient = h->logits;
  level.gradient_strides = level.logits_strides;
  level.labels = h->labels;
  tare_batch batch;
  tare_batch_init(&batch);
  batch.levels = &level;
  batch.level_count = 1;
  batch.dtype = TARE_DTYPE_BF16;
  batch.classes = h->classes;
  tare_output output;
  tare_output_init(&output);
  output.loss = h->sum;
  output.loss_dtype = TARE_DTYPE_F64;
  output.counts = h->counts;
  const tare_status status = tare_evaluate(context, &h->loss, &batch, &output, NULL);
  return status == TARE_STATUS_OK ? tare_context_synchronize(context, NULL) : status;
}

static void huge_allocate(huge *h) {
  const size_t elements = (size_t)(h->rows * h->classes);
  MUST(cudaMalloc((void **)&h->logits, elements * sizeof *h->logits));
  MUST(cudaMalloc((void **)&h->labels, (size_t)h->rows * sizeof *h->labels));
  MUST(cudaMalloc((void **)&h->sum, sizeof *h->sum));
  MUST(cudaMalloc((void **)&h->counts, sizeof *h->counts));
  MUST(cudaMalloc((void **)&h->state, tare_ghm_state_bytes(30)));
  MUST(cudaMemset(h->logits, PLAIN_BITS & 0xFF, elements * sizeof *h->logits));
  MUST(cudaMemset(h->labels, h->label_byte, (size_t)h->rows * sizeof *h->labels));
  MUST(cudaMemset(h->state, 0, tare_ghm_state_bytes(30)));
  if (is_ghm(h->loss.kind)) h->loss.ghm.state = h->state;
}

static void huge_release(huge *h) {
  void *const memory[] = {h->logits, h->labels, h->sum, h->counts, h->state};
  for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) MUST(cudaFree(memory[i]));
}

static void put_special(const huge *h, int64_t row, int i) {
  const int32_t label = (int32_t)(i % h->classes);
  MUST(cudaMemcpy(h->labels + row, &label, sizeof label, cudaMemcpyHostToDevice));
  for (int64_t c = 0; c < h->classes; c++) {
    const uint16_t bits = special_logit(i, c);
    MUST(cudaMemcpy(h->logits + huge_place(h, row, c), &bits, sizeof bits, cudaMemcpyHostToDevice));
  }
}

static int distance(uint16_t a, uint16_t b) { /* in steps of bf16, signs apart */
  return (a ^ b) & 0x8000 ? 0x10000 : abs((int)a - (int)b);
}

/* The same rows as a small batch, the last of them plain: the small one is held against the oracle elsewhere. */
static double small_twin(const huge *h, tare_context *context, uint16_t *gradient, double *plain_loss) {
  huge twin = {.loss = h->loss, .rows = 1, .classes = h->classes, .label_byte = h->label_byte};
  huge_allocate(&twin);
  cr_assert_eq(huge_evaluate(&twin, context), TARE_STATUS_OK, "%s", tare_error_text(context));
  MUST(cudaMemcpy(plain_loss, twin.sum, sizeof *plain_loss, cudaMemcpyDeviceToHost));
  huge_release(&twin);
  twin.rows = SPECIAL + 1;
  huge_allocate(&twin);
  double loss;
  for (int i = 0; i < SPECIAL; i++) put_special(&twin, i, i);
  cr_assert_eq(huge_evaluate(&twin, context), TARE_STATUS_OK, "%s", tare_error_text(context));
  MUST(
      cudaMemcpy(gradient, twin.logits, (size_t)(twin.rows * twin.classes) * sizeof *gradient, cudaMemcpyDeviceToHost));
  MUST(cudaMemcpy(&loss, twin.sum, sizeof loss, cudaMemcpyDeviceToHost));
  huge_release(&twin);
  return loss - *plain_loss;
}

static bool is_special(const huge *h, int64_t row) {
  for (int i = 0; i < SPECIAL; i++) {
    if (special_row(h, i) == row) return true;
  }
  return false;
}

/* Whether `count` elements of the fast axis, from (slow, fast) on, are right to the bit. They are compared as a whole:
 * billions of comparisons of elements would take most of the time. */
static bool are_plain(const huge *h, const uint16_t *got, int64_t count, int64_t slow, int64_t fast,
                      const uint16_t *plain) {
  if (!h->channels_first) return memcmp(got, plain + fast, (size_t)count * sizeof *got) == 0;
  return got[0] == plain[slow] && memcmp(got, got + 1, (size_t)(count - 1) * sizeof *got) == 0;
}

/* Special rows are left out: the caller compares each of them. Other rows differ by column only. */
static void expect_plain_elements(const huge *h, const uint16_t *plain) {
  const int64_t elements = h->rows * h->classes, fast_size = h->channels_first ? h->rows : h->classes;
  uint16_t *chunk;
  MUST(cudaMallocHost((void **)&chunk, CHUNK * sizeof *chunk));
  int64_t bad = 0, first_bad = -1, slow = 0, fast = 0;
  for (int64_t from = 0; from < elements; from += CHUNK) {
    const int64_t count = elements - from < CHUNK ? elements - from : CHUNK;
    MUST(cudaMemcpy(chunk, h->logits + from, (size_t)count * sizeof *chunk, cudaMemcpyDeviceToHost));
    for (int64_t i = 0, run; i < count; i += run) {
      run = fast_size - fast < count - i ? fast_size - fast : count - i;
      if (run > AT_ONCE) run = AT_ONCE;
      for (int64_t k = are_plain(h, chunk + i, run, slow, fast, plain) ? run : 0; k < run; k++) {
        const int64_t c = h->channels_first ? slow : fast + k, row = h->channels_first ? fast + k : slow;
        if (distance(chunk[i + k], plain[c]) > 1 && !is_special(h, row) && bad++ == 0) first_bad = from + i + k;
      }
      fast += run;
      if (fast == fast_size) fast = 0, slow++;
    }
  }
  MUST(cudaFreeHost(chunk));
  cr_assert_eq(bad, 0, "%lld plain elements are wrong, the first is %lld", (long long)bad, (long long)first_bad);
}

static void expect_special_elements(const huge *h, const uint16_t *small) {
  for (int s = 0; s < SPECIAL; s++) {
    for (int64_t c = 0; c < h->classes; c++) {
      uint16_t got;
      const int64_t at = huge_place(h, special_row(h, s), c);
      MUST(cudaMemcpy(&got, h->logits + at, sizeof got, cudaMemcpyDeviceToHost));
      const uint16_t want = small[s * h->classes + c];
      cr_assert_leq(distance(got, want), 1, "element %lld: bits %04x, want %04x", (long long)at, got, want);
    }
  }
}

/* GHM weighs by counts that a small batch does not have: the counts are what is checked, and that equal elements have
 * equal gradients. */
static void expect_ghm_counts(const huge *h, uint16_t *plain) {
  int64_t words[32], sum = 0;
  MUST(cudaMemcpy(words, h->state, sizeof words, cudaMemcpyDeviceToHost));
  for (int k = 0; k < 30; k++) sum += words[2 + k];
  cr_assert_eq(words[1], h->rows * h->classes);
  cr_assert_eq(sum, h->rows * h->classes);
  cr_assert_geq(words[2], (h->rows - SPECIAL) * h->classes);
  MUST(cudaMemcpy(plain, h->logits + huge_place(h, 1, 0), sizeof *plain, cudaMemcpyDeviceToHost));
  for (int64_t c = 1; c < h->classes; c++) plain[c] = plain[0];
}

static void check_huge(int32_t kind, int64_t classes, bool channels_first, tare_context *context) {
  huge h = {.rows = (INT64_C(1) << 32) / classes + 1001, .classes = classes, .channels_first = channels_first};
  tare_loss_spec_init(&h.loss, (tare_loss_kind)kind);
  h.label_byte = is_softmax(kind) ? 0 : 0xFF;
  uint16_t *small = malloc((size_t)((SPECIAL + 1) * classes) * sizeof *small), *plain = small + SPECIAL * classes;
  double plain_loss = 0, special_loss = 0, loss;
  if (!is_ghm(kind)) special_loss = small_twin(&h, context, small, &plain_loss);
  huge_allocate(&h);
  for (int i = 0; i < SPECIAL; i++) put_special(&h, special_row(&h, i), i);
  cr_assert_eq(huge_evaluate(&h, context), TARE_STATUS_OK, "%s", tare_error_text(context));
  MUST(cudaMemcpy(&loss, h.sum, sizeof loss, cudaMemcpyDeviceToHost));
  if (is_ghm(kind)) {
    expect_ghm_counts(&h, plain);
  } else {
    const double want = special_loss + (double)(h.rows - SPECIAL) * plain_loss;
    CHECK_NEAR("loss", loss, want, ((tolerance){0, 1e-5}));
    expect_special_elements(&h, small);
  }
  expect_plain_elements(&h, plain);
  huge_release(&h);
  free(small);
}

#endif

static void check_huge_on_a_gpu(int32_t kind, int64_t classes, bool channels_first) {
#ifdef TARE_TEST_EMULATED
  (void)kind, (void)classes, (void)channels_first;
  cr_skip_test("no GPU: more than 2^32 elements take 9 GB and a GPU's speed");
#else
  if (test_small()) cr_skip_test("more than 2^32 elements are not small");
  FOR_EACH_GPU(device) {
    size_t available = 0, total = 0;
    MUST(cudaMemGetInfo(&available, &total));
    if (available >> 30 < 10) cr_skip_test("no GPU with 10 GB free: this one has %zu MB", available >> 20);
    check_huge(kind, classes, channels_first, device->context);
  }
#endif
}

Test(gpu, huge_sigmoid) { check_huge_on_a_gpu(TARE_LOSS_SIGMOID_FOCAL, 80, false); }
Test(gpu, huge_sigmoid_of_odd_rows) { check_huge_on_a_gpu(TARE_LOSS_SIGMOID_CE, 91, false); }
Test(gpu, huge_sigmoid_channels_first) { check_huge_on_a_gpu(TARE_LOSS_SIGMOID_FOCAL, 80, true); }
Test(gpu, huge_softmax) { check_huge_on_a_gpu(TARE_LOSS_SOFTMAX_FOCAL, 81, false); }
Test(gpu, huge_softmax_of_many_classes) { check_huge_on_a_gpu(TARE_LOSS_SOFTMAX_CE, 1203, false); }
Test(gpu, huge_softmax_channels_first) { check_huge_on_a_gpu(TARE_LOSS_SOFTMAX_CE, 81, true); }
Test(gpu, huge_ghm) { check_huge_on_a_gpu(TARE_LOSS_GHM_C, 80, false); }
