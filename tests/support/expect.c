/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A problem through the oracle, the tolerances that the library promises, and the comparison of the two.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "head.h"
#include "numbers.h"
#include "parameters.h"
#include "problem.h"

static enum oracle_normalizer oracle_normalizer(int32_t normalizer) {
  static const enum oracle_normalizer names[] = {ORACLE_SUM,     ORACLE_ELEMENTS, ORACLE_ROWS,    ORACLE_POSITIVES,
                                                 ORACLE_WEIGHTS, ORACLE_VALUE,    ORACLE_TARGETS, ORACLE_ONES};
  return names[normalizer];
}

#define COPY_NUMBER(name, value) to->name = (value)
#define COPY_INTEGER(name, value) to->name = (value)
#define COPY_CHOICE(names) COPY_NUMBER
#define COPY_PER_CLASS(name, value) to->name = p->name
#define COPY_STATE(name, value) to->name = p->oracle_state

/* A parameter that the oracle has no field for does not compile. */
static void copy_parameters(struct oracle_problem *to, const problem *p) {
  switch (p->loss.kind) {
    default:
#define TARE_PARAMETERS_OF(KIND) \
  break;                         \
  case TARE_LOSS_##KIND:
#define TARE_PARAMETER(KIND, field, name, option, TYPE, ...) COPY_##TYPE(name, p->loss.field);
#include "losses/parameters.def"
#undef TARE_PARAMETERS_OF
#undef TARE_PARAMETER
      break;
  }
}

static void keep_if(double **kept, double **from, bool wanted) {
  if (!wanted) return;
  *kept = *from;
  *from = NULL;
}

/* Targets and what they may be, in their own type; f64 ones beside narrower logits are rounded to f32 first. `rounded`
 * holds these, and is the caller's to free. */
static void set_targets(struct oracle_problem *to, const problem *p, double **rounded) {
  const bool narrows = p->target_dtype == TARE_DTYPE_F64 && p->dtype != TARE_DTYPE_F64;
  const bool is_half = p->target_dtype == TARE_DTYPE_F16 || p->target_dtype == TARE_DTYPE_BF16;
  const int32_t dtype = narrows ? TARE_DTYPE_F32 : p->target_dtype;
  to->targets = p->targets;
  to->target_least = round_to_dtype(dtype, is_half ? -1e-2 : -1e-3);
  to->target_most = round_to_dtype(dtype, is_half ? 1.01 : 1.001);
  if (!p->targets || !narrows || p->loss.kind == TARE_LOSS_GHM_R) return; /* GHM-R takes differences in double */
  *rounded = calloc((size_t)(p->rows * p->classes) + 1, sizeof **rounded);
  for (int64_t i = 0; i < p->rows * p->classes; i++) (*rounded)[i] = round_to_dtype(TARE_DTYPE_F32, p->targets[i]);
  to->targets = *rounded;
}

/* What LDAM's logits are multiplied by, in their own type. */
static double scale_of_rows(const problem *p) {
  const double scale = named_parameter(&p->loss, "scale", 1);
  return p->dtype == TARE_DTYPE_F64 ? scale : (double)(float)scale;
}

static void set_scores(struct oracle_problem *to, const problem *p) {
  const bool is_half = p->score_dtype == TARE_DTYPE_F16 || p->score_dtype == TARE_DTYPE_BF16;
  to->scores = p->scores;
  to->score_least = round_to_dtype(p->score_dtype, is_half ? -1e-2 : -1e-3);
  to->score_most = round_to_dtype(p->score_dtype, is_half ? 1.01 : 1.001);
  const double last = fmax((double)(p->classes - 1) - to->delta, 0);
  to->delta =
      (double)(p->classes - 1) - round_to_dtype(p->dtype == TARE_DTYPE_F64 ? TARE_DTYPE_F64 : TARE_DTYPE_F32, last);
}

static double *copy_class_sums(const struct oracle_result *answer, int64_t classes) {
  double *sums = calloc((size_t)classes * 4, sizeof *sums);
  for (int64_t c = 0; c < classes; c++) {
    sums[4 * c] = answer->class_sums[c].loss;
    sums[4 * c + 1] = answer->class_sums[c].positive;
    sums[4 * c + 2] = answer->class_sums[c].negative;
    sums[4 * c + 3] = answer->class_sums[c].count;
  }
  return sums;
}

