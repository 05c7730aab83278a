/* SPDX-License-Identifier: Apache-2.0 */
/* Class masks against the oracle: losses, types, layouts, targets, divisors and what nothing may come of. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "support/numbers.h"
#include "support/parameters.h"
#include "support/problem.h"

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};
static const level_shape levels[] = {{5, 3, 2}, {0, 3, 2}, {1, 1, 3}};

#define FOR_EACH_MASKED_LOSS(kind) FOR_EACH_LOSS(kind) if (describe_loss(kind).family == TARE_LOSS_FAMILY_SIGMOID)

/* Three images, with labels of masked classes among those of others. */
static problem *drawn(int32_t kind, int32_t dtype, int64_t classes) {
  problem *p = problem_new_levels(kind, dtype, 3, classes, 3, levels);
  problem_draw_class_mask(p, 0.4);
  p->want |= WANT_CLASS_SUMS;
  if (!is_ghm(kind)) p->normalizer = TARE_NORMALIZER_ELEMENTS;
  if (!is_ghm(kind)) p->want |= WANT_NORMALIZER_SUMS;
  return p;
}

Test(class_mask, losses) {
  static const int64_t classes[] = {1, 3, 8, 80, 91, 1203};
  FOR_EACH_DEVICE(device) {
    int turn = 0;
    FOR_EACH_MASKED_LOSS(kind) {
      for (int d = 0; d < 4; d++, turn++) {
        if (!device_computes(device, kind, dtypes[d])) continue;
        problem *p = drawn(kind, dtypes[d], classes[turn % 6]);
        p->mask_place.is_one = turn % 5 == 0;
        if (turn % 3 == 0) problem_draw_row_weights(p);
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* Without row and element losses a GPU takes vectors, and NCHW maps class by class. */
static void place(problem *p, int layout) {
  p->place[ARRAY_LOGITS].channels_first = p->place[ARRAY_GRADIENT].channels_first = layout % 2;
  if (layout / 2 % 2) p->want &= ~(unsigned)(WANT_ROW_LOSS | WANT_ELEMENT_LOSS | WANT_CLASS_SUMS);
  if (layout / 4 % 2) p->place[ARRAY_LOGITS].phase = 1;
  p->in_place = layout % 3 == 0 && layout / 4 % 2;
  p->mask_place = (mask_placement){.is_one = layout % 5 == 4,
                                   .flips = layout / 8 % 2,
                                   .channels_first = layout % 3 == 1,
                                   .class_pad = layout % 3,
                                   .image_pad = layout % 4};
}

Test(class_mask, layouts) {
  static const int32_t kinds[] = {TARE_LOSS_SIGMOID_FOCAL, TARE_LOSS_SIGMOID_POLY1, TARE_LOSS_GHM_C,
                                  TARE_LOSS_SIGMOID_ASYMMETRIC, TARE_LOSS_SIGMOID_QUALITY_FOCAL};
  static const level_shape maps[] = {{8, 8, 1}, {4, 4, 2}, {3, 5, 1}};
  FOR_EACH_DEVICE(device) {
    for (int k = 0; k < 5; k++)
      for (int layout = 0; layout < 16; layout++) {
        const int32_t dtype = layout % 7 == 6 ? TARE_DTYPE_BF16 : TARE_DTYPE_F32;
        problem *p = problem_new_levels(kinds[k], dtype, 3, layout % 2 ? 20 : 17, 3, maps);
        problem_draw_class_mask(p, 0.5);
        place(p, layout);
        if (kinds[k] == TARE_LOSS_SIGMOID_FOCAL && layout % 4 == 2) p->alpha_per_class = random_class_weights(p, 3);
        for (int64_t c = 0; p->alpha_per_class != NULL && c < p->classes; c++)
          p->alpha_per_class[c] = (double)(float)(p->alpha_per_class[c] / 2.2);
        if (kinds[k] != TARE_LOSS_GHM_C && layout % 4 == 3) problem_draw_element_weights(p);
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
  }
}

/* An image of one row each: rows that follow each other have masks of their own. */
Test(class_mask, rows_of_several_images) {
  static const level_shape row = {1, 1, 1};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_MASKED_LOSS(kind) {
      for (int manner = 0; manner < 4; manner++) {
        problem *p = problem_new_levels(kind, TARE_DTYPE_F32, 70, manner % 2 ? 3 : 33, 1, &row);
        problem_draw_class_mask(p, 0.6);
        p->want |= manner / 2 ? WANT_CLASS_SUMS : 0;
        if (manner / 2 == 0) p->want &= ~(unsigned)(WANT_ROW_LOSS | WANT_ELEMENT_LOSS);
        if (!is_ghm(kind)) p->normalizer = TARE_NORMALIZER_ELEMENTS;
        if (takes_scores(kind) && manner == 3) problem_draw_scores(p, TARE_DTYPE_F32);
        if (p->scores != NULL) p->slack = 2e-5;
        problem_keep_off_p(p);
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* Targets and scores of masked elements are not looked at. */
static void spoil_what_is_masked(problem *p) {
  int64_t row = 0;
  for (int32_t l = 0; l < p->level_count; l++) {
    const int64_t rows = p->levels[l].height * p->levels[l].width * p->levels[l].anchors;
    for (int64_t i = 0; i < p->images * rows; i++, row++)
      for (int64_t c = 0; c < p->classes; c++) {
        if (p->class_mask[i / rows * p->classes + c]) continue;
        p->logits[row * p->classes + c] = (row + c) % 2 ? NAN : INFINITY;
        if (p->targets != NULL) p->targets[row * p->classes + c] = c % 2 ? NAN : 7;
        if (p->scores != NULL && p->labels[row] - p->first_label == c) p->scores[row] = NAN;
      }
  }
}

Test(class_mask, targets_and_scores) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_MASKED_LOSS(kind) {
      for (int manner = 0; manner < 6; manner++) {
        const bool dense = manner % 2;
        if (dense ? !takes_targets(kind) : !takes_scores(kind)) continue;
        problem *p = drawn(kind, TARE_DTYPE_F32, 12);
        p->slack = 2e-5;
        if (dense) problem_draw_targets(p, TARE_DTYPE_F32);
        if (!dense) problem_draw_scores(p, TARE_DTYPE_F32);
        problem_keep_off_p(p);
        if (!is_ghm(kind)) p->normalizer = manner < 4 ? TARE_NORMALIZER_TARGETS : TARE_NORMALIZER_ONES;
        if (manner / 2 % 2) p->place[ARRAY_LOGITS].channels_first = p->place[ARRAY_TARGETS].channels_first = true;
        if (manner == 3) p->want &= ~(unsigned)(WANT_ROW_LOSS | WANT_ELEMENT_LOSS);
        spoil_what_is_masked(p);
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

Test(class_mask, divisors) {
  FOR_EACH_DEVICE(device) {
    for (int32_t normalizer = TARE_NORMALIZER_SUM; normalizer <= TARE_NORMALIZER_ONES; normalizer++)
      for (int scope = 0; scope < 2; scope++) {
        problem *p = drawn(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, 20);
        const bool is_formed = normalizer != TARE_NORMALIZER_SUM && normalizer != TARE_NORMALIZER_VALUE;
        p->normalizer = normalizer;
        p->normalizer_value = 3;
        if (is_formed && scope) p->normalizer_scope = TARE_NORMALIZER_SCOPE_LEVEL;
        if (scope) p->want |= WANT_LEVEL_LOSSES;
        p->class_weights = random_class_weights(p, 3);
        p->negative_weights = scope ? random_class_weights(p, 4) : NULL;
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
  }
}

/* Nothing is left of a masked element, whatever stands there; all other rows of the image are as they were. */
Test(class_mask, extremes) {
  static const double extremes[] = {INFINITY, -INFINITY, NAN, 125, -125, 1e30};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_MASKED_LOSS(kind) {
      for (size_t e = 0; e < 6; e++) {
        problem *p = drawn(kind, TARE_DTYPE_F32, 9);
        p->place[ARRAY_LOGITS].channels_first = e % 2;
        spoil_what_is_masked(p);
        for (int64_t row = 0; row < p->rows && !is_ghm(kind); row += 3) p->logits[row * 9 + row % 9] = extremes[e];
        if (e == 3) p->want &= ~(unsigned)(WANT_ROW_LOSS | WANT_ELEMENT_LOSS);
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* Weights that are not finite make elements so that count, and leave those alone that do not. */
Test(class_mask, weights_that_are_not_finite) {
  static const double bad[] = {NAN, INFINITY, -INFINITY};
  FOR_EACH_DEVICE(device) {
    for (int b = 0; b < 6; b++) {
      problem *p = problem_new(b % 2 ? TARE_LOSS_SIGMOID_FOCAL : TARE_LOSS_SIGMOID_POLY1, TARE_DTYPE_F32, 40, 20);
      problem_draw_row_weights(p);
      problem_draw_element_weights(p);
      p->positive_weights = random_class_weights(p, 2);
      p->class_mask = calloc(20, 1);
      for (int64_t c = 0; c < 20; c += 2) p->class_mask[c] = 1;
      p->row_weights[7] = p->row_weights[20] = bad[b / 2];
      p->element_weights[3 * 20 + 5] = p->positive_weights[9] = bad[b / 2];
      p->want = WANT_GRADIENT | WANT_ELEMENT_LOSS;
      outcome *o = problem_run(p, device);
      cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
      for (int64_t i = 0; i < 40 * 20; i++) {
        if (i % 20 % 2 == 0) continue;
        cr_assert(o->gradient[i] == 0 && !signbit(o->gradient[i]), "gradient %lld is %g", (long long)i, o->gradient[i]);
        cr_assert(o->element_loss[i] == 0, "loss %lld is %g", (long long)i, o->element_loss[i]);
      }
      outcome_free(o);
      problem_free(p);
    }
  }
}

/* Without an element that counts the divisor is 1 and the loss 0; rows and positives are still there. */
Test(class_mask, everything_masked) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_MASKED_LOSS(kind) {
      for (int32_t normalizer = 0; normalizer <= TARE_NORMALIZER_ONES; normalizer++) {
        if (is_ghm(kind) && normalizer) continue;
        problem *p = drawn(kind, TARE_DTYPE_F32, 6);
        for (int64_t i = 0; i < 3 * 6; i++) p->class_mask[i] = 0;
        p->normalizer = normalizer;
        outcome *o = problem_run(p, device), *want = problem_expect(p);
        cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
        cr_assert_eq(o->loss, 0);
        for (int64_t i = 0; i < p->rows * 6; i++) cr_assert_eq(o->gradient[i], 0);
        for (int64_t c = 0; c < 4 * 6; c++) cr_assert_eq(o->class_sums[c], 0);
        cr_assert_eq(o->counts.counted, want->counts.counted);
        cr_assert_eq(o->counts.positives, want->counts.positives);
        outcome_free(o);
        outcome_free(want);
        problem_free(p);
      }
    }
  }
}

Test(class_mask, no_rows) {
  static const level_shape none = {0, 3, 2};
  FOR_EACH_DEVICE(device) {
    problem *p = problem_new_levels(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, 2, 5, 1, &none);
    problem_draw_class_mask(p, 0.5);
    p->normalizer = TARE_NORMALIZER_ELEMENTS;
    outcome *o = problem_run(p, device);
    cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
    cr_assert_eq(o->loss, 0);
    outcome_free(o);
    problem_free(p);
  }
}
