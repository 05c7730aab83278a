/* SPDX-License-Identifier: Apache-2.0 */
/* Batches of the oracle, with gradients that are finite differences. */
#include "points.h"

/* ---- Batches --------------------------------------------------------------------------------------------------- */

enum { ROWS = 6, CLASSES = 3 };

/* One row of each kind: class 0, class 2, background, ignored over NaN, class 1 of weight 0 over NaN, class 1. */
struct small_batch {
  double logits[ROWS * CLASSES], row_weights[ROWS], element_weights[ROWS * CLASSES];
  int64_t labels[ROWS];
};

static struct small_batch small_batch(void) {
  struct small_batch batch = {.row_weights = {1, 0.5, 2, 1, 0, 0.25}, .labels = {0, 2, -1, -2, 1, 1}};
  random_source random = random_from(2);
  for (int i = 0; i < ROWS * CLASSES; ++i) {
    batch.logits[i] = 2 * random_normal(&random);
    batch.element_weights[i] = 0.5 + random_uniform(&random);
  }
  batch.logits[(size_t)3 * CLASSES] = NAN;
  batch.logits[(size_t)4 * CLASSES + 1] = NAN;
  return batch;
}

static struct oracle_problem problem_of(struct small_batch *batch, const struct oracle_loss *loss) {
  struct oracle_problem problem;
  oracle_problem_init(&problem, loss, ROWS, CLASSES);
  problem.logits = batch->logits;
  problem.labels = batch->labels;
  problem.row_weights = batch->row_weights;
  return problem;
}

static double loss_of(const struct oracle_problem *problem) {
  struct oracle_result result;
  oracle_evaluate(problem, &result);
  double loss = result.loss;
  oracle_result_free(&result);
  return loss;
}

/* The gradient of a whole batch, and that row and element losses add up to the loss. */
static void check_differences(struct oracle_problem *problem, struct small_batch *batch) {
  struct oracle_result result;
  oracle_evaluate(problem, &result);
  double rows = 0, elements = 0;
  for (int i = 0; i < ROWS; ++i) rows += result.row_loss[i];
  cr_assert_float_eq(rows / result.divisor, result.loss, 1e-14);
  for (int i = 0; i < ROWS * CLASSES; ++i) {
    if (result.element_loss) elements += result.element_loss[i];
    if (isnan(batch->logits[i])) {
      cr_assert_eq(result.gradient[i], 0);
      continue;
    }
    double x = batch->logits[i], h = 1e-5;
    problem->factors = result.factors;
    batch->logits[i] = x + h;
    double above = loss_of(problem);
    batch->logits[i] = x - h;
    double below = loss_of(problem);
    batch->logits[i] = x;
    cr_assert_float_eq(result.gradient[i], problem->gradient_scale * (above - below) / (2 * h), 1e-9, "element %d: %g",
                       i, result.gradient[i]);
  }
  if (result.element_loss) cr_assert_float_eq(elements, rows, 1e-14);
  problem->factors = NULL;
  oracle_result_free(&result);
}

Test(oracle, batch_gradients_are_finite_differences) {
  struct small_batch batch = small_batch();
  static const double per_class[] = {0.3, 1.5, 2}, alphas[] = {0.25, 0.5, 0.9}, positive[] = {3, 1, 0.5};
  static const double offsets[] = {-0.5, -4, 1.25};
  for (int32_t k = 0; k < tare_loss_count(); ++k) {
    const struct oracle_loss *loss = oracle_loss_of(tare_loss_kind_at(k));
    for (int normalizer = ORACLE_SUM; normalizer <= ORACLE_VALUE && !loss->has_density; ++normalizer) {
      struct oracle_problem problem = problem_of(&batch, loss);
      bool softmax = loss->row != NULL;
      problem.normalizer = (enum oracle_normalizer)normalizer;
      problem.normalizer_value = 2.5;
      problem.offset = problem.margins = offsets;
      problem.scale = 1.5; /* of a difference over 1e-5; at 30 its third derivative shows */
      problem.class_weights = per_class;
      problem.background_weight = 0.7;
      problem.alpha_per_class = normalizer % 2 ? alphas : NULL;
      problem.alpha = 0.4;
      problem.gradient_scale = -8;
      problem.element_weights = softmax ? NULL : batch.element_weights;
      problem.positive_weights = softmax ? NULL : positive;
      check_differences(&problem, &batch);
    }
  }
}

