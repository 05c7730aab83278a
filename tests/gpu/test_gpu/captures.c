/* SPDX-License-Identifier: Apache-2.0 */
/* What may be called while a stream is captured, and what is refused. */
#define _GNU_SOURCE
#include "gpu.h"

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

/* Kernels step through the classes with 32 bits. */
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
