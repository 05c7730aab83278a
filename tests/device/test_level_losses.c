/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Levels with losses, loss weights and divisors of their own: those of the oracle, and bit for bit those of a call for
 * each level that asks for the same outputs.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/head.h"
#include "support/problem.h"

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};
enum { DTYPES = sizeof dtypes / sizeof *dtypes };

static const level_shape levels[] = {{9, 7, 3}, {0, 3, 2}, {5, 1, 3}, {1, 1, 4}, {2, 3, 1}};
enum { LEVELS = sizeof levels / sizeof *levels };

/** Levels 0 and 4 agree. Level 1 has no rows. */
static void give_scalars(problem *p) {
  static const level_scalars some[LEVELS] = {{.weight = 2, .divisor = 3},
                                             {.divisor = 5},
                                             {.weight = -0.5, .divisor = 7.25, .on_device = true},
                                             {.weight = 0.001},
                                             {.weight = 2, .divisor = 3}};
  memcpy(p->of_level, some, sizeof some);
  for (int32_t l = 0; is_ghm(p->loss.kind) && l < LEVELS; l++)
    p->of_level[l] = (level_scalars){.weight = some[l].weight};
}

static problem *problem_of_levels(int32_t kind, int32_t dtype) {
  problem *p = problem_new_levels(kind, dtype, 2, 5, LEVELS, levels);
  p->want |= WANT_LEVEL_LOSSES;
  p->loss_dtype = TARE_DTYPE_F64;
  p->gradient_scale = 3;
  problem_draw_row_weights(p);
  if (takes_scores(kind)) problem_draw_scores(p, dtype == TARE_DTYPE_F64 ? TARE_DTYPE_F32 : dtype);
  problem_keep_off_p(p);
  p->slack = dtype == TARE_DTYPE_F64 ? 1e-13 : 5e-5;
  if (!is_ghm(kind)) p->normalizer = TARE_NORMALIZER_POSITIVES;
  return p;
}

