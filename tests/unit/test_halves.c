/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Logits of 16 bits on the CPU: the gradient is that of the same logits as f32, rounded once to nearest even, bit for
 * bit, and the loss is the same. All 65,536 logits of a type, on every instruction set, wherever the arrays begin.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/numbers.h"
#include "tare.h"

enum { LOGITS = 65536, ROOM = LOGITS + 64, GUARD = 0x5a5a };

static const char *const sets[] = {"baseline", "avx2", "avx512", "sve"};

typedef struct call {
  int32_t dtype, kind;
  int64_t rows, classes;
  int is_nchw, in_place;
  size_t begin, gap; /* elements before the first, and between rows */
  float scale;
} call;

static uint16_t logits[ROOM], gradient[ROOM];
static float wide[ROOM], wide_gradient[ROOM];
static int32_t labels[ROOM];

/* NaN, or the same bits. */
static int is_same(int32_t dtype, uint16_t half, double of_f32) {
  uint16_t want;
  if (isnan(of_f32)) return isnan(load_element(&half, 0, dtype));
  store_element(&want, 0, dtype, of_f32);
  return half == want;
}

static float evaluate(tare_context *context, const call *c, int32_t dtype, const void *x, void *result) {
  tare_loss_spec spec;
  tare_loss_spec_init(&spec, c->kind);
  tare_level level;
  const int64_t length = c->classes + (int64_t)c->gap;
  if (c->is_nchw)
    tare_level_init_nchw(&level, 1, c->classes, 1, c->rows);
  else
    tare_level_init_rows(&level, c->rows, c->classes);
  if (c->gap) level.logits_strides.anchor = level.gradient_strides.anchor = length;
  if (c->gap) level.logits_strides.x = level.logits_strides.y = level.logits_strides.image = length;
  if (c->gap) level.gradient_strides.x = level.gradient_strides.y = level.gradient_strides.image = length;
  level.logits = x;
  level.gradient = result;
  level.labels = labels;
  tare_batch batch;
  tare_batch_init(&batch);
  batch.levels = &level;
  batch.level_count = 1;
  batch.classes = c->classes;
  batch.dtype = dtype;
  tare_output output;
  tare_output_init(&output);
  float loss;
  output.loss = &loss;
  output.gradient_scale_pointer = &c->scale;
  cr_assert_eq(tare_evaluate(context, &spec, &batch, &output, NULL), TARE_STATUS_OK, "%s", tare_error_text(context));
  return loss;
}

static void check(tare_context *context, const char *set, const call *c) {
  const size_t length = (size_t)c->classes + c->gap, count = (size_t)c->rows * length;
  cr_assert(c->begin + count <= ROOM);
  for (size_t i = 0; i < ROOM; i++) gradient[i] = GUARD;
  for (size_t i = 0; i < count; i++) wide[i] = (float)load_element(logits + c->begin, i, c->dtype);
  if (c->in_place) memcpy(gradient + c->begin, logits + c->begin, count * sizeof *logits);
  const uint16_t *from = c->in_place ? gradient : logits;
  const float loss = evaluate(context, c, c->dtype, from + c->begin, gradient + c->begin);
  const float want = evaluate(context, c, TARE_DTYPE_F32, wide, wide_gradient);
  cr_assert(loss == want || (isnan(loss) && isnan(want)), "%s: %g, not %g", set, (double)loss, (double)want);
  for (size_t i = 0; i < ROOM; i++) {
    const size_t at = i - c->begin;
    const int is_gap = i < c->begin || at >= count || (c->gap && at % length >= (size_t)c->classes);
    if (is_gap && (!c->in_place || i < c->begin || at >= count))
      cr_assert_eq(gradient[i], GUARD, "%s: element %zu was written", set, i);
    else if (!is_gap)
      cr_assert(is_same(c->dtype, gradient[i], (double)wide_gradient[at]),
                "%s, %s, kind %d, classes %d, logit %zu: %04x, from %a", set, dtype_name(c->dtype), c->kind,
                (int)c->classes, at, (unsigned)gradient[i], (double)wide_gradient[at]);
  }
}

static void for_each_set(void (*work)(tare_context *, const char *)) {
  for (size_t k = 0; k < sizeof sets / sizeof *sets; k++) {
    tare_context *context;
    setenv("TARE_ISA", sets[k], 1);
    tare_context_options options;
    tare_context_options_init(&options);
    options.device = TARE_DEVICE_CPU;
    if (tare_context_create(&context, &options) != TARE_STATUS_OK) continue; /* not on this machine */
    work(context, sets[k]);
    tare_context_destroy(context);
  }
}

static void draw_labels(int64_t classes) {
  for (int i = 0; i < ROOM; i++) labels[i] = i % 7 ? -1 : (int32_t)(i / 7 % classes);
}

/* Each logit of the type, NaN and infinities among them. */
static void every_logit(tare_context *context, const char *set) {
  static const int32_t kinds[] = {TARE_LOSS_SIGMOID_CE, TARE_LOSS_SIGMOID_FOCAL, TARE_LOSS_SIGMOID_POLY1};
  static const float scales[] = {1, 0x1p-20f, 300.0f, 70000.0f};
  for (size_t i = 0; i < ROOM; i++) logits[i] = (uint16_t)i;
  draw_labels(64);
  for (int32_t dtype = TARE_DTYPE_F16; dtype <= TARE_DTYPE_BF16; dtype++)
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
      for (size_t n = 0; n < sizeof scales / sizeof *scales; n++) {
        const call c = {
            .dtype = dtype, .kind = kinds[k], .rows = 1024, .classes = 64, .scale = scales[n], .in_place = n % 2};
        check(context, set, &c);
      }
}

Test(halves, every_logit) { for_each_set(every_logit); }

static void any_place(tare_context *context, const char *set) {
  static const int32_t kinds[] = {TARE_LOSS_SIGMOID_CE, TARE_LOSS_SIGMOID_FOCAL, TARE_LOSS_SOFTMAX_CE};
  static const int64_t classes[] = {1, 2, 3, 5, 15, 20, 31, 64, 67, 80, 91, 1100};
  for (int turn = 0; turn < 288; turn++) {
    const int64_t some = classes[turn / 3 % 12];
    const call c = {.dtype = turn < 144 ? TARE_DTYPE_F16 : TARE_DTYPE_BF16,
                    .kind = kinds[turn % 3],
                    .rows = some > 1000 ? 3 : 37 + turn % 5,
                    .classes = some,
                    .is_nchw = turn / 36 % 3 == 2,
                    .in_place = turn % 2,
                    .begin = (size_t)(turn % 19),
                    .gap = turn / 36 % 3 == 1 ? 1 + (size_t)(turn % 4) : 0,
                    .scale = turn % 4 ? 1 : 0.37f};
    for (size_t i = 0; i < ROOM && turn % 144 == 0; i++)
      store_element(logits, i, c.dtype, ((double)(i * 2654435761u >> 16 & 1023) - 512) / 64);
    if (c.kind == TARE_LOSS_SOFTMAX_CE && some > 15 && some < 64) continue; /* f32 goes class after class there */
    draw_labels(some);
    check(context, set, &c);
  }
}

Test(halves, any_place) { for_each_set(any_place); }
