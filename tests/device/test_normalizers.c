/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Divisors that are formed from the batch: sums of targets, numbers of targets equal to 1, an addend and a least value;
 * and the sums of all normalizers, which ranks add. Each is the oracle's.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/head.h"
#include "support/problem.h"

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};
enum { DTYPES = sizeof dtypes / sizeof *dtypes };

static const level_shape levels[] = {{9, 7, 3}, {0, 3, 2}, {5, 1, 3}, {1, 1, 4}};
enum { LEVELS = sizeof levels / sizeof *levels };

enum target_kind { BY_LABEL, BY_SCORE, BY_TARGET, TARGET_KINDS };

static bool has_normalizer(int32_t kind) { return !is_ghm(kind); }

static bool has_targets(int32_t kind, int what) {
  return what == BY_LABEL || (what == BY_SCORE ? takes_scores(kind) : takes_targets(kind));
}

/** Everything that the loss can weigh: none of it may show in the sums. */
static problem *weighted_problem(int32_t kind, int32_t dtype, int what) {
  problem *p = problem_new_levels(kind, dtype, 2, 5, LEVELS, levels);
  const int32_t other = dtype == TARE_DTYPE_F64 ? TARE_DTYPE_F64 : TARE_DTYPE_F16;
  p->want |= WANT_NORMALIZER_SUMS;
  problem_draw_row_weights(p);
  if (what == BY_SCORE) problem_draw_scores(p, other);
  if (what == BY_TARGET) problem_draw_targets(p, other);
  problem_keep_off_p(p);
  if (what != BY_LABEL) p->slack = dtype == TARE_DTYPE_F64 ? 1e-13 : 2e-5;
  if (what != BY_TARGET) p->class_weights = random_class_weights(p, 1);
  if (!is_softmax(kind)) problem_draw_element_weights(p);
  return p;
}