static tare_normalizer_sums copy_normalizer_sums(const struct oracle_normalizer_sums *sums) {
  return (tare_normalizer_sums){.elements = sums->elements,
                                .rows = sums->rows,
                                .positives = sums->positives,
                                .weights = sums->weights,
                                .targets = sums->targets,
                                .ones = sums->ones};
}

static void set_levels(struct oracle_problem *to, const problem *p) {
  to->level_count = p->level_count;
  to->scope_is_level = p->normalizer_scope == TARE_NORMALIZER_SCOPE_LEVEL;
  for (int32_t l = 0; l < p->level_count; l++) {
    const double divisor = p->of_level[l].divisor;
    to->levels[l].rows = p->images * p->levels[l].height * p->levels[l].width * p->levels[l].anchors;
    to->levels[l].weight = weight_of_level(p, l);
    to->levels[l].divisor = p->of_level[l].on_device ? (double)(float)divisor : divisor;
  }
}

/* The sums of the batch, or of each level. */
static void copy_level_results(outcome *o, const struct oracle_problem *question, const struct oracle_result *answer) {
  o->normalizer_sums[0] = copy_normalizer_sums(&answer->normalizer_sums);
  for (int32_t l = 0; l < question->level_count; l++) {
    o->level_loss[l] = answer->level_loss[l];
    if (question->scope_is_level) o->normalizer_sums[l] = copy_normalizer_sums(&answer->level_sums[l]);
  }
}

/* The mask of each row: the image is the outermost axis of a level's rows. */
static unsigned char *spread_mask(const problem *p) {
  if (p->class_mask == NULL) return NULL;
  unsigned char *counts = malloc((size_t)(p->rows * p->classes) + 1), *to = counts;
  for (int32_t l = 0; l < p->level_count; l++) {
    const int64_t rows = p->levels[l].height * p->levels[l].width * p->levels[l].anchors;
    for (int64_t i = 0; i < p->images * rows; i++, to += p->classes)
      memcpy(to, p->class_mask + (p->mask_place.is_one ? 0 : i / rows * p->classes), (size_t)p->classes);
  }
  return counts;
}

outcome *problem_expect(problem *p) {
  struct oracle_problem question;
  oracle_problem_init(&question, oracle_loss_of(p->loss.kind), p->rows, p->classes);
  copy_parameters(&question, p);
  question.scale = scale_of_rows(p);
  question.logits = p->logits;
  question.labels = p->labels;
  double *rounded = NULL;
  set_targets(&question, p, &rounded);
  set_scores(&question, p);
  question.first_label = p->first_label;
  question.background_label = p->background_label;
  question.ignore_label = p->ignore_label;
  question.class_weights = p->class_weights;
  question.background_weight = p->background_weight;
  question.row_weights = p->row_weights;
  question.element_weights = p->element_weights;
  question.positive_weights = p->positive_weights;
  question.negative_weights = p->negative_weights;
  question.background_negative_weights = p->background_negative_weights;
  unsigned char *counts = spread_mask(p);
  question.counts = counts;
  question.normalizer = oracle_normalizer(p->normalizer);
  question.normalizer_value = p->normalizer_on_device ? (double)(float)p->normalizer_value : p->normalizer_value;
  set_levels(&question, p);
  question.normalizer_addend = p->normalizer_addend;
  question.normalizer_minimum = p->normalizer_minimum;
  question.gradient_scale = p->gradient_scale * (p->device_scale != 0 ? (double)(float)p->device_scale : 1);

  struct oracle_result answer;
  oracle_evaluate(&question, &answer);
  outcome *o = calloc(1, sizeof *o);
  o->rows = p->rows;
  o->elements = p->rows * p->classes;
  o->loss = answer.loss;
  o->counts = (tare_counts){.rows = answer.counts.rows,
                            .counted = answer.counts.counted,
                            .positives = answer.counts.positives,
                            .background = answer.counts.background,
                            .ignored = answer.counts.ignored,
                            .invalid = answer.counts.invalid};
  copy_level_results(o, &question, &answer);
  if (p->head != NULL) o->head = head_expect(p, answer.gradient);
  keep_if(&o->gradient, &answer.gradient, p->want & WANT_GRADIENT && p->head == NULL);
  keep_if(&o->row_loss, &answer.row_loss, p->want & WANT_ROW_LOSS);
  keep_if(&o->element_loss, &answer.element_loss, p->want & WANT_ELEMENT_LOSS);
  if (p->want & WANT_CLASS_SUMS) o->class_sums = copy_class_sums(&answer, p->classes);
  oracle_result_free(&answer);
  free(rounded);
  free(counts);
  return o;
}