/* Row 2 and 3 have no class, and row 4 no weight: their scores are not read. */
Test(oracle, gradients_with_scores_are_finite_differences) {
  struct small_batch batch = small_batch();
  static const double positive[] = {3, 1, 0.5}, scores[ROWS] = {0.75, 0, NAN, NAN, NAN, 1.0005};
  static const struct oracle_loss *const losses[] = {&ORACLE_SIGMOID_CE, &ORACLE_SIGMOID_VARIFOCAL,
                                                     &ORACLE_SIGMOID_QUALITY_FOCAL, &ORACLE_SIGMOID_MATCHABILITY,
                                                     &ORACLE_SIGMOID_IOU_AWARE};
  for (int k = 0; k < 10; ++k) {
    struct oracle_problem problem = problem_of(&batch, losses[k % 5]);
    problem.scores = scores;
    problem.alpha = losses[k % 5] == &ORACLE_SIGMOID_IOU_AWARE ? -1 : 0.6;
    problem.gamma = problem.beta = 1.5;
    problem.modulator = problem.positives = k >= 5;
    problem.positive_weights = positive;
    problem.normalizer = ORACLE_POSITIVES;
    check_differences(&problem, &batch);
    struct oracle_result result;
    oracle_evaluate(&problem, &result);
    cr_assert_eq(result.counts.positives, 4);
    cr_assert_eq(result.divisor, 4);
    double x = batch.logits[CLASSES + 2], p = 1 / (1 + exp(-x)), ce = log1p(exp(x)); /* of a label with score 0 */
    double want[] = {0.6 * ce, k < 5 ? 0.6 * pow(p, 1.5) * ce : 0, 0.6 * pow(p, 1.5) * ce, ce, ce - 0.01 * x};
    cr_assert_float_eq(result.element_loss[CLASSES + 2], 0.5 * 0.5 * want[k % 5], 1e-14, "loss %d", k);
    oracle_result_free(&result);
  }
}

Test(oracle, a_score_out_of_range_spoils_its_row) {
  struct small_batch batch = small_batch();
  double scores[ROWS] = {0.75, -0.5, NAN, NAN, NAN, NAN};
  struct oracle_problem problem = problem_of(&batch, &ORACLE_SIGMOID_VARIFOCAL);
  struct oracle_result result;
  problem.scores = scores;
  problem.element_weights = NULL;
  oracle_evaluate(&problem, &result);
  cr_assert_eq(result.counts.invalid, 2);
  cr_assert_eq(result.counts.positives, 2); /* the row of weight 0 is one */
  for (int c = 0; c < CLASSES; ++c) cr_assert_eq(result.gradient[CLASSES + c], 0);
  cr_assert_eq(result.row_loss[5], 0);
  oracle_result_free(&result);
}

Test(oracle, soft_batch_gradients_are_finite_differences) {
  struct small_batch batch = small_batch();
  double targets[ROWS * CLASSES];
  for (int i = 0; i < ROWS * CLASSES; ++i) targets[i] = i % 4 / 3.0;
  for (int32_t k = 0; k < tare_loss_count(); ++k) {
    const struct oracle_loss *loss = oracle_loss_of(tare_loss_kind_at(k));
    if (loss->has_density || !describe_loss(tare_loss_kind_at(k)).takes_targets) continue;
    struct oracle_problem problem = problem_of(&batch, loss);
    problem.offset = (const double[]){-0.5, -4, 1.25};
    problem.targets = targets;
    problem.normalizer = ORACLE_WEIGHTS;
    check_differences(&problem, &batch);
  }
}

