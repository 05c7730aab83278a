/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax rows with targets between two bins, against the oracle: distribution focal loss and two-hot cross-entropy. */
#include <criterion/criterion.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/head.h"
#include "support/numbers.h"
#include "support/problem.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define FOR_EACH_LOSS_OF_BINS(kind)                                                                                    \
  for (int32_t kind##_at = 0, kind; kind##_at < listed_losses() && (kind = listed_loss(kind##_at), true); kind##_at++) \
    if (takes_bins(kind))

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};

/* What may be lost where p and target cancel. */
static double slack_of(int32_t dtype) { return dtype == TARE_DTYPE_F64 ? 1e-14 : 3e-6; }

static void add_bins(problem *p, int32_t score_dtype) {
  problem_draw_bins(p, score_dtype);
  p->slack = slack_of(p->dtype);
}

static problem *binned(int32_t kind, int32_t dtype, int32_t score_dtype, int64_t rows, int64_t classes) {
  problem *p = problem_new(kind, dtype, rows, classes);
  add_bins(p, score_dtype);
  return p;
}

/* ---- Values ---------------------------------------------------------------------------------------------------- */

Test(bins, every_type) {
  static const int64_t classes[] = {16, 17, 33, 7};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS_OF_BINS(kind) {
      for (size_t n = 0; n < COUNT(dtypes) * COUNT(dtypes) * COUNT(classes); n++) {
        const int32_t dtype = dtypes[n % 4], score_dtype = dtypes[n / 4 % 4];
        if (score_dtype == TARE_DTYPE_F64 && dtype != TARE_DTYPE_F64) continue;
        problem *p = binned(kind, dtype, score_dtype, test_size(300, 60), classes[n / 16]);
        if (kind == TARE_LOSS_SOFTMAX_DISTRIBUTION_FOCAL) p->loss.distribution_focal.delta = n % 3 == 0 ? 0.01 : 0;
        CHECK_PROBLEM(p, device);
        p->in_place = true;
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

Test(bins, sizes) {
  static const int64_t classes[] = {1, 2, 3, 15, 16, 17, 33, 93, 94, 121, 122, 1203, 2049, 20011};
  static const int64_t rows[] = {1, 2, 17, 1000};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS_OF_BINS(kind) {
      for (size_t n = 0; n < COUNT(classes) * COUNT(rows); n++) {
        if (rows[n % 4] * classes[n / 4] > test_size(400000, 20100)) continue;
        problem *p = binned(kind, dtypes[n % 3], TARE_DTYPE_F32, rows[n % 4], classes[n / 4]);
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

Test(bins, every_weight_and_normalizer) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS_OF_BINS(kind) {
      for (int32_t normalizer = TARE_NORMALIZER_SUM; normalizer <= TARE_NORMALIZER_ONES; normalizer++) {
        problem *p = binned(kind, TARE_DTYPE_F32, TARE_DTYPE_F32, test_size(900, 70), 17);
        problem_draw_row_weights(p);
        if (takes_bins(kind) == 2) p->class_weights = random_class_weights(p, 2);
        p->normalizer = normalizer;
        p->normalizer_value = 9.5;
        p->gradient_scale = -128;
        p->want |= WANT_NORMALIZER_SUMS;
        p->slack *= 128 * 12;
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* ---- Layouts --------------------------------------------------------------------------------------------------- */

Test(bins, every_layout) {
  static const level_shape shapes[] = {{4, 5, 4}, {2, 3, 4}, {8, 8, 4}};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS_OF_BINS(kind) {
      for (int way = 0; way < 24; way++) {
        problem *p = problem_new_levels(kind, dtypes[way % 4], 2, way & 4 ? 17 : 8, 3, shapes);
        add_bins(p, TARE_DTYPE_F16);
        p->place[ARRAY_LOGITS].channels_first = p->place[ARRAY_GRADIENT].channels_first = way & 1;
        p->image_major = (way & 2) != 0;
        p->in_place = way % 3 == 0;
        if (!p->image_major) {
          p->place[ARRAY_SCORES].channels_first = way & 4;
          p->place[ARRAY_SCORES].pad[AXIS_X] = way % 3;
          p->place[ARRAY_SCORES].flip = way % 5 == 0 ? 1u << AXIS_Y | 1u << AXIS_CLASS : 0;
        }
        if (way & 8) p->want = WANT_LOSS | WANT_GRADIENT | WANT_COUNTS;
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* Labels that are no bins, and none at all. */
Test(bins, labels_of_a_float_target_only_mark_rows) {
  FOR_EACH_DEVICE(device) {
    for (int n = 0; n < 8; n++) {
      problem *p = binned(TARE_LOSS_SOFTMAX_DISTRIBUTION_FOCAL, dtypes[n % 4], TARE_DTYPE_F32, test_size(300, 50), 17);
      p->normalizer = n % 2 ? TARE_NORMALIZER_POSITIVES : TARE_NORMALIZER_ROWS;
      p->background_label = n < 4 ? 80 : 3;
      for (int64_t row = 0; row < p->rows; row++)
        p->labels[row] = row % 7 == 0 ? p->ignore_label : row % 3 == 0 ? p->background_label : 4 + row % 76;
      CHECK_PROBLEM(p, device);
      free(p->labels);
      p->labels = NULL;
      CHECK_PROBLEM(p, device);
      p->scores[1] = NAN;
      outcome *o = problem_run(p, device), *want = problem_expect(p);
      cr_assert_eq(want->counts.positives, p->rows - 1);
      o->status = TARE_STATUS_OK;
      CHECK_OUTCOME(p, o, want);
      outcome_free(o);
      outcome_free(want);
      problem_free(p);
    }
  }
}

/* ---- What a target means --------------------------------------------------------------------------------------- */

/* A whole target, or one weight, is the label. No row cancels, so that there is no slack. */
Test(bins, of_one_are_labels) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS_OF_BINS(kind) {
      for (size_t n = 0; n < 2 * COUNT(dtypes); n++) {
        problem *p = problem_new(kind, dtypes[n % 4], test_size(300, 60), 17);
        if (n & 4) p->place[ARRAY_LOGITS].channels_first = p->place[ARRAY_GRADIENT].channels_first = true;
        for (int64_t row = 0; row < p->rows; row++) p->labels[row] = row % 17;
        outcome *labels = problem_run(p, device);
        problem_draw_bins(p, TARE_DTYPE_F32);
        for (int64_t row = 0; row < p->rows; row++) {
          if (takes_bins(kind) == 1) p->scores[row] = (double)p->labels[row];
          if (takes_bins(kind) == 1) continue;
          const bool is_right = row % 2 && p->labels[row] > 0;
          p->labels[row] -= is_right;
          p->scores[2 * row + is_right] = 1;
          p->scores[2 * row + !is_right] = 0;
        }
        outcome *bins = problem_run(p, device);
        CHECK_OUTCOME(p, bins, labels);
        outcome_free(labels);
        outcome_free(bins);
        problem_free(p);
      }
    }
  }
}

/* Without scores both losses are softmax CE. */
Test(bins, without_scores_are_labels) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS_OF_BINS(kind) {
      problem *p = problem_new(kind, TARE_DTYPE_F32, test_size(300, 60), 17);
      outcome *bins = problem_run(p, device);
      tare_loss_spec_init(&p->loss, TARE_LOSS_SOFTMAX_CE);
      outcome *labels = problem_run(p, device);
      CHECK_SAME_OUTCOME(p, bins, labels);
      outcome_free(labels);
      outcome_free(bins);
      problem_free(p);
    }
  }
}

/* ---- Far out --------------------------------------------------------------------------------------------------- */

Test(bins, far_out) {
  static const double far[] = {INFINITY, -INFINITY, NAN, 125, -125, 3e4, -3e4, 0, 1e-30, 16};
  static const double targets[] = {0, 1e-30, 0.25, 1, 1.5, 1.9999, 2};
  enum { FAR = COUNT(far), TARGETS = COUNT(targets) };
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS_OF_BINS(kind) {
      for (size_t n = 0; n < 2 * COUNT(dtypes); n++) {
        problem *p = binned(kind, dtypes[n % 4], TARE_DTYPE_F32, FAR * FAR * TARGETS, 3);
        if (n & 4) p->place[ARRAY_LOGITS].channels_first = p->place[ARRAY_GRADIENT].channels_first = true;
        for (int64_t row = 0; row < p->rows; row++) {
          const double target = (double)(float)targets[row / (FAR * FAR)];
          double *x = p->logits + 3 * row;
          x[0] = round_to_dtype(p->dtype, far[row % FAR]);
          x[1] = round_to_dtype(p->dtype, far[row / FAR % FAR]);
          x[2] = 0.5;
          p->labels[row] = target >= 1;
          if (takes_bins(kind) == 1) p->scores[row] = target;
          if (takes_bins(kind) == 2) p->scores[2 * row] = 2 - target;
          if (takes_bins(kind) == 2) p->scores[2 * row + 1] = target;
        }
        p->want &= ~(unsigned)WANT_LOSS;
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* Losses have no slack: no term of theirs is below 0. */
Test(bins, losses_lose_nothing) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS_OF_BINS(kind) {
      for (size_t n = 0; n < COUNT(dtypes); n++) {
        problem *p = binned(kind, dtypes[n], TARE_DTYPE_F32, test_size(4000, 400), 17);
        for (int64_t i = 0; i < p->rows * 17; i++)
          p->logits[i] = round_to_dtype(p->dtype, p->logits[i] * (i / 17 % 4 == 0 ? 30 : 3));
        for (int64_t row = 0; row < p->rows; row++) { /* tiny shares beside confident bins */
          const int64_t left = row % 16, bin = left + row / 16 % 2;
          p->logits[17 * row + bin] = round_to_dtype(p->dtype, 20 + (double)(row % 50));
          p->labels[row] = left;
          const double share = (double)(float)ldexp(1, -(int)(row % 21));
          if (takes_bins(kind) == 1) p->scores[row] = (double)(float)((double)left + share);
          if (takes_bins(kind) == 2) p->scores[2 * row] = (double)(float)(1 - share);
          if (takes_bins(kind) == 2) p->scores[2 * row + 1] = share * share;
        }
        p->slack = 0;
        p->want = WANT_LOSS | WANT_ROW_LOSS;
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* Two bins of a small probability, the larger one of them with a small share: p - target is neither p - 1 nor p. */
static problem *beside_a_peak(int32_t kind, int32_t dtype) {
  enum { ROWS = 64, CLASSES = 17 };
  problem *p = binned(kind, dtype, TARE_DTYPE_F32, ROWS, CLASSES);
  for (int64_t row = 0; row < ROWS; row++) {
    double *x = p->logits + CLASSES * row;
    const int64_t larger = row % 2;
    const double share = ldexp(1, -20 - (int)(row / 2 % 4));
    for (int64_t c = 0; c < CLASSES; c++) x[c] = c == 16 ? 0 : c == larger ? -13 : -14; /* 1e-6 for all but one */
    p->labels[row] = 0;
    if (takes_bins(kind) == 1) p->scores[row] = larger ? share : 1 - share;
    if (takes_bins(kind) == 2) p->scores[2 * row + larger] = share;
    if (takes_bins(kind) == 2) p->scores[2 * row + !larger] = 1;
  }
  p->slack = 1e-11;
  return p;
}

/* Only the operands of p - target may be lost: here 1e-6 and less. */
Test(bins, a_small_share_keeps_its_probability) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS_OF_BINS(kind) {
      for (size_t n = 0; n < 2 * COUNT(dtypes); n++) {
        problem *p = beside_a_peak(kind, dtypes[n / 2]);
        if (n & 1) p->place[ARRAY_LOGITS].channels_first = p->place[ARRAY_GRADIENT].channels_first = true;
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* ---- Out of range ---------------------------------------------------------------------------------------------- */

/* The oracle's outcome, and the status that names the row. */
static void expect_invalid(problem *p, const test_device *device, int64_t row) {
  outcome *o = problem_run(p, device), *want = problem_expect(p);
  const bool on_cpu = o->device->kind == TARE_DEVICE_CPU;
  char name[64];
  cr_assert_eq(on_cpu ? o->status : o->check_status, TARE_STATUS_INVALID_TARGET, "%s: %s, %s: %s", problem_text(p),
               tare_status_name(o->status), tare_status_name(o->check_status), o->text);
  snprintf(name, sizeof name, "score of row %" PRId64, row);
  cr_assert_not_null(strstr(o->text, name), "no '%s' in: %s", name, o->text);
  cr_assert_gt(want->counts.invalid, 0);
  o->status = TARE_STATUS_OK; /* what it wrote is right */
  CHECK_OUTCOME(p, o, want);
  for (int64_t c = 0; c < p->classes && o->gradient; c++) cr_assert_eq(o->gradient[row * p->classes + c], 0);
  outcome_free(o);
  outcome_free(want);
}

Test(bins, that_are_not_finite_leave_the_row_out) {
  static const double bad[] = {NAN, INFINITY, -INFINITY};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS_OF_BINS(kind) {
      for (size_t n = 0; n < COUNT(bad) * COUNT(dtypes); n++) {
        problem *p = binned(kind, dtypes[n % 4], dtypes[n % 3], 90, n % 2 ? 17 : 300);
        const int64_t rows[] = {13, 31, 89}, columns = score_columns(p);
        for (size_t i = 0; i < COUNT(rows); i++) {
          p->labels[rows[i]] = 4;
          p->scores[rows[i] * columns + (int64_t)(n + i) % columns] = bad[n / 4];
        }
        p->in_place = n % 2 == 0;
        p->normalizer = (int32_t)(n % 5);
        expect_invalid(p, device, 13);
        p->place[ARRAY_LOGITS].channels_first = p->place[ARRAY_GRADIENT].channels_first = true;
        expect_invalid(p, device, 13);
        problem_free(p);
      }
    }
  }
}

Test(bins, of_weights_out_of_range_leave_the_row_out) {
  static const double bad[] = {-1e-6, 2e30};
  FOR_EACH_DEVICE(device) {
    for (size_t n = 0; n < 8; n++) {
      problem *p = binned(TARE_LOSS_SOFTMAX_TWO_HOT, dtypes[n % 4], TARE_DTYPE_F32, 60, 17);
      p->labels[7] = 16; /* the last bin has no bin after it */
      p->scores[14] = 1;
      p->scores[15] = n < 4 ? 0.5 : 0;
      p->labels[n < 4 ? 8 : 6] = 3;
      p->scores[(n < 4 ? 16 : 12) + (int64_t)(n % 2)] = (double)(float)bad[n / 2 % 2];
      expect_invalid(p, device, n < 4 ? 7 : 6);
      problem_free(p);
    }
  }
}

/* Rows without a class, ignored, or of weight 0. */
Test(bins, that_are_not_read_may_be_anything) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS_OF_BINS(kind) {
      for (size_t d = 0; d < COUNT(dtypes); d++) {
        problem *p = binned(kind, dtypes[d], TARE_DTYPE_F32, 200, 17);
        problem_draw_row_weights(p);
        p->slack *= 4;
        for (int64_t row = 0; row < p->rows; row++)
          for (int64_t k = 0; k < score_columns(p) && (p->labels[row] < 0 || p->row_weights[row] == 0); k++)
            p->scores[row * score_columns(p) + k] = row % 2 ? NAN : -1e30;
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* ---- The fused head -------------------------------------------------------------------------------------------- */

Test(bins, of_a_fused_head) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    FOR_EACH_LOSS_OF_BINS(kind) {
      problem *p = head_problem(kind, TARE_DTYPE_F32, test_size(3000, 1300), 17, 6);
      add_bins(p, TARE_DTYPE_F16);
      p->head->room = 0; /* several chunks */
      p->normalizer = TARE_NORMALIZER_POSITIVES;
      CHECK_PROBLEM(p, device);
      p->labels[1111] = 3; /* beyond the first chunk of any device */
      p->scores[1111 * score_columns(p)] = NAN;
      expect_invalid(p, device, 1111);
      problem_free(p);
    }
  }
}
