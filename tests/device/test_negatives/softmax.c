/* SPDX-License-Identifier: Apache-2.0 */
/* Label smoothing of softmax losses, against the oracle. */
#include "negatives.h"

static const int64_t widths[] = {1, 2, 3, 8, 17, 81, 300, 1203};
static const double smoothings[] = {0.1, 1e-30, 0.5, 1e-9, 1 - 1e-6};

static problem *smoothed(int32_t kind, int32_t dtype, int64_t rows, int64_t classes, size_t n) {
  problem *p = problem_new(kind, dtype, rows, classes);
  set(p, "label_smoothing", smoothings[n % COUNT(smoothings)]);
  if (kind == TARE_LOSS_SOFTMAX_FOCAL) {
    set(p, "smoothed", (double)(n % 2));
    set(p, "gamma", fmin(exponents[n / 2 % COUNT(exponents)], 5));
    set(p, "alpha", n % 3 ? 0.25 : -1);
  }
  p->slack = slack_of(dtype);
  return p;
}

Test(negatives, smoothed_softmax) {
  FOR_EACH_DEVICE(device) {
    for (size_t n = 0; n < 80; n++) {
      const int32_t kind = n % 5 ? TARE_LOSS_SOFTMAX_FOCAL : TARE_LOSS_SOFTMAX_CE;
      problem *p = smoothed(kind, dtypes[n / 3 % 4], test_size(60, 20), widths[n % COUNT(widths)], n);
      if (n % 7 == 0) problem_draw_row_weights(p);
      if (n & 4) p->want |= WANT_CLASS_SUMS;
      check(p, device);
    }
  }
}

Test(negatives, smoothed_softmax_in_every_layout) {
  static const level_shape shapes[] = {{4, 5, 3}, {2, 3, 3}, {8, 8, 3}};
  FOR_EACH_DEVICE(device) {
    for (size_t way = 0; way < 48; way++) {
      const int32_t kind = way % 3 ? TARE_LOSS_SOFTMAX_FOCAL : TARE_LOSS_SOFTMAX_CE;
      problem *p = problem_new_levels(kind, dtypes[way / 4 % 4], 2, widths[way % 6], test_size(3, 1), shapes);
      set(p, "label_smoothing", 0.2);
      if (way % 3) set(p, "smoothed", (double)(way / 2 % 2));
      p->slack = 4 * slack_of(p->dtype);
      check_in_layout(p, (size_t)way, device);
    }
  }
}

/* Each number at the label, then at another class; and rows of one number. */
Test(negatives, smoothed_softmax_far_out) {
  FOR_EACH_DEVICE(device) {
    for (size_t n = 0; n < 4 * 2 * COUNT(exponents); n++) {
      const int64_t rows = 3 * (int64_t)COUNT(far_logits), classes = n % 2 ? 3 : 20;
      const int32_t kind = n < 8 ? TARE_LOSS_SOFTMAX_CE : TARE_LOSS_SOFTMAX_FOCAL;
      problem *p = smoothed(kind, dtypes[n % 4], rows, classes, n / 4);
      put_far_rows(p);
      p->want &= ~(unsigned)WANT_LOSS;
      check(p, device);
    }
  }
}

/* In two classes the softmax of x and 0 is the sigmoid of x. */
Test(negatives, two_classes_are_smoothed_as_a_sigmoid_is) {
  FOR_EACH_DEVICE(device) {
    for (size_t n = 0; n < 4; n++) {
      problem *of_row = smoothed(TARE_LOSS_SOFTMAX_FOCAL, TARE_DTYPE_F32, 64, 2, 5 * n);
      problem *of_element = problem_new(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, 64, 1);
      of_element->loss.focal = of_row->loss.focal;
      of_element->loss.focal.alpha = of_row->loss.focal.alpha = -1;
      for (int64_t row = 0; row < 64; row++) {
        of_row->logits[2 * row] = of_element->logits[row] = 0.25 * (double)(row - 32);
        of_row->logits[2 * row + 1] = 0;
        of_row->labels[row] = row % 2;
        of_element->labels[row] = row % 2 ? -1 : 0;
      }
      outcome *rows = problem_run(of_row, device), *elements = problem_run(of_element, device);
      for (int64_t row = 0; row < 64; row++) {
        cr_assert_float_eq(rows->row_loss[row], elements->row_loss[row], 4e-6 * (1 + elements->row_loss[row]));
        cr_assert_float_eq(rows->gradient[2 * row], elements->gradient[row], 4e-6);
      }
      outcome_free(rows);
      outcome_free(elements);
      problem_free(of_row);
      problem_free(of_element);
    }
  }
}