static double largest_gamma(const problem *p) {
  double largest = named_parameter(&p->loss, "gamma", 0);
  for (int64_t c = 0; p->gamma_per_class != NULL && c < p->classes; c++) largest = fmax(largest, p->gamma_per_class[c]);
  return largest;
}

/* Poly-1 has a term with a power more, and a margin costs half a power more. */
static double exponent_of(const problem *p) {
  tare_parameter_description epsilon;
  const bool is_poly = find_parameter(p->loss.kind, "epsilon", &epsilon) && !is_ghm(p->loss.kind);
  const double of_sides =
      fmax(named_parameter(&p->loss, "gamma_positive", 0), named_parameter(&p->loss, "gamma_negative", 0));
  return largest_gamma(p) + named_parameter(&p->loss, "beta", 0) + 1.5 * of_sides + (is_poly ? 1 : 0);
}

/* Softmax: a difference of logits carries an error of its own size, and so does each sum of logit and offset. */
static double widest_row(const problem *p) {
  double widest = 0, largest = 0;
  for (int64_t row = 0; row < p->rows; row++) {
    double low = INFINITY, high = -INFINITY;
    for (int64_t c = 0; c < p->classes; c++) {
      const double x = p->logits[row * p->classes + c] + (p->offset != NULL ? p->offset[c] : 0);
      if (!isfinite(x)) continue;
      low = fmin(low, x);
      high = fmax(high, x);
      if (p->offset != NULL) largest = fmax(largest, fabs(x));
    }
    widest = fmax(widest, high - low);
  }
  return scale_of_rows(p) * widest + largest;
}

/* Seesaw loss: logits are rounded when their base is taken from them, when that is weighed, and when it is added. */
static double widest_seesaw_row(const problem *p) {
  const double p_size = named_parameter(&p->loss, "p", 0), q = named_parameter(&p->loss, "q", 0);
  double largest = 0, log_counts = 0;
  for (int64_t i = 0; i < p->rows * p->classes; i++)
    if (isfinite(p->logits[i])) largest = fmax(largest, fabs(p->logits[i]));
  for (int64_t c = 0; c < p->classes && p->log_counts != NULL; c++)
    if (isfinite(p->log_counts[c])) log_counts = fmax(log_counts, fabs(p->log_counts[c]));
  return (1 + 2 * q) * (widest_row(p) + largest) + 2 * p_size * log_counts;
}

/* Of an element in the precision that computes it: 4*(1+gamma) ulp of the formula, half an ulp for each of up to
 * eight factors (alpha, four weights, density, divisor, scale), and in a softmax loss the spread of the row. */
static double computed_relative(const problem *p) {
  const double of_row = is_softmax(p->loss.kind) ? widest_row(p) : 0;
  const double spread = p->loss.kind == TARE_LOSS_SOFTMAX_SEESAW ? widest_seesaw_row(p) : of_row;
  if (p->dtype == TARE_DTYPE_F64) return 1e-13 * (1 + exponent_of(p)) + spread * 0x1p-52;
  return (4 * (1 + exponent_of(p)) + 4 + spread) * 0x1p-23;
}

static tolerance rounded_to(const problem *p, int32_t dtype) {
  tolerance allowed = {.absolute = p->slack + (p->dtype == TARE_DTYPE_F64 ? 1e-290 : 1e-34),
                       .relative = computed_relative(p)};
  if (dtype == TARE_DTYPE_F16 || dtype == TARE_DTYPE_BF16) {
    allowed.relative += 1.001 * dtype_roundoff(dtype);
    allowed.absolute += 0.501 * dtype_smallest(dtype);
  }
  return allowed;
}

tolerance gradient_tolerance(const problem *p) { return rounded_to(p, p->dtype); }

