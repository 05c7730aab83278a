/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Targets that are exactly 0 or 1: what they weigh, and that a dense one is the label, bit for bit, in every loss,
 * type, layout and kind of weight.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/numbers.h"
#include "support/problem.h"
#include "support/random.h"

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};
enum { DTYPES = sizeof dtypes / sizeof *dtypes };

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void set_alpha(problem *p, double alpha) {
  if (p->loss.kind == TARE_LOSS_SIGMOID_CE) p->loss.ce.alpha = alpha;
  if (p->loss.kind == TARE_LOSS_SIGMOID_FOCAL) p->loss.focal.alpha = alpha;
  if (p->loss.kind == TARE_LOSS_SIGMOID_POLY1) p->loss.poly1.alpha = alpha;
}

/* One-hot targets of the labels. The labels stay, for the rows that they ignore. */
static void add_targets(problem *p, int32_t target_dtype) {
  p->target_dtype = taken_target_dtype(p->loss.kind, target_dtype);
  free(p->targets);
  p->targets = calloc((size_t)(p->rows * p->classes), sizeof *p->targets);
  for (int64_t row = 0; row < p->rows; row++) {
    if (p->labels[row] >= 0) p->targets[row * p->classes + p->labels[row]] = 1;
  }
}

/* ---- What they weigh ------------------------------------------------------------------------------------------- */

/* With labels, then with dense targets. */
static void check_both(problem *p, const test_device *device) {
  CHECK_PROBLEM(p, device);
  add_targets(p, TARE_DTYPE_F32);
  CHECK_PROBLEM(p, device);
  problem_free(p);
}

static const double alphas[] = {0.99, 0.9999, 1 - 1e-6, 1 - 1e-12, 0.3, 1e-4, 1e-9, 1e-20, 1e-30};

/* 1 - alpha comes from the caller's double. */
Test(targets, alpha_is_rounded_once) {
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_SIGMOID_CE; kind <= TARE_LOSS_SIGMOID_POLY1; kind++) {
      for (size_t a = 0; a < COUNT(alphas); a++) {
        for (size_t d = 0; d < DTYPES; d++) {
          problem *p = problem_new(kind, dtypes[d], test_size(200, 40), 9);
          set_alpha(p, alphas[a]);
          check_both(p, device);
        }
      }
    }
  }
}

Test(targets, alpha_of_each_class_is_rounded_once) {
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_SIGMOID_CE; kind <= TARE_LOSS_SIGMOID_POLY1; kind++) {
      for (size_t d = 0; d < DTYPES; d++) {
        problem *p = problem_new(kind, dtypes[d], test_size(200, 40), COUNT(alphas));
        p->alpha_per_class = calloc(COUNT(alphas), sizeof *p->alpha_per_class);
        for (size_t a = 0; a < COUNT(alphas); a++) p->alpha_per_class[a] = (double)(float)alphas[a];
        check_both(p, device);
      }
    }
  }
}

/* w at t = 1 and exactly 1 at t = 0, however small or large w is. */
Test(targets, positive_weight_is_the_weight_of_ones_alone) {
  static const double weights[] = {1e-3, 1e-9, 1e-30, 0.1, 3, 1e9, 1e30};
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_SIGMOID_CE; kind <= TARE_LOSS_SIGMOID_POLY1; kind++) {
      for (size_t d = 0; d < DTYPES; d++) {
        problem *p = problem_new(kind, dtypes[d], test_size(200, 40), COUNT(weights));
        p->want &= ~(unsigned)WANT_GRADIENT; /* 1e30 is beyond f16 */
        p->loss_dtype = TARE_DTYPE_F64;
        p->positive_weights = calloc(COUNT(weights), sizeof *p->positive_weights);
        for (size_t c = 0; c < COUNT(weights); c++) p->positive_weights[c] = (double)(float)weights[c];
        check_both(p, device);
      }
    }
  }
}

/* The factor of a class that no target of 1 has may be anything. */
Test(targets, positive_weight_of_no_one_is_not_used) {
  FOR_EACH_DEVICE(device) {
    problem *p = problem_new(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 30, 3);
    p->positive_weights = calloc(3, sizeof *p->positive_weights);
    for (int c = 0; c < 3; c++) p->positive_weights[c] = INFINITY;
    for (int64_t row = 0; row < p->rows; row++) p->labels[row] = p->background_label;
    problem *plain = problem_new(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 30, 3);
    memcpy(plain->labels, p->labels, 30 * sizeof *p->labels);
    outcome *want = problem_expect(plain);
    for (int dense = 0; dense < 2; dense++) {
      if (dense) add_targets(p, TARE_DTYPE_F32);
      outcome *got = problem_run(p, device);
      CHECK_OUTCOME(p, got, want);
      outcome_free(got);
    }
    outcome_free(want);
    problem_free(plain);
    problem_free(p);
  }
}