Test(level_losses, every_loss_and_type) {
  FOR_EACH_DEVICE(device) FOR_EACH_LOSS(kind) for (int i = 0; i < DTYPES; i++) {
    if (!device_computes(device, kind, dtypes[i]) || (i > 0 && !test_is_due(kind, i))) continue;
    problem *p = problem_of_levels(kind, dtypes[i]);
    CHECK_PROBLEM(p, device); /* losses alone */
    give_scalars(p);
    CHECK_PROBLEM(p, device);
    p->want &= ~(unsigned)WANT_LEVEL_LOSSES;
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}

/* A divisor for each level, formed of that level. */
Test(level_losses, scope_of_the_normalizer) {
  static const int32_t normalizers[] = {TARE_NORMALIZER_ELEMENTS, TARE_NORMALIZER_ROWS,    TARE_NORMALIZER_POSITIVES,
                                        TARE_NORMALIZER_WEIGHTS,  TARE_NORMALIZER_TARGETS, TARE_NORMALIZER_ONES};
  FOR_EACH_DEVICE(device) for (int i = 0; i < 12; i++) {
    problem *p = problem_of_levels(i % 5 == 0 ? TARE_LOSS_SOFTMAX_CE : TARE_LOSS_SIGMOID_CE, dtypes[i % 3]);
    p->want |= WANT_NORMALIZER_SUMS;
    p->normalizer = normalizers[i / 2];
    p->normalizer_scope = TARE_NORMALIZER_SCOPE_LEVEL;
    p->normalizer_addend = i % 3 == 0 ? 0.5 : 0;
    p->normalizer_minimum = i % 4 == 0 ? 20 : 0;
    if (i % 2) give_scalars(p);
    CHECK_PROBLEM(p, device);
    p->want &= ~(unsigned)(WANT_NORMALIZER_SUMS | WANT_COUNTS);
    CHECK_PROBLEM(p, device);
    p->want = WANT_NORMALIZER_SUMS; /* without the logits */
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}

Test(level_losses, other_outputs) {
  FOR_EACH_DEVICE(device) for (int way = 0; way < 6; way++) {
    problem *p = problem_of_levels(way == 5 ? TARE_LOSS_GHM_C : TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32);
    give_scalars(p);
    if (way == 0) p->in_place = true;
    if (way == 1) p->want |= WANT_CLASS_SUMS;
    if (way == 2) p->want = WANT_LEVEL_LOSSES;
    if (way == 3) p->want = WANT_GRADIENT;
    if (way == 4) p->normalizer = TARE_NORMALIZER_SUM;
    if (way == 5) p->loss.ghm.density = TARE_GHM_DENSITY_EXACT;
    for (int a = 0; a < ARRAY_KINDS; a++) p->place[a].channels_first = way % 2 && !is_row_array(a);
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}

static int32_t threads_of(const test_device *device, int32_t threads) {
  return device->kind == TARE_DEVICE_CPU ? threads : 0;
}

Test(level_losses, the_same_bits) {
  FOR_EACH_DEVICE(device) FOR_EACH_LOSS(kind) {
    problem *p = problem_of_levels(kind, TARE_DTYPE_BF16);
    give_scalars(p);
    outcome *first = problem_run(p, device);
    for (int32_t threads = 1; threads <= 5; threads += 2) {
      p->context = device_context(device, threads_of(device, threads));
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

/* ---- One call, and one for each level ---------------------------------------------------------------------------- */

static void copy_rows(double *to, const double *from, int64_t first, int64_t rows, int64_t width) {
  if (from != NULL) memcpy(to, from + first * width, (size_t)(rows * width) * sizeof *to);
}

/** A call of its own for a level, with what the call for all asks for. */
static problem *problem_of_level(const problem *p, int32_t level, int64_t first) {
  problem *own = problem_new_levels(p->loss.kind, p->dtype, p->images, p->classes, 1, &p->levels[level]);
  own->loss = p->loss;
  own->want = p->want & ~(unsigned)WANT_LEVEL_LOSSES;
  own->loss_dtype = p->loss_dtype;
  own->gradient_scale = p->gradient_scale * weight_of_level(p, level);
  copy_rows(own->logits, p->logits, first, own->rows, p->classes);
  memcpy(own->labels, p->labels + first, (size_t)own->rows * sizeof *own->labels);
  if (p->scores != NULL) problem_draw_scores(own, p->score_dtype);
  copy_rows(own->scores, p->scores, first, own->rows, 1);
  if (p->targets != NULL) problem_draw_targets(own, p->target_dtype);
  copy_rows(own->targets, p->targets, first, own->rows, p->classes);
  memcpy(own->place, p->place, sizeof own->place);
  own->normalizer = p->normalizer;
  own->normalizer_addend = p->normalizer_addend;
  own->normalizer_minimum = p->normalizer_minimum;
  if (p->of_level[level].divisor == 0) return own;
  own->normalizer = TARE_NORMALIZER_VALUE;
  own->normalizer_value = p->of_level[level].divisor;
  own->normalizer_on_device = p->of_level[level].on_device;
  own->normalizer_addend = own->normalizer_minimum = 0;
  return own;
}

static void check_part(const double *all, const double *own, int64_t first, int64_t count, int64_t width) {
  if (all == NULL) return;
  CHECK_SAME("an array of a level", all + first * width, own, (size_t)(count * width));
}

/** Evaluates all levels, and each by itself, and compares every bit. A weight is in the losses of levels alone. */
static void check_levels(problem *p, const test_device *device) {
  outcome *all = problem_run(p, device);
  cr_assert_eq(all->status, TARE_STATUS_OK, "%s: %s", problem_text(p), all->text);
  int64_t first = 0;
  for (int32_t l = 0; l < p->level_count; l++) {
    problem *own = problem_of_level(p, l, first);
    outcome *one = problem_run(own, device);
    cr_assert_eq(one->status, TARE_STATUS_OK, "%s: %s", problem_text(own), one->text);
    if (weight_of_level(p, l) == 1) CHECK_SAME("loss of a level", &all->level_loss[l], &one->loss, 1);
    check_part(all->gradient, one->gradient, first, own->rows, p->classes);
    check_part(all->row_loss, one->row_loss, first, own->rows, 1);
    check_part(all->element_loss, one->element_loss, first, own->rows, p->classes);
    first += own->rows;
    outcome_free(one);
    problem_free(own);
  }
  outcome_free(all);
  problem_free(p);
}

enum { OUTPUTS = 7 };

/** The outputs of a DETR's decoder: [images, 300, 80], the last two of denoising queries. */
static problem *detr(int32_t kind, int32_t dtype) {
  level_shape shapes[OUTPUTS];
  for (int l = 0; l < OUTPUTS; l++)
    shapes[l] = (level_shape){.height = 1, .width = test_size(300, 60) + (l > 4 ? 33 : 0), .anchors = 1};
  problem *p = problem_new_levels(kind, dtype, 2, 80, OUTPUTS, shapes);
  p->want = WANT_LOSS | WANT_GRADIENT | WANT_LEVEL_LOSSES;
  problem_draw_labels(p, 0.05, 0);
  if (takes_scores(kind)) problem_draw_scores(p, TARE_DTYPE_F32);
  for (int l = 0; l < OUTPUTS; l++)
    p->of_level[l] = (level_scalars){.divisor = l > 4 ? 95.0 : 19.0, .on_device = l > 4};
  return p;
}

Test(level_losses, seven_outputs_and_two_divisors) {
  FOR_EACH_DEVICE(device) for (int i = 0; i < 6; i++) {
    static const int32_t kinds[] = {TARE_LOSS_SIGMOID_VARIFOCAL, TARE_LOSS_SIGMOID_FOCAL, TARE_LOSS_SOFTMAX_CE};
    problem *p = detr(kinds[i % 3], i < 3 ? TARE_DTYPE_F32 : TARE_DTYPE_BF16);
    if (i == 4) p->want |= WANT_ROW_LOSS | WANT_ELEMENT_LOSS;
    p->loss_dtype = i % 2 ? TARE_DTYPE_F64 : TARE_DTYPE_F32;
    check_levels(p, device);
  }
}

/* Maps of every size, a divisor that is formed of each level, and weights. */
Test(level_losses, maps) {
  static const level_shape pyramid[] = {{21, 19, 3}, {11, 10, 3}, {6, 5, 3}, {3, 3, 3}, {2, 2, 3}};
  FOR_EACH_DEVICE(device) for (int i = 0; i < 8; i++) {
    const int32_t kind = i % 2 ? TARE_LOSS_SIGMOID_FOCAL : TARE_LOSS_SOFTMAX_FOCAL;
    problem *p = problem_new_levels(kind, i < 4 ? TARE_DTYPE_F32 : TARE_DTYPE_F16, 2, 9, 5, pyramid);
    p->want = WANT_LOSS | WANT_GRADIENT | WANT_LEVEL_LOSSES;
    p->normalizer = i % 4 < 2 ? TARE_NORMALIZER_POSITIVES : TARE_NORMALIZER_WEIGHTS;
    p->normalizer_scope = TARE_NORMALIZER_SCOPE_LEVEL;
    p->normalizer_addend = 1;
    p->of_level[1].weight = 0.5;
    p->of_level[3].weight = 0.001;
    p->of_level[4].divisor = 3;
    for (int a = 0; a < ARRAY_KINDS; a++) p->place[a].channels_first = !is_row_array(a);
    check_levels(p, device);
  }
}

/* The sum of the levels' losses is the loss. */
Test(level_losses, add_up) {
  FOR_EACH_DEVICE(device) {
    problem *p = problem_of_levels(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32);
    give_scalars(p);
    outcome *o = problem_run(p, device);
    double sum = 0;
    for (int32_t l = 0; l < LEVELS; l++) sum += o->level_loss[l];
    CHECK_SAME("sum", &sum, &o->loss, 1);
    cr_assert_eq(o->level_loss[1], 0, "a level without rows");
    outcome_free(o);
    problem_free(p);
  }
}

/* ---- Refusals ---------------------------------------------------------------------------------------------------- */

static problem *problem_with(level_scalars scalars) {
  problem *p = problem_of_levels(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32);
  p->of_level[2] = scalars;
  return p;
}

/** Another batch or output. */
static tare_status changed(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                           const tare_output *output, void *user) {
  tare_level some[LEVELS];
  tare_batch other = *batch;
  tare_output others = *output;
  const char *const what = user;
  memcpy(some, batch->levels, sizeof some);
  other.levels = some;
  if (strcmp(what, "shared") == 0) some[3].loss = some[2].loss;
  if (strcmp(what, "aligned") == 0) some[2].loss = (char *)some[2].loss + 1;
  if (strcmp(what, "both") == 0) some[2].divisor = 2;
  if (strcmp(what, "scope") == 0) others.normalizer_scope = 2;
  if (strcmp(what, "weight") == 0) some[2].loss_weight = 0;
  if (strcmp(what, "norm_bins") == 0) others.norm_bins = 1;
  return tare_evaluate(context, loss, &other, &others, NULL);
}

static problem *problem_changed(const char *what, level_scalars scalars) {
  problem *p = problem_with(scalars);
  p->call = changed;
  p->user = (void *)(uintptr_t)what;
  return p;
}

Test(level_losses, refusals) {
  const tare_status invalid = TARE_STATUS_INVALID_ARGUMENT;
  const level_scalars none = {0};
  FOR_EACH_DEVICE(device) {
    CHECK_REFUSED(problem_with((level_scalars){.divisor = NAN}), device, invalid, "levels[2].divisor is nan");
    CHECK_REFUSED(problem_with((level_scalars){.divisor = 1e-309}), device, invalid, "reciprocal must be finite");
    CHECK_REFUSED(problem_with((level_scalars){.weight = INFINITY}), device, invalid, "levels[2].loss_weight is inf");
    CHECK_REFUSED(problem_with((level_scalars){.weight = 2e38}), device, invalid,
                  "product with output->gradient_scale");
    CHECK_REFUSED(problem_changed("shared", none), device, invalid, "levels[3].loss is 0x");
    CHECK_REFUSED(problem_changed("aligned", none), device, invalid, "must be aligned to 8 and 4 bytes");
    CHECK_REFUSED(problem_changed("both", (level_scalars){.divisor = 2, .on_device = true}), device, invalid,
                  "give one of them");
    CHECK_REFUSED(problem_changed("weight", none), device, invalid, "levels[2].loss_weight is 0; it must not be 0");
    CHECK_REFUSED(problem_changed("scope", none), device, invalid, "output->normalizer_scope is 2");
    CHECK_REFUSED(problem_changed("norm_bins", none), device, invalid, "output->norm_bins is 1");
    problem *sum = problem_with(none);
    sum->normalizer = TARE_NORMALIZER_SUM;
    sum->normalizer_scope = TARE_NORMALIZER_SCOPE_LEVEL;
    CHECK_REFUSED(sum, device, invalid, "the scope needs a normalizer that is formed from the batch");
    problem *ghm = problem_of_levels(TARE_LOSS_GHM_C, TARE_DTYPE_F32);
    ghm->of_level[0].divisor = 2;
    CHECK_REFUSED(ghm, device, TARE_STATUS_UNSUPPORTED, "levels[0].divisor or divisor_pointer with ghm-c");
  }
}

Test(level_losses, a_fused_head_has_none) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    problem *p = head_problem(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 20, 5, 8);
    p->want = WANT_LOSS | WANT_LEVEL_LOSSES;
    CHECK_REFUSED(p, device, TARE_STATUS_UNSUPPORTED, "with a fused head, which does not take them");
  }
}
