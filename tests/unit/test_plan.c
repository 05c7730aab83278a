/* SPDX-License-Identifier: Apache-2.0 */
/* The plan of an evaluation: passes, parts of the workspace, and the divisor, which every backend takes from core/. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "core/losses.h"
#include "core/plan.h"

#define TARE_INLINE static inline
#include "core/divisor.h"

static tare_problem problem_of(int32_t kind, int64_t rows, int64_t classes) {
  const tare_listed_loss *listed = tare_find_loss(kind);
  tare_problem p = {.rows = rows, .family = listed->family, .passes = listed->passes};
  tare_loss_spec_init(&p.loss, kind);
  tare_batch_init(&p.batch);
  tare_output_init(&p.output);
  p.batch.classes = classes;
  return p;
}

static tare_plan plan_of(const tare_problem *p, uint64_t own_bytes, void *workspace) {
  tare_plan plan;
  memset(&plan, 0xff, sizeof plan);
  tare_plan_make(&plan, p, own_bytes, workspace);
  cr_assert_eq(plan.problem, p);
  return plan;
}

Test(plan, every_loss) {
  for (int32_t i = 0; i < tare_loss_count(); i++) {
    tare_problem p = problem_of(tare_loss_kind_at(i), 30, 4);
    const tare_plan plan = plan_of(&p, 64, NULL);
    cr_assert_eq(plan.density, tare_is_ghm(&p) ? TARE_DENSITY_SOURCE_COUNTS : TARE_DENSITY_SOURCE_NONE);
    cr_assert(plan.bytes == 0 && !plan.selects && !tare_counts_labels(&p.output));
    if (!tare_is_ghm(&p)) continue;
    p.loss.ghm.use_stored_density = 1;
    cr_assert_eq(plan_of(&p, 64, NULL).density, TARE_DENSITY_SOURCE_STATE);
  }
}

Test(plan, parts_of_the_exact_density) {
  static _Alignas(16) char memory[64 + 3 * 120 * 8];
  tare_problem p = problem_of(TARE_LOSS_GHM_R, 30, 4);
  p.loss.ghm.density = TARE_GHM_DENSITY_EXACT;
  const tare_plan plan = plan_of(&p, 64, memory);
  cr_assert(plan.density == TARE_DENSITY_SOURCE_KEYS && plan.keys == 120 && plan.bytes == sizeof memory);
  cr_assert(plan.own == memory && plan.own_bytes == 64 && (char *)plan.key == memory + 64);
  cr_assert(plan.weight == plan.key + 120 && plan.spare == plan.weight + 120);
  cr_assert_eq(plan_of(&p, 64, NULL).bytes, sizeof memory);
  p.rows = 0;
  const tare_plan empty = plan_of(&p, 64, memory);
  cr_assert(empty.density == TARE_DENSITY_SOURCE_KEYS && empty.keys == 0 && empty.bytes == 0 && empty.key == NULL);
}

Test(plan, parts_of_a_selection) {
  static _Alignas(16) char memory[30 * 12];
  tare_problem p = problem_of(TARE_LOSS_SIGMOID_FOCAL, 30, 4);
  p.batch.selection = TARE_SELECTION_HARD_NEGATIVES;
  for (int32_t dtype = TARE_DTYPE_F32; dtype <= TARE_DTYPE_F64; dtype++) {
    p.batch.dtype = dtype;
    const uint64_t of_loss = dtype == TARE_DTYPE_F64 ? 8 : 4;
    const tare_plan plan = plan_of(&p, 0, memory);
    cr_assert(plan.selects && plan.bytes == 30 * (of_loss + 4));
    cr_assert(plan.selection.loss == memory && (char *)plan.selection.label == memory + 30 * of_loss);
  }
}

/* 1,000 rows are three slices. The first one's sums are the output. */
Test(plan, class_sums_follow_the_other_parts) {
  static _Alignas(16) char memory[1000 * 8 + 2 * 4 * sizeof(tare_class_sums)];
  static tare_class_sums sums[4];
  tare_problem p = problem_of(TARE_LOSS_SIGMOID_FOCAL, 1000, 4);
  p.output.class_sums = sums;
  const tare_plan alone = plan_of(&p, 0, memory);
  cr_assert(alone.bytes == sizeof memory - 8000 && (char *)alone.class_sums == memory);
  p.batch.selection = TARE_SELECTION_HARD_NEGATIVES;
  const tare_plan both = plan_of(&p, 0, memory);
  cr_assert(both.bytes == sizeof memory && (char *)both.class_sums == memory + 8000);
  p.rows = 300;
  cr_assert_null(plan_of(&p, 0, memory).class_sums);
}