tolerance element_tolerance(const problem *p) {
  return rounded_to(p, p->dtype == TARE_DTYPE_F64 ? TARE_DTYPE_F64 : TARE_DTYPE_F32);
}

tolerance row_tolerance(const problem *p) {
  tolerance allowed = element_tolerance(p);
  allowed.relative += p->dtype == TARE_DTYPE_F64 ? 1e-14 : 1e-6;
  allowed.absolute += p->slack * (double)p->classes;
  return allowed;
}

tolerance loss_tolerance(const problem *p) {
  const bool doubles = p->dtype == TARE_DTYPE_F64 && p->loss_dtype == TARE_DTYPE_F64;
  return (tolerance){.absolute = 1e-34, .relative = doubles ? computed_relative(p) : 1e-6};
}

tolerance class_sums_tolerance(const problem *p) {
  return (tolerance){.absolute = 1e-30 + p->slack * (double)p->rows, .relative = computed_relative(p) + 1e-12};
}

static void check_counts(const char *file, int line, const problem *p, const tare_counts *got,
                         const tare_counts *want) {
  const int64_t pairs[6][2] = {{got->rows, want->rows},           {got->counted, want->counted},
                               {got->positives, want->positives}, {got->background, want->background},
                               {got->ignored, want->ignored},     {got->invalid, want->invalid}};
  static const char *const names[6] = {"rows", "counted", "positives", "background", "ignored", "invalid"};
  /* Labels beside targets only mark ignored rows; whether those of a class also count as positives is left open. */
  const bool only_marks = p->targets != NULL && p->labels != NULL && p->loss.kind != TARE_LOSS_GHM_R;
  for (int i = 0; i < 6; i++) {
    if (pairs[i][0] == pairs[i][1] || (only_marks && (i == 2 || i == 3))) continue;
    cr_assert_fail("%s:%d: %s: counts.%s: got %lld, want %lld", file, line, problem_text(p), names[i],
                   (long long)pairs[i][0], (long long)pairs[i][1]);
  }
}

/* Counts are exact, and sums are in double. */
static void check_normalizer_sums(const char *file, int line, const problem *p, const tare_normalizer_sums *got,
                                  const tare_normalizer_sums *want) {
  const double pairs[8][2] = {
      {got->elements, want->elements}, {got->rows, want->rows},      {got->positives, want->positives},
      {got->ones, want->ones},         {got->reserved[0], 0},        {got->reserved[1], 0},
      {got->weights, want->weights},   {got->targets, want->targets}};
  static const char *const names[8] = {"elements",    "rows",        "positives", "ones",
                                       "reserved[0]", "reserved[1]", "weights",   "targets"};
  for (int i = 0; i < 8; i++) {
    if (i == 2 && p->targets != NULL) continue; /* as in check_counts */
    const double allowed = i < 6 ? 0 : 1e-12 * fabs(pairs[i][1]);
    if (!(fabs(pairs[i][0] - pairs[i][1]) <= allowed))
      cr_assert_fail("%s:%d: %s: normalizer_sums.%s: got %.17g, want %.17g", file, line, problem_text(p), names[i],
                     pairs[i][0], pairs[i][1]);
  }
}

static void check_array(const char *file, int line, const problem *p, const char *name, const double *got,
                        const double *want, int64_t count, tolerance allowed) {
  char what[640];
  if (want == NULL) return;
  snprintf(what, sizeof what, "%s of %s", name, problem_text(p));
  (p->drawn ? check_close_or_small : check_close_or_zero)(file, line, what, got, want, (size_t)count, allowed);
}

/* Losses of levels with weights or divisors of both signs cancel: the errors of the operands remain. */
static tolerance tolerance_of_sum(const problem *p, const outcome *want) {
  tolerance allowed = loss_tolerance(p);
  double operands = 0;
  for (int32_t l = 0; l < p->level_count; l++) operands += fabs(want->level_loss[l]);
  const double cancelled = operands - fabs(want->loss);
  if (cancelled > 0 && isfinite(cancelled)) allowed.absolute += allowed.relative * cancelled;
  return allowed;
}

