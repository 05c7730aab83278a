/* SPDX-License-Identifier: Apache-2.0 */
/* z-loss of softmax rows, against the oracle: alone, with label smoothing, and with offsets of classes. */
#include "negatives.h"

static const int64_t widths[] = {1, 2, 3, 17, 81, 130, 300, 1203};
static const double factors[] = {1e-4, 0.5, 1e-30, 0.01};

/* What is subtracted where LSE or 1 + 2*z_loss*LSE is near 0: terms of the size of logits. */
static problem *with_z_loss(int32_t dtype, int64_t classes, size_t n, int32_t level_count, const level_shape *shapes) {
  const int32_t kind = n % 3 ? TARE_LOSS_SOFTMAX_CE : TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED;
  problem *p = problem_new_levels(kind, dtype, 2, classes, level_count, shapes);
  const double factor = factors[n % COUNT(factors)];
  set(p, "z_loss", factor);
  if (n % 3 == 1) set(p, "label_smoothing", 0.1);
  p->slack = 8 * slack_of(dtype) * (1 + 20 * factor);
  return p;
}

Test(negatives, z_loss_in_every_layout) {
  static const level_shape shapes[] = {{4, 5, 3}, {2, 3, 3}};
  FOR_EACH_DEVICE(device) {
    for (size_t way = 0; way < 48; way++) {
      problem *p = with_z_loss(dtypes[way / 4 % 4], widths[way / 2 % COUNT(widths)], way, test_size(2, 1), shapes);
      check_in_layout(p, way, device);
    }
  }
}

/* Each number at the label, then at another class; and rows of one number. A class may be excluded, another is -inf. */
Test(negatives, z_loss_far_out) {
  FOR_EACH_DEVICE(device) {
    for (size_t n = 0; n < 24; n++) {
      const int64_t rows = 3 * (int64_t)COUNT(far_logits), classes = n % 2 ? 3 : 20;
      const level_shape shape = {.height = rows, .width = 1, .anchors = 1};
      problem *p = with_z_loss(dtypes[n % 4], classes, n, 1, &shape);
      put_far_rows(p);
      for (int64_t row = 0; row < p->rows && n & 8; row++) p->logits[row * classes + 2] = -INFINITY;
      if (n & 4 && p->offset != NULL) p->offset[1] = -INFINITY;
      p->want &= ~(unsigned)WANT_LOSS;
      check(p, device);
    }
  }
}

/* LSE is a logit of x beside one that is 0, and z_loss*LSE^2 is known. LSE^2 may exceed the type, and the loss not. */
Test(negatives, z_loss_of_a_huge_logit) {
  static const struct {
    int32_t dtype;
    double x, factor, loss;
  } cases[] = {{TARE_DTYPE_F32, 1e20, 1e-4, 1e36},     {TARE_DTYPE_F32, 3e38, 1e-4, INFINITY},
               {TARE_DTYPE_F32, 3e38, 1e-40, 9e36},    {TARE_DTYPE_BF16, 1e30, 1e-30, 1e30},
               {TARE_DTYPE_F64, 1e200, 1e-300, 1e100}, {TARE_DTYPE_F64, 1e200, 1e-4, INFINITY}};
  FOR_EACH_DEVICE(device) {
    for (size_t i = 0; i < 4 * COUNT(cases); i++) {
      const int32_t dtype = cases[i / 4].dtype;
      if (!device_computes(device, TARE_LOSS_SOFTMAX_CE, dtype)) continue;
      problem *p = problem_new(TARE_LOSS_SOFTMAX_CE, dtype, 2, 2);
      const double x = round_to_dtype(dtype, cases[i / 4].x), sign = i % 4 < 2 ? 1 : -1;
      set(p, "z_loss", cases[i / 4].factor);
      p->place[ARRAY_LOGITS].channels_first = i % 2;
      for (int64_t row = 0; row < 2; row++) { /* of -x the other logit is as far */
        p->labels[row] = 0;
        p->logits[2 * row] = sign * x;
        p->logits[2 * row + 1] = sign > 0 ? 0 : -x;
      }
      outcome *o = problem_run(p, device);
      CHECK_NEAR(problem_text(p), o->row_loss[0], cases[i / 4].loss, ((tolerance){0, 1e-2}));
      cr_assert(sign < 0 || o->gradient[1] == 0, "%s: %g", problem_text(p), o->gradient[1]);
      cr_assert(sign * o->gradient[0] > 0 && (sign > 0 || o->gradient[0] <= o->gradient[1]));
      outcome_free(o);
      problem_free(p);
    }
  }
}