/* Between 0 and 1 nothing cancels either: a tiny weight of ones counts as what it is near t = 1. */
Test(targets, weights_of_targets_near_an_end) {
  FOR_EACH_DEVICE(device) {
    for (size_t d = 0; d < DTYPES; d++) {
      problem *p = problem_new(TARE_LOSS_SIGMOID_CE, dtypes[d], 40, 8);
      free(p->labels);
      p->labels = NULL;
      p->targets = calloc(320, sizeof *p->targets);
      p->positive_weights = calloc(8, sizeof *p->positive_weights);
      for (int c = 0; c < 8; c++) p->positive_weights[c] = (double)(float)pow(10, -c);
      for (int i = 0; i < 320; i++) {
        p->targets[i] = i / 8 % 2 ? 1 - 0x1p-24 * (1 + i / 8) : 0x1p-24 * (1 + i / 8);
        p->logits[i] = i / 8 % 2 ? -fabs(p->logits[i]) : fabs(p->logits[i]); /* far from t: p - t does not cancel */
      }
      p->loss.ce.alpha = 1e-7;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* ---- A dense one is the label ---------------------------------------------------------------------------------- */

static void expect_same_elements(const problem *p, const outcome *dense, const outcome *label) {
  char what[640];
  cr_assert_eq(dense->status, TARE_STATUS_OK, "%s", dense->text);
  cr_assert_eq(label->status, TARE_STATUS_OK, "%s", label->text);
  snprintf(what, sizeof what, "dense targets of %s", problem_text(p));
  if (p->want & WANT_GRADIENT) CHECK_SAME(what, dense->gradient, label->gradient, (size_t)label->elements);
  if (p->want & WANT_ROW_LOSS) CHECK_SAME(what, dense->row_loss, label->row_loss, (size_t)label->rows);
  if (p->want & WANT_ELEMENT_LOSS) CHECK_SAME(what, dense->element_loss, label->element_loss, (size_t)label->elements);
  if (p->want & WANT_LOSS) CHECK_NEAR(what, dense->loss, label->loss, loss_tolerance(p));
}

/* Logits of every size next to those that were drawn; a class next to the label often. */
static void add_special_logits(problem *p) {
  static const double special[] = {0,  1e-20, -1e-20, 1e-6, -1e-6, 20,  -20,   40,    -40,
                                   88, -88,   110,    -110, 0.375, 500, -3e30, -0.25, 17};
  for (int64_t i = 0; i < p->rows * p->classes; i += 3) {
    p->logits[i] = round_to_dtype(p->dtype, special[(size_t)(i / 3) % COUNT(special)]);
    if (isinf(p->logits[i])) p->logits[i] = -300;
  }
}

static void copy_ghm_state(problem *p, uint64_t *kept) {
  memcpy(kept, p->ghm_state, tare_ghm_state_bytes(p->loss.ghm.bins));
  memset(p->ghm_state, 0, tare_ghm_state_bytes(p->loss.ghm.bins));
}

/* Every output, then some of them, which may go another way. Frees the problem. */
static void expect_label(problem *p, int32_t target_dtype, const test_device *device) {
  static const unsigned wants[] = {WANT_ALL, WANT_LOSS | WANT_GRADIENT, WANT_ROW_LOSS, WANT_GRADIENT | WANT_ROW_LOSS};
  const unsigned possible = p->want;
  const bool has_state = p->ghm_state != NULL;
  uint64_t *kept = calloc(1, has_state ? tare_ghm_state_bytes(p->loss.ghm.bins) : 8);
  add_special_logits(p);
  for (size_t w = 0; w < COUNT(wants); w++) {
    p->want = wants[w] & possible & ~(unsigned)WANT_COUNTS; /* targets know no positives */
    outcome *label = problem_run(p, device);
    if (has_state) copy_ghm_state(p, kept);
    add_targets(p, target_dtype);
    outcome *dense = problem_run(p, device);
    expect_same_elements(p, dense, label);
    if (has_state)
      cr_assert_arr_eq(kept, p->ghm_state, tare_ghm_state_bytes(p->loss.ghm.bins), "state of %s", problem_text(p));
    if (has_state) copy_ghm_state(p, kept);
    outcome_free(label);
    outcome_free(dense);
    free(p->targets);
    p->targets = NULL;
  }
  free(kept);
  problem_free(p);
}

static const double gammas[] = {2, 0, 0.5, 1, 1.5, 3.7};

static problem *one_of_each(int32_t kind, int32_t dtype, size_t power, int64_t rows, int64_t classes) {
  problem *p = problem_new(kind, dtype, rows, classes);
  if (kind == TARE_LOSS_SIGMOID_FOCAL) p->loss.focal.gamma = gammas[power];
  if (kind == TARE_LOSS_SIGMOID_POLY1) p->loss.poly1.gamma = gammas[power];
  if (kind == TARE_LOSS_SOFTMAX_CE) problem_draw_labels(p, 0.9, 0.1); /* a row of zeros is no background there */
  return p;
}

static size_t powers_of(int32_t kind) {
  return kind == TARE_LOSS_SIGMOID_FOCAL || kind == TARE_LOSS_SIGMOID_POLY1 ? COUNT(gammas) : 1;
}

Test(targets, zeros_and_ones_are_the_label) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t d = 0; d < DTYPES && takes_targets(kind); d++) {
        for (size_t power = 0; power < powers_of(kind); power++)
          expect_label(one_of_each(kind, dtypes[d], power, test_size(300, 45), 17), dtypes[(d + power) % DTYPES],
                       device);
        expect_label(one_of_each(kind, dtypes[d], 0, test_size(300, 45), 32), TARE_DTYPE_F32,
                     device); /* whole vectors */
      }
    }
  }
}