/* Every factor of an element by hand: row, class or background, element, positive, alpha. Ignored rows give 0. */
Test(oracle, weights_multiply) {
  struct small_batch batch = small_batch();
  static const double per_class[] = {0.3, 1.5, 2}, alphas[] = {0.25, 0.5, 0.9}, positive[] = {3, 1, 0.5};
  static const double row_class_weight[ROWS] = {0.3, 2 * 0.5, 0.7 * 2, 0, 0, 1.5 * 0.25};
  struct oracle_problem problem = problem_of(&batch, &ORACLE_SIGMOID_FOCAL);
  problem.class_weights = per_class;
  problem.background_weight = 0.7;
  problem.alpha_per_class = alphas;
  problem.element_weights = batch.element_weights;
  problem.positive_weights = positive;
  struct oracle_result sigmoid, softmax;
  oracle_evaluate(&problem, &sigmoid);
  problem.loss = &ORACLE_SOFTMAX_FOCAL;
  problem.element_weights = problem.positive_weights = NULL;
  oracle_evaluate(&problem, &softmax);
  for (int i = 0; i < ROWS; ++i) {
    for (int c = 0; c < CLASSES; ++c) {
      int at = i * CLASSES + c, t = batch.labels[i] == c;
      double factor = row_class_weight[i] * batch.element_weights[at] * (t ? positive[c] * alphas[c] : 1 - alphas[c]);
      double want = factor == 0 ? 0 : factor * literal_sigmoid(batch.logits[at], t, 2, 0).value;
      cr_assert_float_eq(sigmoid.element_loss[at], want, 1e-14 * want);
    }
    int64_t y = batch.labels[i];
    double want = row_class_weight[i] == 0 || y < 0 ? 0 : row_class_weight[i] * alphas[y];
    if (want > 0) want *= oracle_softmax_row(CLASSES, batch.logits + (ptrdiff_t)i * CLASSES, y, 2, NULL);
    cr_assert_float_eq(softmax.row_loss[i], want, 1e-14 * want);
  }
  oracle_result_free(&sigmoid);
  oracle_result_free(&softmax);
}

Test(oracle, an_alpha_of_zero_takes_infinity_but_not_nan) {
  double logits[] = {-INFINITY, NAN};
  int64_t labels[] = {0, 0};
  struct oracle_problem problem;
  struct oracle_result result;
  oracle_problem_init(&problem, &ORACLE_SIGMOID_POLY1, 2, 1);
  problem.logits = logits;
  problem.labels = labels;
  problem.alpha = 0;
  oracle_evaluate(&problem, &result);
  cr_assert_eq(result.element_loss[0], problem.epsilon);
  cr_assert_eq(result.gradient[0], 0);
  cr_assert(isnan(result.element_loss[1]) && isnan(result.gradient[1]));
  oracle_result_free(&result);
}

static double divisor_with(struct small_batch *batch, const struct oracle_loss *loss,
                           enum oracle_normalizer normalizer) {
  static const double per_class[] = {0.3, 1.5, 2};
  struct oracle_problem problem = problem_of(batch, loss);
  problem.class_weights = per_class;
  problem.background_weight = 0.7;
  problem.normalizer = normalizer;
  struct oracle_result result;
  oracle_evaluate(&problem, &result);
  double divisor = result.divisor;
  oracle_result_free(&result);
  return divisor;
}