Test(normalizers, every_loss_and_type) {
  FOR_EACH_DEVICE(device) FOR_EACH_LOSS(kind) for (int i = 0; i < DTYPES * TARGET_KINDS; i++) {
    const int what = i / DTYPES;
    if (!has_normalizer(kind) || !has_targets(kind, what)) continue;
    if (!device_computes(device, kind, dtypes[i % DTYPES])) continue;
    problem *p = weighted_problem(kind, dtypes[i % DTYPES], what);
    p->normalizer = i % 2 ? TARE_NORMALIZER_ONES : TARE_NORMALIZER_TARGETS;
    p->loss_dtype = TARE_DTYPE_F64;
    CHECK_PROBLEM(p, device);
    p->want &= ~(unsigned)WANT_NORMALIZER_SUMS;
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}

Test(normalizers, addend_and_minimum) {
  static const double bounds[][2] = {{1, 0}, {0, 1}, {0.5, 1e6}, {0, 1e30}, {1e-9, 0}};
  static const int32_t normalizers[] = {TARE_NORMALIZER_ELEMENTS, TARE_NORMALIZER_ROWS,    TARE_NORMALIZER_POSITIVES,
                                        TARE_NORMALIZER_WEIGHTS,  TARE_NORMALIZER_TARGETS, TARE_NORMALIZER_ONES};
  FOR_EACH_DEVICE(device) for (size_t i = 0; i < sizeof bounds / sizeof *bounds * 6; i++) {
    problem *p = problem_new(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, 61, 3);
    p->want |= WANT_NORMALIZER_SUMS;
    p->normalizer = normalizers[i % 6];
    p->normalizer_addend = bounds[i / 6][0];
    p->normalizer_minimum = bounds[i / 6][1];
    CHECK_PROBLEM(p, device);
    problem_draw_labels(p, 0, i % 2 ? 1 : 0); /* no positives; no row that counts */
    p->drawn = true;                          /* the loss may be 0 */
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}

/* Maps, slices, axes that run backwards, image-major rows, several tiles. */
Test(normalizers, layouts) {
  FOR_EACH_DEVICE(device) for (int i = 0; i < 5 * TARGET_KINDS; i++) {
    const int layout = i % 5;
    problem *p = weighted_problem(TARE_LOSS_SIGMOID_CE, layout % 2 ? TARE_DTYPE_BF16 : TARE_DTYPE_F32, i / 5);
    for (int a = 0; a < ARRAY_KINDS; a++) p->place[a].channels_first = layout > 0 && !is_row_array(a);
    p->place[ARRAY_TARGETS].flip = layout == 2 ? 1u << AXIS_CLASS | 1u << AXIS_X : 0;
    p->place[ARRAY_TARGETS].channels_first = layout == 3;
    p->place[ARRAY_LOGITS].pad[AXIS_X] = layout == 4 ? 2 : 0;
    p->image_major = layout == 1;
    p->normalizer = layout % 2 ? TARE_NORMALIZER_TARGETS : TARE_NORMALIZER_ONES;
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}

Test(normalizers, sizes) {
  static const int64_t shapes[][2] = {{1, 1}, {1024, 1}, {1025, 3}, {3, 1300}, {2500, 2}, {40, 1203}, {700, 91}};
  FOR_EACH_DEVICE(device) for (size_t i = 0; i < sizeof shapes / sizeof *shapes * 2; i++) {
    const int64_t rows = shapes[i / 2][0], classes = shapes[i / 2][1];
    problem *p = problem_new(i % 2 ? TARE_LOSS_SOFTMAX_CE : TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, rows, classes);
    problem_draw_targets(p, TARE_DTYPE_F32);
    p->want = WANT_NORMALIZER_SUMS | WANT_COUNTS | WANT_LOSS;
    p->normalizer = TARE_NORMALIZER_TARGETS;
    p->drawn = true; /* a row of one class has a softmax loss of 0 */
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}

/* With no output that depends on them, logits are not read. */
Test(normalizers, sums_alone) {
  FOR_EACH_DEVICE(device) for (int what = 0; what < TARGET_KINDS; what++) {
    problem *p = weighted_problem(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, what);
    for (int64_t i = 0; i < p->rows * p->classes; i++) p->logits[i] = NAN;
    p->want = WANT_NORMALIZER_SUMS | WANT_COUNTS;
    CHECK_PROBLEM(p, device);
    p->want = WANT_NORMALIZER_SUMS;
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}

/* Nothing counts; or no row is there. */
Test(normalizers, nothing) {
  FOR_EACH_DEVICE(device) for (int i = 0; i < 2 * TARGET_KINDS; i++) {
    problem *p = problem_new(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, i % 2 ? 0 : 9, 3);
    p->want |= WANT_NORMALIZER_SUMS;
    p->normalizer = TARE_NORMALIZER_TARGETS;
    problem_draw_labels(p, 0, 1);
    if (i / 2 == BY_SCORE) problem_draw_scores(p, TARE_DTYPE_F32);
    if (i / 2 == BY_TARGET) problem_draw_targets(p, TARE_DTYPE_F32);
    outcome *o = problem_run(p, device);
    cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
    const tare_normalizer_sums none = {0};
    cr_assert_eq(memcmp(&o->normalizer_sums[0], &none, sizeof none), 0);
    cr_assert_eq(o->loss, 0);
    outcome_free(o);
    problem_free(p);
  }
}

/* Rows of weight 0 count, and what is not checked in them is clamped. */
Test(normalizers, targets_that_are_not_checked) {
  static const double odd[] = {NAN, 7, -7, INFINITY, 1.0005, -0.0005};
  FOR_EACH_DEVICE(device) for (int scored = 0; scored < 2; scored++) {
    problem *p = problem_new(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 300, 4);
    p->want |= WANT_NORMALIZER_SUMS;
    p->normalizer = TARE_NORMALIZER_TARGETS;
    p->slack = 1e-3; /* 1.0005 has the loss of 1 */
    problem_draw_row_weights(p);
    if (scored)
      problem_draw_scores(p, TARE_DTYPE_F32);
    else
      problem_draw_targets(p, TARE_DTYPE_F32);
    for (int64_t row = 0; row < p->rows; row += 5) {
      const double value = (double)(float)odd[row / 5 % 6];
      p->labels[row] = p->first_label + 2;
      *(scored ? &p->scores[row] : &p->targets[4 * row + 2]) = value;
      if (row / 5 % 6 < 4) p->row_weights[row] = 0;
    }
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}

/* A row that an invalid target or score spoils adds nothing to a sum; the sums alone find it, too. */
Test(normalizers, invalid_rows) {
  FOR_EACH_DEVICE(device) for (int i = 0; i < 4; i++) {
    problem *p = problem_new(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 2100, 3);
    if (i % 2)
      problem_draw_scores(p, TARE_DTYPE_F32);
    else
      problem_draw_targets(p, TARE_DTYPE_F32);
    for (int64_t row = 0; row < p->rows; row += 50) {
      p->labels[row] = p->first_label + 1;
      *(i % 2 ? &p->scores[row] : &p->targets[3 * row + 2]) = row % 100 ? NAN : 7;
    }
    p->want = i / 2 ? WANT_NORMALIZER_SUMS | WANT_COUNTS : p->want | WANT_NORMALIZER_SUMS;
    p->normalizer = TARE_NORMALIZER_TARGETS;
    outcome *got = problem_run(p, device), *want = problem_expect(p);
    if (device->kind == TARE_DEVICE_CPU) cr_assert_eq(got->status, TARE_STATUS_INVALID_TARGET, "%s", got->text);
    cr_assert_eq(got->counts.invalid, want->counts.invalid);
    cr_assert_eq(got->normalizer_sums[0].rows, want->normalizer_sums[0].rows);
    cr_assert_eq(got->normalizer_sums[0].ones, want->normalizer_sums[0].ones);
    CHECK_NEAR("targets", got->normalizer_sums[0].targets, want->normalizer_sums[0].targets, ((tolerance){0, 1e-12}));
    if (p->want & WANT_LOSS) CHECK_NEAR("loss", got->loss, want->loss, loss_tolerance(p));
    outcome_free(got);
    outcome_free(want);
    problem_free(p);
  }
}

Test(normalizers, the_same_bits) {
  FOR_EACH_DEVICE(device) for (int what = 0; what < TARGET_KINDS; what++) {
    problem *p = weighted_problem(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, what == BY_SCORE ? BY_LABEL : what);
    p->normalizer = TARE_NORMALIZER_TARGETS;
    outcome *first = problem_run(p, device);
    for (int32_t threads = 1; threads <= 5; threads += 2) {
      p->context = device_context(device, device->kind == TARE_DEVICE_CPU ? threads : 0);
      outcome *again = problem_run(p, device);
      CHECK_SAME_OUTCOME(p, again, first);
      outcome_free(again);
      tare_context_destroy(p->context);
      p->context = NULL;
    }
    outcome_free(first);
    problem_free(p);
  }
}

Test(normalizers, fused_head) {
  FOR_EACH_DEVICE(device) for (int what = 0; what < TARGET_KINDS; what++) {
    head_require_blas(device);
    problem *p = head_problem(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 200, 5, 8);
    p->want = WANT_LOSS | WANT_COUNTS | WANT_NORMALIZER_SUMS;
    if (what == BY_SCORE) problem_draw_scores(p, TARE_DTYPE_F32);
    if (what == BY_TARGET) problem_draw_targets(p, TARE_DTYPE_F32);
    p->slack = 2e-5;
    p->normalizer = TARE_NORMALIZER_TARGETS;
    p->normalizer_addend = 1;
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}

/* ---- Refusals ---------------------------------------------------------------------------------------------------- */

static problem *bounded_problem(int32_t normalizer, double addend, double minimum) {
  problem *p = problem_new(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 9, 3);
  p->normalizer = normalizer;
  p->normalizer_addend = addend;
  p->normalizer_minimum = minimum;
  return p;
}

static tare_status misaligned(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                              const tare_output *output, void *user) {
  tare_output moved = *output;
  (void)user;
  moved.normalizer_sums = (tare_normalizer_sums *)(void *)((char *)output->normalizer_sums + 4);
  return tare_evaluate(context, loss, batch, &moved, NULL);
}

Test(normalizers, refusals) {
  const tare_status invalid = TARE_STATUS_INVALID_ARGUMENT;
  FOR_EACH_DEVICE(device) {
    CHECK_REFUSED(bounded_problem(TARE_NORMALIZER_ROWS, -1, 0), device, invalid,
                  "output->normalizer_addend is -1; it must be in [0,1e30]");
    CHECK_REFUSED(bounded_problem(TARE_NORMALIZER_ROWS, 0, NAN), device, invalid,
                  "output->normalizer_minimum is nan; it must be in [0,1e30]");
    CHECK_REFUSED(bounded_problem(TARE_NORMALIZER_ROWS, 2e30, 0), device, invalid, "it must be in [0,1e30]");
    CHECK_REFUSED(bounded_problem(TARE_NORMALIZER_SUM, 1, 0), device, invalid,
                  "output->normalizer_addend is 1 with output->normalizer TARE_NORMALIZER_SUM (0)");
    CHECK_REFUSED(bounded_problem(TARE_NORMALIZER_VALUE, 0, 1), device, invalid,
                  "output->normalizer_minimum is 1 with output->normalizer TARE_NORMALIZER_VALUE (5)");
    CHECK_REFUSED(bounded_problem(TARE_NORMALIZER_ONES + 1, 0, 0), device, invalid, "output->normalizer is 8");
    problem *ghm = problem_new(TARE_LOSS_GHM_C, TARE_DTYPE_F32, 9, 3);
    ghm->want |= WANT_NORMALIZER_SUMS;
    CHECK_REFUSED(ghm, device, TARE_STATUS_UNSUPPORTED, "output->normalizer_sums with ghm-c");
    problem *p = bounded_problem(TARE_NORMALIZER_ROWS, 0, 0);
    p->want |= WANT_NORMALIZER_SUMS;
    p->call = misaligned;
    CHECK_REFUSED(p, device, invalid, "output->normalizer_sums is 0x");
  }
}