Test(plan, labels_are_counted_for_a_divisor_or_for_the_counts) {
  tare_counts counts;
  for (int32_t normalizer = TARE_NORMALIZER_SUM; normalizer <= TARE_NORMALIZER_ONES; normalizer++) {
    tare_output output;
    tare_output_init(&output);
    output.normalizer = normalizer;
    const int is_counted = normalizer != TARE_NORMALIZER_SUM && normalizer != TARE_NORMALIZER_VALUE;
    cr_assert_eq(tare_counts_labels(&output) != 0, is_counted);
    output.counts = &counts;
    cr_assert(tare_counts_labels(&output));
  }
}

static double bounded(int32_t normalizer, double scale, double addend, double minimum) {
  tare_normalizer_sums sums = tare_sums_of_rows(TARE_LOSS_FAMILY_SIGMOID, 80, 7 * scale, 3 * scale, 2.5 * scale);
  sums.targets = 1.25 * scale;
  sums.ones = 2 * scale;
  return tare_divisor_of_sums(normalizer, &sums, addend, minimum);
}

static double divisor(int32_t normalizer, int32_t family, double scale) {
  const tare_normalizer_sums sums = tare_sums_of_rows(family, 80, 7 * scale, 3 * scale, 2.5 * scale);
  return tare_divisor_of_sums(normalizer, &sums, 0, 0);
}

Test(plan, a_divisor_has_an_addend_and_a_minimum) {
  cr_assert_eq(bounded(TARE_NORMALIZER_TARGETS, 1, 0, 0), 1.25);
  cr_assert_eq(bounded(TARE_NORMALIZER_TARGETS, 1, 1, 0), 2.25);
  cr_assert_eq(bounded(TARE_NORMALIZER_TARGETS, 1, 1, 3), 3);
  cr_assert_eq(bounded(TARE_NORMALIZER_TARGETS, 0, 0, 0), 1);
  cr_assert_eq(bounded(TARE_NORMALIZER_TARGETS, 0, 0, 0.5), 0.5);
  cr_assert_eq(bounded(TARE_NORMALIZER_ONES, 1, 0.5, 1), 2.5);
  cr_assert_eq(bounded(TARE_NORMALIZER_POSITIVES, 1, 1, 1), 4);
  cr_assert(isnan(bounded(TARE_NORMALIZER_WEIGHTS, NAN, 1, 1)), "a weight of NaN is not hidden");
}

Test(plan, divisors) {
  cr_assert_eq(divisor(TARE_NORMALIZER_SUM, TARE_LOSS_FAMILY_SIGMOID, 1), 1);
  cr_assert_eq(divisor(TARE_NORMALIZER_ELEMENTS, TARE_LOSS_FAMILY_SIGMOID, 1), 560);
  cr_assert_eq(divisor(TARE_NORMALIZER_ELEMENTS, TARE_LOSS_FAMILY_REGRESSION, 1), 560);
  cr_assert_eq(divisor(TARE_NORMALIZER_ELEMENTS, TARE_LOSS_FAMILY_SOFTMAX, 1), 7);
  cr_assert_eq(divisor(TARE_NORMALIZER_ROWS, TARE_LOSS_FAMILY_SIGMOID, 1), 7);
  cr_assert_eq(divisor(TARE_NORMALIZER_POSITIVES, TARE_LOSS_FAMILY_SIGMOID, 1), 3);
  cr_assert_eq(divisor(TARE_NORMALIZER_WEIGHTS, TARE_LOSS_FAMILY_SOFTMAX, 1), 2.5);
  for (int32_t normalizer = TARE_NORMALIZER_SUM; normalizer < TARE_NORMALIZER_VALUE; normalizer++)
    cr_assert_eq(divisor(normalizer, TARE_LOSS_FAMILY_SIGMOID, 0), 1, "nothing counts, so nothing is divided");
}

/* The background label is class 2 of 4, no class, or below the first one. */
Test(plan, role_of_the_background) {
  static const int32_t labels[] = {12, 14, 9};
  static const int32_t softmax[] = {2, TARE_ROW_SKIPPED, TARE_ROW_SKIPPED};
  for (int i = 0; i < 3; i++) {
    tare_problem p = problem_of(TARE_LOSS_SOFTMAX_CE, 30, 4);
    p.batch.first_label = 10;
    p.batch.background_label = labels[i];
    cr_assert_eq(tare_background_role(&p), softmax[i]);
    p.soft = 1;
    cr_assert_eq(tare_background_role(&p), TARE_ROW_BACKGROUND);
    p.family = TARE_LOSS_FAMILY_SIGMOID;
    cr_assert_eq(tare_background_role(&p), TARE_ROW_BACKGROUND);
    p.family = TARE_LOSS_FAMILY_REGRESSION;
    cr_assert_eq(tare_background_role(&p), TARE_ROW_SKIPPED);
  }
}