Test(oracle, divisors) {
  struct small_batch batch = small_batch();
  cr_assert_eq(divisor_with(&batch, &ORACLE_SIGMOID_CE, ORACLE_ELEMENTS), 15);
  cr_assert_eq(divisor_with(&batch, &ORACLE_SOFTMAX_CE, ORACLE_ELEMENTS), 4);
  cr_assert_eq(divisor_with(&batch, &ORACLE_SIGMOID_CE, ORACLE_ROWS), 5);
  cr_assert_eq(divisor_with(&batch, &ORACLE_SOFTMAX_CE, ORACLE_ROWS), 4);
  cr_assert_eq(divisor_with(&batch, &ORACLE_SIGMOID_CE, ORACLE_POSITIVES), 4);
  double positives = 0.3 + 0.5 * 2 + 0.25 * 1.5;
  cr_assert_float_eq(divisor_with(&batch, &ORACLE_SOFTMAX_CE, ORACLE_WEIGHTS), positives, 1e-15);
  cr_assert_float_eq(divisor_with(&batch, &ORACLE_SIGMOID_CE, ORACLE_WEIGHTS), positives + 2 * 0.7, 1e-15);
  for (int i = 0; i < ROWS; ++i) batch.labels[i] = -2;
  cr_assert_eq(divisor_with(&batch, &ORACLE_SIGMOID_CE, ORACLE_ROWS), 1);
  cr_assert_eq(divisor_with(&batch, &ORACLE_SIGMOID_CE, ORACLE_POSITIVES), 1);
}

Test(oracle, labels) {
  struct small_batch batch = small_batch();
  struct oracle_problem problem = problem_of(&batch, &ORACLE_SIGMOID_CE);
  problem.first_label = 1;
  problem.background_label = 0;
  cr_assert_eq(oracle_row_kind(&problem, 0), ORACLE_BACKGROUND);
  cr_assert_eq(oracle_row_kind(&problem, 1), ORACLE_POSITIVE);
  cr_assert_eq(oracle_row_kind(&problem, CLASSES), ORACLE_POSITIVE);
  cr_assert_eq(oracle_row_kind(&problem, CLASSES + 1), ORACLE_INVALID);
  cr_assert_eq(oracle_row_kind(&problem, ((int64_t)1 << 32) + 1), ORACLE_INVALID);
  cr_assert_eq(oracle_row_kind(&problem, INT64_MIN), ORACLE_INVALID);
  cr_assert_eq(oracle_row_kind(&problem, INT64_MAX), ORACLE_INVALID);
  cr_assert_eq(oracle_row_kind(&problem, -2), ORACLE_IGNORED);
  batch = (struct small_batch){.labels = {0, 1, 3, 3, -2, 77}};
  int64_t per_class[CLASSES];
  struct oracle_counts counts = oracle_label_counts(&problem, per_class);
  cr_assert_eq(counts.rows, 6);
  cr_assert_eq(counts.counted, 4);
  cr_assert_eq(counts.positives, 3);
  cr_assert_eq(counts.background, 1);
  cr_assert_eq(counts.ignored, 1);
  cr_assert_eq(counts.invalid, 1);
  cr_assert(per_class[0] == 1 && per_class[1] == 0 && per_class[2] == 2);
}

/* Background named as class 1: softmax computes that class, sigmoid a row of zeros; it is positive for neither. */
Test(oracle, background_inside_the_classes) {
  double logits[] = {1, 2, -1};
  int64_t label = 1;
  struct oracle_problem problem;
  struct oracle_result result;
  oracle_problem_init(&problem, &ORACLE_SOFTMAX_CE, 1, 3);
  problem.logits = logits;
  problem.labels = &label;
  problem.background_label = 1;
  oracle_evaluate(&problem, &result);
  cr_assert_eq(result.loss, oracle_softmax_row(3, logits, 1, 0, NULL));
  cr_assert(result.counts.counted == 1 && result.counts.positives == 0 && result.counts.background == 1);
  oracle_result_free(&result);
  problem.loss = &ORACLE_SIGMOID_CE;
  oracle_evaluate(&problem, &result);
  cr_assert_eq(result.element_loss[1], oracle_soft_ce(2, 0).value);
  cr_assert(result.counts.counted == 1 && result.counts.positives == 0);
  oracle_result_free(&result);
}