/* Row, element, positive and class weights, alpha of each class, one by one and together. */
Test(targets, zeros_and_ones_weigh_what_the_label_weighs) {
  enum { ROW = 1, ELEMENT = 2, POSITIVE = 4, ALPHA = 8, ALPHA_PER_CLASS = 16, END = 32 };
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_SIGMOID_CE; kind <= TARE_LOSS_SIGMOID_POLY1; kind++) {
      for (size_t d = 0; d < DTYPES; d++) {
        for (unsigned which = 1; which < END; which++) {
          problem *p = one_of_each(kind, dtypes[d], which % COUNT(gammas), 40, 11);
          set_alpha(p, which & ALPHA ? 0.37 : -1);
          if (which & ROW) problem_draw_row_weights(p);
          if (which & ELEMENT) problem_draw_element_weights(p);
          if (which & POSITIVE) p->positive_weights = random_class_weights(p, 2);
          if (which & ALPHA_PER_CLASS) p->alpha_per_class = random_class_weights(p, 3);
          for (int c = 0; c < 11 && p->alpha_per_class; c++)
            p->alpha_per_class[c] = (double)(float)(p->alpha_per_class[c] / 2.2);
          if (which & ROW) p->gradient_scale = -1024;
          expect_label(p, TARE_DTYPE_F16, device);
        }
      }
    }
  }
}

Test(targets, zeros_and_ones_are_the_label_in_every_layout) {
  static const level_shape shapes[] = {{5, 7, 3}, {2, 3, 3}, {4, 8, 1}};
  static const placement places[] = {{.channels_first = true},
                                     {.channels_first = true, .phase = 3},
                                     {.pad = {0, 0, 0, 0, 3}, .phase = 1},
                                     {.flip = 1u << AXIS_CLASS}};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t d = 0; d < DTYPES && takes_targets(kind); d++) {
        for (size_t i = 0; i < COUNT(places); i++) {
          if (!test_is_due(kind, (int)(4 * d + i))) continue;
          const bool planes_of_targets = (i + d + (size_t)kind) % 2 == 1; /* both, in turn */
          problem *p = problem_new_levels(kind, dtypes[d], 2, 9, 3, shapes);
          if (kind == TARE_LOSS_SOFTMAX_CE) problem_draw_labels(p, 0.9, 0.1);
          p->place[ARRAY_LOGITS] = p->place[ARRAY_GRADIENT] = places[i];
          p->place[ARRAY_TARGETS].channels_first = planes_of_targets;
          p->in_place = planes_of_targets;
          expect_label(p, TARE_DTYPE_F32, device);
        }
      }
    }
  }
}

/* Bins of the signed logit, which near g = 1/2 tell x = 1e-20 from 0 and near g = 1 what no g tells. */
Test(targets, zeros_and_ones_fall_in_the_bins_of_the_label) {
  static const int32_t bins[] = {1, 2, 7, 10, 30, 33, 100, 1024};
  FOR_EACH_DEVICE(device) {
    for (size_t d = 0; d < DTYPES; d++) {
      for (size_t b = 0; b < COUNT(bins); b++) {
        for (int variant = TARE_GHM_VARIANT_PAPER; variant <= TARE_GHM_VARIANT_MMDET; variant++) {
          problem *p = problem_new(TARE_LOSS_GHM_C, dtypes[d], test_size(300, 60), 7);
          p->loss.ghm.bins = bins[b];
          p->loss.ghm.variant = variant;
          problem_add_ghm_state(p);
          expect_label(p, TARE_DTYPE_F32, device);
        }
      }
    }
  }
}