void check_outcome_at(const char *file, int line, const problem *p, const outcome *got, const outcome *want) {
  if (got->status != TARE_STATUS_OK) {
    cr_assert_fail("%s:%d: %s: %s: %s", file, line, problem_text(p), tare_status_name(got->status), got->text);
  }
  if (p->want == 0) cr_assert_fail("%s:%d: %s: nothing was compared", file, line, problem_text(p));
  if (p->want & WANT_LOSS) check_array(file, line, p, "loss", &got->loss, &want->loss, 1, tolerance_of_sum(p, want));
  if (p->want & WANT_COUNTS) check_counts(file, line, p, &got->counts, &want->counts);
  const int32_t sums = p->normalizer_scope == TARE_NORMALIZER_SCOPE_LEVEL ? p->level_count : 1;
  for (int32_t l = 0; p->want & WANT_NORMALIZER_SUMS && l < sums; l++)
    check_normalizer_sums(file, line, p, &got->normalizer_sums[l], &want->normalizer_sums[l]);
  if (p->want & WANT_LEVEL_LOSSES)
    check_array(file, line, p, "losses of levels", got->level_loss, want->level_loss, p->level_count,
                loss_tolerance(p));
  if (p->head != NULL) head_check(file, line, p, got, want);
  check_array(file, line, p, "class sums", got->class_sums, want->class_sums, 4 * p->classes, class_sums_tolerance(p));
  if (p->rows == 0) return;
  check_array(file, line, p, "gradient", got->gradient, want->gradient, p->rows * p->classes, gradient_tolerance(p));
  check_array(file, line, p, "row loss", got->row_loss, want->row_loss, p->rows, row_tolerance(p));
  check_array(file, line, p, "element loss", got->element_loss, want->element_loss, p->rows * p->classes,
              element_tolerance(p));
}

void check_problem_at(const char *file, int line, problem *p, const test_device *device) {
  outcome *got = problem_run(p, device);
  outcome *want = problem_expect(p);
  check_outcome_at(file, line, p, got, want);
  outcome_free(got);
  outcome_free(want);
}

void check_refused_at(const char *file, int line, problem *p, const test_device *device, tare_status status,
                      const char *words) {
  outcome *o = problem_run(p, device);
  if (o->status != status)
    cr_assert_fail("%s:%d: %s: status %s: %s", file, line, problem_text(p), tare_status_name(o->status), o->text);
  if (strstr(o->text, words) == NULL)
    cr_assert_fail("%s:%d: %s: no '%s' in: %s", file, line, problem_text(p), words, o->text);
  outcome_free(o);
  problem_free(p);
}

void check_same_outcome_at(const char *file, int line, const problem *p, const outcome *got, const outcome *want) {
  char what[640];
  if (got->status != TARE_STATUS_OK || want->status != TARE_STATUS_OK) {
    cr_assert_fail("%s:%d: %s: %s%s", file, line, problem_text(p), got->text, want->text);
  }
  snprintf(what, sizeof what, "outcome of %s", problem_text(p));
  if (p->want & WANT_LOSS) check_same(file, line, what, &got->loss, &want->loss, 1);
  if (p->want & WANT_COUNTS) check_counts(file, line, p, &got->counts, &want->counts);
  if (p->want & WANT_NORMALIZER_SUMS)
    check_same(file, line, what, &got->normalizer_sums[0].elements, &want->normalizer_sums[0].elements, 8);
  if (p->want & WANT_LEVEL_LOSSES)
    check_same(file, line, what, got->level_loss, want->level_loss, (size_t)p->level_count);
  if (p->head != NULL) head_check_same(file, line, p, got, want);
  if (p->want & WANT_CLASS_SUMS)
    check_same(file, line, what, got->class_sums, want->class_sums, 4 * (size_t)p->classes);
  if (p->want & WANT_GRADIENT && p->head == NULL)
    check_same(file, line, what, got->gradient, want->gradient, (size_t)got->elements);
  if (p->want & WANT_ROW_LOSS) check_same(file, line, what, got->row_loss, want->row_loss, (size_t)got->rows);
  if (p->want & WANT_ELEMENT_LOSS) {
    check_same(file, line, what, got->element_loss, want->element_loss, (size_t)got->elements);
  }
}

void check_same_bits(problem *p, problem *other, const test_device *device) {
  outcome *got = problem_run(p, device), *want = problem_run(other, device);
  CHECK_SAME_OUTCOME(p, got, want);
  outcome_free(got);
  outcome_free(want);
  problem_free(p);
  problem_free(other);
}
