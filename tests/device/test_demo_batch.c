/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The batch that Tare is for: 100,000 anchors of 80 classes, nearly all background, against the oracle, with the counts
 * that a detector has. Once for each way to sum so many losses; the other losses have a tenth of the rows.
 */
#include <criterion/criterion.h>

#include "support/numbers.h"
#include "support/problem.h"
#include "support/random.h"

/* A trained detector's logits: background near -7, the labelled class of a positive row around 1. */
static problem *demo_batch(int32_t kind, int32_t dtype, int64_t rows) {
  problem *p = problem_new(kind, dtype, rows, kind == TARE_LOSS_GHM_R ? 4 : 80);
  random_source source = random_from(2017);
  problem_draw_labels(p, 0.004, 0.02);
  if (kind == TARE_LOSS_GHM_R) return p;
  for (int64_t row = 0; row < p->rows; row++) {
    for (int64_t c = 0; c < p->classes; c++) {
      const double centre = p->labels[row] == c ? 1 : -7;
      p->logits[row * p->classes + c] = round_to_dtype(dtype, centre + 1.5 * random_normal(&source));
    }
  }
  p->want = WANT_LOSS | WANT_GRADIENT | WANT_ROW_LOSS | WANT_COUNTS;
  return p;
}

/* One loss of each kernel shape. */
static int64_t rows_of(int32_t kind) {
  const bool is_whole = kind == TARE_LOSS_SIGMOID_CE || kind == TARE_LOSS_SIGMOID_FOCAL ||
                        kind == TARE_LOSS_SOFTMAX_CE || kind == TARE_LOSS_SOFTMAX_TWO_HOT || is_ghm(kind);
  return test_size(is_whole ? 100000 : 10000, 1000);
}

static void check_demo(const test_device *device, int32_t kind, int32_t dtype) {
  problem *p = demo_batch(kind, dtype, rows_of(kind));
  if (dtype == TARE_DTYPE_F16) p->gradient_scale = 1024; /* as training in f16 does */
  if (is_ghm(kind)) p->gradient_scale *= 1e6;            /* a GHM gradient sums to about 1 over 8,000,000 elements */
  CHECK_PROBLEM(p, device);
  problem_free(p);
}

Test(demo_batch, each_loss_in_f32) {
  FOR_EACH_DEVICE(device) { FOR_EACH_LOSS(kind) check_demo(device, kind, TARE_DTYPE_F32); }
}

Test(demo_batch, focal_in_half_types) {
  FOR_EACH_DEVICE(device) {
    check_demo(device, TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F16);
    check_demo(device, TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_BF16);
  }
}

/* A quarter of the batch as one image's NCHW head of 25,000 anchors, in place. */
Test(demo_batch, each_loss_as_a_head_in_place) {
  static const level_shape whole = {100, 125, 2}, small = {5, 25, 8};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      problem *p = demo_batch(kind, TARE_DTYPE_F32, test_size(25000, 1000));
      p->levels[0] = test_small() ? small : whole;
      cr_assert_eq(p->levels[0].height * p->levels[0].width * p->levels[0].anchors, p->rows);
      p->place[ARRAY_LOGITS].channels_first = p->place[ARRAY_TARGETS].channels_first = true;
      p->in_place = true;
      if (is_ghm(kind)) p->gradient_scale = 1e6;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}