Test(targets, zeros_and_ones_have_the_exact_density_of_the_label) {
  static const double epsilons[] = {1e-6, 0.1, 2};
  FOR_EACH_DEVICE(device) {
    for (size_t d = 0; d < DTYPES; d++) {
      for (size_t e = 0; e < COUNT(epsilons); e++) {
        problem *p = problem_new(TARE_LOSS_GHM_C, dtypes[d], test_size(300, 60), 7);
        p->loss.ghm.density = TARE_GHM_DENSITY_EXACT;
        p->loss.ghm.epsilon = epsilons[e];
        expect_label(p, TARE_DTYPE_F32, device);
      }
    }
  }
}

/* Hard and soft elements of one batch share bins and density. */
Test(targets, hard_and_soft_elements_share_the_density) {
  FOR_EACH_DEVICE(device) {
    for (size_t d = 0; d < DTYPES; d++) {
      for (int density = TARE_GHM_DENSITY_UNIT_REGION; density <= TARE_GHM_DENSITY_EXACT; density++) {
        problem *p = problem_new(TARE_LOSS_GHM_C, dtypes[d], test_size(300, 60), 7);
        problem_draw_targets(p, TARE_DTYPE_F32);
        p->loss.ghm.density = density;
        p->loss.ghm.epsilon = 0.137;
        p->slack = dtypes[d] == TARE_DTYPE_F64 ? 1e-14 : 2e-6;
        for (int64_t i = 0; i < p->rows * p->classes; i++) { /* off the edges, where rounding decides */
          const double place = oracle_ghm_c_norm(p->logits[i], p->targets[i]) * p->loss.ghm.bins;
          if (density == TARE_GHM_DENSITY_UNIT_REGION && fabs(place - nearbyint(place)) < 1e-3)
            p->logits[i] = round_to_dtype(p->dtype, p->logits[i] + 0.25);
        }
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* ---- Softmax rows with all their mass on one class -------------------------------------------------------------- */

/* t = (.5, 0, 0), x = (20, 0, 0) and the like: the hard formula times the mass. */
Test(targets, softmax_mass_on_one_class_is_the_label_times_it) {
  static const double confident[] = {20, 30, 40, 5, -30, 0};
  static const double masses[] = {0.5, 1, 3, 1e-3, 0.75, 100};
  FOR_EACH_DEVICE(device) {
    for (size_t d = 0; d < DTYPES; d++) {
      for (int64_t classes = 1; classes <= 3000; classes = classes == 1 ? 3 : classes * 10) {
        problem *p = problem_new(TARE_LOSS_SOFTMAX_CE, dtypes[d], COUNT(confident), classes);
        free(p->labels);
        p->labels = NULL;
        p->target_dtype = TARE_DTYPE_F32;
        p->targets = calloc((size_t)(p->rows * classes), sizeof *p->targets);
        for (int64_t row = 0; row < p->rows; row++) {
          p->targets[row * classes + classes / 2] = (double)(float)masses[row];
          p->logits[row * classes + classes / 2] = confident[row];
        }
        CHECK_PROBLEM(p, device);
        p->place[ARRAY_LOGITS].channels_first = p->place[ARRAY_TARGETS].channels_first = true;
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

Test(targets, softmax_row_of_zeros_adds_nothing) {
  FOR_EACH_DEVICE(device) {
    for (size_t d = 0; d < DTYPES; d++) {
      problem *p = problem_new(TARE_LOSS_SOFTMAX_CE, dtypes[d], 30, 5);
      problem_draw_targets(p, TARE_DTYPE_F32);
      p->slack = dtypes[d] == TARE_DTYPE_F64 ? 1e-13 : 1e-5;
      memset(p->targets + 5 * 7, 0, 5 * sizeof *p->targets);
      p->logits[5 * 7 + 2] = NAN;
      p->labels[7] = 0;
      outcome *o = problem_run(p, device);
      for (int c = 0; c < 5; c++) cr_assert_eq(o->gradient[5 * 7 + c], 0);
      cr_assert_eq(o->row_loss[7], 0);
      outcome_free(o);
      p->normalizer = TARE_NORMALIZER_ROWS; /* the row counts */
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}
