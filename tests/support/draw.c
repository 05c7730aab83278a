/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A random problem: size, layout, labels, numbers, weights, outputs, in this order.
 */
#include "draw.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "draw_parts.h"
#include "head.h"
#include "numbers.h"
#include "parameters.h"

enum { MOST_EXACT = 600 };

/* ---- Labels ------------------------------------------------------------------------------------------------------ */

static void draw_convention(problem *p, random_source *s) {
  p->label_dtype = (int32_t)random_below(s, 2);
  const int64_t base = p->label_dtype == TARE_LABEL_DTYPE_I64 && one_in(s, 3) ? INT64_C(1) << 40 : 0;
  switch (random_below(s, 5)) {
    case 0: /* mmcv: background = classes */
      p->background_label = p->classes;
      break;
    case 1: /* Detectron: background 0, first label 1 */
      p->first_label = base + 1;
      p->background_label = base;
      p->ignore_label = base - 1;
      break;
    case 2: /* in the range of the classes */
      p->background_label = random_below(s, p->classes);
      break;
    case 3:
      p->first_label = base - 1000;
      p->background_label = base + 77777;
      p->ignore_label = base - 77777;
      break;
    default:
      break;
  }
}

static int64_t draw_label(const problem *p, random_source *s, double positive, double ignored) {
  const double choice = random_uniform(s);
  if (choice < positive) return p->first_label + random_below(s, p->classes);
  return choice < positive + ignored ? p->ignore_label : p->background_label;
}

static void draw_labels(problem *p, random_source *s) {
  const double positive = ONE_OF(s, 0.05, 0.35, 0.9, 0), ignored = ONE_OF(s, 0, 0.05, 0.3, 1);
  for (int64_t i = 0; i < p->rows; i++) p->labels[i] = draw_label(p, s, positive, ignored);
}

/* ---- Parameters and weights -------------------------------------------------------------------------------------- */

static double draw_alpha(random_source *s) { return ONE_OF(s, -1, -1, 0.25, 0.75, 0, 1, 0.9999, 1e-4, 0.999); }

static double draw_gamma(random_source *s) { return ONE_OF(s, 0, 0.5, 1, 1.5, 2, 2, 3, 3.7, 5, 0.3); }

static void draw_ghm(problem *p, random_source *s) {
  tare_ghm_parameters *ghm = &p->loss.ghm;
  ghm->bins = (int32_t)ONE_OF(s, 1, 2, 10, 30, 30, 33, 64, 1024);
  ghm->mu = ONE_OF(s, 0.02, 0.02, 1, 1e-3);
  if (p->head == NULL && p->rows * p->classes < MOST_EXACT && one_in(s, 4)) {
    ghm->density = TARE_GHM_DENSITY_EXACT;
    return;
  }
  ghm->variant = (int32_t)random_below(s, 2);
  ghm->momentum = one_in(s, 2) ? 0.75 : 0;
  if (ghm->momentum > 0 || one_in(s, 2)) problem_add_ghm_state(p);
}

/* Of priors, larger than any logit, all the same, and of classes that are left out. */
static void draw_offsets(problem *p, random_source *s) {
  const int64_t manner = random_below(s, 4);
  for (int64_t c = 0; c < p->classes; c++) {
    double offset = manner == 0 ? -3 : (manner == 1 ? 60 : 4) * random_normal(s);
    if (manner == 2 && one_in(s, 6)) offset = -INFINITY;
    p->offset[c] = (double)(float)offset;
  }
}

/* Of a tail, all the same, and of classes that are left out. */
static void draw_log_counts(problem *p, random_source *s) {
  const int64_t manner = random_below(s, 3);
  for (int64_t c = 0; c < p->classes; c++) {
    const double count = manner == 0 ? 1 : random_below(s, 3) ? 1 + (double)random_below(s, 100000) : 1;
    p->log_counts[c] = manner == 2 && one_in(s, 6) ? -INFINITY : (double)(float)log(count);
  }
}

/* The rarest class's, larger than any cosine, and of classes that are left out. */
static void draw_margins(problem *p, random_source *s) {
  const int64_t manner = random_below(s, 4);
  for (int64_t c = 0; c < p->classes; c++) {
    const double margin = manner == 0 ? 0.5 : (manner == 1 ? 60 : 0.5) * random_uniform(s);
    p->margins[c] = manner == 2 && one_in(s, 6) ? INFINITY : (double)(float)margin;
  }
}

/* Of a parameter that is not named here the default. */
static double draw_parameter(const tare_parameter_description *parameter, random_source *s) {
  if (strcmp(parameter->option, "alpha") == 0) return parameter->high > 1 && one_in(s, 3) ? 2.5 : draw_alpha(s);
  if (strcmp(parameter->option, "gamma") == 0 || strcmp(parameter->option, "quality-beta") == 0) return draw_gamma(s);
  if (strcmp(parameter->option, "p-exponent") == 0) return ONE_OF(s, 0.25, 0.25, 0, 0.5);
  if (strcmp(parameter->option, "label-smoothing") == 0) return ONE_OF(s, 0, 0, 0.1, 0.01, 0.9);
  if (strcmp(parameter->option, "gamma-positive") == 0 || strcmp(parameter->option, "gamma-negative") == 0)
    return draw_gamma(s);
  if (strcmp(parameter->option, "margin") == 0) return ONE_OF(s, 0.05, 0.05, 0, 0.2, 0.5, 1);
  if (strcmp(parameter->option, "heatmap-beta") == 0) return ONE_OF(s, 4, 4, 0, 1, 2.5);
  if (strcmp(parameter->option, "threshold") == 0) return ONE_OF(s, 0.5, 0.5, 0.75, 1);
  if (strcmp(parameter->option, "steepness") == 0) return ONE_OF(s, 2, 4, 0.5, 10);
  if (strcmp(parameter->option, "delta") == 0) return ONE_OF(s, 0, 0, 0.01, 0.5, 1);
  if (strcmp(parameter->option, "shift") == 0) return ONE_OF(s, 1, 0, -2, 5);
  if (strcmp(parameter->option, "ldam-scale") == 0) return ONE_OF(s, 30, 30, 1, 0.07, 1000, 1e-6);
  if (strcmp(parameter->option, "seesaw-p") == 0) return ONE_OF(s, 0.8, 0.8, 0, 1.5);
  if (strcmp(parameter->option, "seesaw-q") == 0) return ONE_OF(s, 2, 2, 0, 0.7);
  if (strcmp(parameter->option, "seesaw-epsilon") == 0) return ONE_OF(s, 0.01, 0.01, 1, 1e-6);
  if (parameter->type == TARE_PARAMETER_TYPE_CHOICE) return (double)random_below(s, (int64_t)parameter->high + 1);
  if (strcmp(parameter->option, "poly-epsilon") == 0) return ONE_OF(s, 1, 1, 0, 0.5, 3);
  return parameter->default_value;
}

static void draw_parameters(problem *p, random_source *s) {
  if (is_ghm(p->loss.kind)) {
    draw_ghm(p, s);
    return;
  }
  if (p->offset != NULL) draw_offsets(p, s);
  if (p->log_counts != NULL) draw_log_counts(p, s);
  if (p->margins != NULL) draw_margins(p, s);
  const int32_t count = describe_loss(p->loss.kind).parameters;
  for (int32_t i = 0; i < count; i++) {
    const tare_parameter_description parameter = describe_parameter(p->loss.kind, i);
    if (parameter.type != TARE_PARAMETER_TYPE_PER_CLASS)
      parameter_set(&p->loss, &parameter, draw_parameter(&parameter, s));
  }
}

/* Exact zeros, ones, and between. */
static double *draw_weights(random_source *s, int64_t count, double most) {
  double *weights = calloc((size_t)count + 1, sizeof *weights);
  for (int64_t i = 0; i < count; i++) {
    const int64_t choice = random_below(s, 10);
    weights[i] = choice == 0 ? 0 : choice < 3 ? 1 : (double)(float)(most * random_uniform(s));
  }
  return weights;
}

static bool takes_alpha(const problem *p) {
  tare_parameter_description alpha;
  return find_parameter(p->loss.kind, "alpha_per_class", &alpha);
}

/* What a label smoothed cannot have. */
static void draw_columns(problem *p, random_source *s) {
  tare_parameter_description smoothing;
  if (!describe_loss(p->loss.kind).takes_negative_weights || !one_in(s, 4)) return;
  if (find_parameter(p->loss.kind, "label_smoothing", &smoothing)) parameter_set(&p->loss, &smoothing, 0);
  if (one_in(s, 2)) p->negative_weights = draw_weights(s, p->classes, ONE_OF(s, 4, 4, 1e-3, 1e-9));
  if (p->targets == NULL && one_in(s, 2))
    p->background_negative_weights = draw_weights(s, p->classes, ONE_OF(s, 4, 4, 1e-3, 1e-9));
  if (find_parameter(p->loss.kind, "gamma_per_class", &smoothing) && one_in(s, 2))
    p->gamma_per_class = draw_weights(s, p->classes, 5);
}

static void draw_all_weights(problem *p, random_source *s) {
  const bool sigmoid = !is_softmax(p->loss.kind) && !is_ghm(p->loss.kind);
  if (one_in(s, 3)) p->row_weights = draw_weights(s, p->rows, 2);
  if (sigmoid && one_in(s, 3)) p->element_weights = draw_weights(s, p->rows * p->classes, 2);
  if (sigmoid && one_in(s, 4)) p->positive_weights = draw_weights(s, p->classes, ONE_OF(s, 4, 4, 1e-3, 1e-9));
  if (takes_alpha(p) && one_in(s, 4)) p->alpha_per_class = draw_weights(s, p->classes, ONE_OF(s, 1, 1, 1e-4));
  const bool has_classes = takes_bins(p->loss.kind) != 1 || p->scores == NULL;
  draw_columns(p, s);
  if (is_ghm(p->loss.kind) || p->targets != NULL || !has_classes) return;
  if (one_in(s, 3)) p->class_weights = draw_weights(s, p->classes, 2);
  if (one_in(s, 3)) p->background_weight = ONE_OF(s, 0, 0.5, 1, 3);
}

/* ---- Outputs ----------------------------------------------------------------------------------------------------- */

/* A fused head has no levels. */
static void draw_levels(problem *p, random_source *s) {
  const bool is_divided = p->normalizer != TARE_NORMALIZER_SUM && p->normalizer != TARE_NORMALIZER_VALUE;
  if (p->head != NULL || !one_in(s, 3)) return;
  if (one_in(s, 2)) p->want |= WANT_LEVEL_LOSSES;
  if (is_divided && one_in(s, 3)) p->normalizer_scope = TARE_NORMALIZER_SCOPE_LEVEL;
  for (int32_t l = 0; l < p->level_count; l++) {
    p->of_level[l].weight = ONE_OF(s, 1, 1, 1, -1, 0.5);
    if (!is_ghm(p->loss.kind)) p->of_level[l].divisor = ONE_OF(s, 0, 0, 1, 3, -1000.5);
    p->of_level[l].on_device = p->of_level[l].divisor != 0 && one_in(s, 2);
  }
}

static void draw_output(problem *p, random_source *s) {
  const unsigned all = is_softmax(p->loss.kind) ? WANT_ALL & ~(unsigned)WANT_ELEMENT_LOSS : WANT_ALL;
  if (one_in(s, 2)) p->want = (unsigned)random_below(s, WANT_ALL + 1) & all;
  if (p->head != NULL) p->want |= WANT_GRADIENT;
  if (p->want == 0) p->want = WANT_LOSS;
  p->loss_dtype = one_in(s, 2) ? TARE_DTYPE_F64 : TARE_DTYPE_F32;
  p->gradient_scale = one_in(s, 2) ? ONE_OF(s, 1, -1, 0.5, 128, 0) : 1;
  if (one_in(s, 4)) p->device_scale = ONE_OF(s, 2, -3, 0.125);
  if (is_ghm(p->loss.kind)) return;
  p->normalizer = (int32_t)random_below(s, 8);
  if (p->targets != NULL && p->normalizer == TARE_NORMALIZER_POSITIVES) p->normalizer = TARE_NORMALIZER_SUM;
  if (one_in(s, 4)) p->want |= WANT_NORMALIZER_SUMS;
  if (p->normalizer != TARE_NORMALIZER_SUM && p->normalizer != TARE_NORMALIZER_VALUE) {
    p->normalizer_minimum = ONE_OF(s, 1, 2.5, 1e4); /* below 1 it would be a factor of the slack */
    p->normalizer_addend = ONE_OF(s, 0, 0, 1, 0.5);
  }
  if (p->normalizer != TARE_NORMALIZER_VALUE) return;
  p->normalizer_value = ONE_OF(s, 1, 7, 0.25, -2, 1000.5);
  p->normalizer_on_device = one_in(s, 2);
}

/* The columns of GHM-R and rows of a softmax loss with targets of several classes have none. */
static void draw_class_sums(problem *p, random_source *s) {
  const bool has_none = p->loss.kind == TARE_LOSS_GHM_R || (is_softmax(p->loss.kind) && (p->targets || p->scores));
  if (!has_none && one_in(s, 3)) p->want |= WANT_CLASS_SUMS;
}

static double largest(const double *weights, int64_t count) {
  double most = 1;
  for (int64_t i = 0; weights != NULL && i < count; i++) most = fmax(most, weights[i]);
  return most;
}

/* Near p = t a soft gradient cancels: its error is measured against its operands, and every weight multiplies it. */
static void set_slack(problem *p) {
  const double weights = largest(p->row_weights, p->rows) * largest(p->element_weights, p->rows * p->classes) *
                         largest(p->positive_weights, p->classes) * largest(p->negative_weights, p->classes) *
                         largest(p->background_negative_weights, p->classes) *
                         (is_softmax(p->loss.kind) ? (double)p->classes : 1);
  const double scale = fmax(1, fabs(p->gradient_scale * (p->device_scale != 0 ? p->device_scale : 1)));
  const double divisor = p->normalizer == TARE_NORMALIZER_VALUE ? fmin(1, fabs(p->normalizer_value)) : 1;
  p->slack = (p->dtype == TARE_DTYPE_F64 ? 1e-14 : 2e-6) * weights * scale / divisor;
}

/* ---- Together ---------------------------------------------------------------------------------------------------- */

static problem *draw_head(int32_t kind, random_source *s) {
  const int64_t classes = 1 + random_below(s, one_in(s, 4) ? 90 : 12), dimensions = 1 + random_below(s, 24);
  const int32_t dtype = (int32_t)random_below(s, 3);
  problem *p = head_problem(kind, dtype, random_below(s, 60), classes, dimensions);
  struct head *h = p->head;
  h->outputs = one_in(s, 2) ? HEAD_ALL : (unsigned)random_below(s, HEAD_ALL + 1);
  h->in_place = one_in(s, 3);
  h->accumulate = one_in(s, 3);
  h->padding = one_in(s, 2) ? random_below(s, 5) : 0;
  h->gradient_padding = one_in(s, 2) ? random_below(s, 5) : 0;
  h->room = one_in(s, 3) ? 0 : random_uniform(s);
  if (one_in(s, 3)) {
    free(h->bias);
    h->bias = NULL;
    head_multiply(p);
  }
  return p;
}

/* By numbers of its own, so that the other parts of a problem are what they were without it. */
static void draw_class_mask(problem *p, int64_t index) {
  random_source source = random_from(0x6d61736b + (uint64_t)index), *s = &source;
  if (describe_loss(p->loss.kind).family != TARE_LOSS_FAMILY_SIGMOID || !one_in(s, 4)) return;
  problem_draw_class_mask(p, ONE_OF(s, 0.1, 0.5, 0.9));
  p->mask_place = (mask_placement){.is_one = one_in(s, 3),
                                   .flips = one_in(s, 4),
                                   .channels_first = one_in(s, 4),
                                   .class_pad = one_in(s, 3) ? random_below(s, 3) : 0,
                                   .image_pad = one_in(s, 3) ? random_below(s, 9) : 0};
}

/* By numbers of its own, as a class mask. */
static void draw_z_loss(problem *p, int64_t index) {
  random_source source = random_from(0x7a6c6f73 + (uint64_t)index), *s = &source;
  tare_parameter_description z_loss;
  if (p->targets == NULL && find_parameter(p->loss.kind, "z_loss", &z_loss) && one_in(s, 3))
    parameter_set(&p->loss, &z_loss, ONE_OF(s, 1e-4, 0.1));
}

/* A label of an excluded class is invalid: such a row is ignored. Background stays, and with targets every class. */
static void keep_labels_of_classes(problem *p) {
  for (int64_t c = 0; c < p->classes; c++) {
    const bool stays = p->targets != NULL || c == p->background_label - p->first_label;
    if (p->offset != NULL && p->offset[c] == -INFINITY && stays) p->offset[c] = -30;
    if (p->margins != NULL && p->margins[c] == INFINITY && stays) p->margins[c] = 30;
  }
  for (int64_t i = 0; i < p->rows && p->labels != NULL; i++) {
    const int64_t c = p->labels[i] - p->first_label;
    if (c < 0 || c >= p->classes) continue;
    const bool excluded = (p->offset && p->offset[c] == -INFINITY) || (p->margins && p->margins[c] == INFINITY);
    if (excluded) p->labels[i] = p->ignore_label;
  }
}

/* What cannot be combined. */
static void settle(problem *p) {
  tare_parameter_description smoothing, smoothed;
  const bool has_smoothing = find_parameter(p->loss.kind, "label_smoothing", &smoothing);
  if (has_smoothing && (p->targets != NULL || p->scores != NULL)) parameter_set(&p->loss, &smoothing, 0);
  if (p->alpha_per_class != NULL && find_parameter(p->loss.kind, "smoothed", &smoothed))
    parameter_set(&p->loss, &smoothed, TARE_SMOOTHED_CROSS_ENTROPY);
  if (p->loss.kind == TARE_LOSS_SIGMOID_VARIFOCAL && p->targets != NULL)
    p->loss.varifocal.positives = TARE_POSITIVES_BY_SCORE;
}

static bool cancels(const problem *p) {
  return (p->targets != NULL && p->loss.kind != TARE_LOSS_GHM_R) || p->scores != NULL ||
         named_parameter(&p->loss, "label_smoothing", 0) > 0 || named_parameter(&p->loss, "z_loss", 0) > 0;
}

problem *draw_problem(int64_t index, bool heads) {
  random_source source = random_from(0x70726f62 + (uint64_t)index), *s = &source;
  const int32_t kind = tare_loss_kind_at((int32_t)random_below(s, tare_loss_count()));
  problem *p = heads && one_in(s, 8) ? draw_head(kind, s) : draw_shape(kind, s);
  p->drawn = true;
  draw_convention(p, s);
  draw_labels(p, s);
  draw_parameters(p, s);
  if (p->head == NULL && kind == TARE_LOSS_GHM_R) draw_regression(p, s);
  if (p->head == NULL && kind != TARE_LOSS_GHM_R) draw_logits(p, s);
  if (takes_targets(kind) && one_in(s, 3)) draw_targets(p, s);
  if (kind != TARE_LOSS_GHM_R && p->targets != NULL && one_in(s, 2)) {
    free(p->labels);
    p->labels = NULL;
  }
  if (takes_scores(kind) && p->targets == NULL && one_in(s, 3)) draw_scores(p, s);
  if (takes_bins(kind) && one_in(s, 2)) draw_bins(p, s);
  draw_all_weights(p, s);
  settle(p);
  keep_labels_of_classes(p);
  draw_z_loss(p, index);
  if (p->targets != NULL) p->place[ARRAY_LOGITS].broadcast = 0; /* what a logit may be depends on its target */
  if (p->scores != NULL) p->place[ARRAY_SCORES].broadcast = 0;  /* and a score on its label */
  if (is_ghm(kind) || kind == TARE_LOSS_SIGMOID_QUALITY_FOCAL) p->place[ARRAY_TARGETS].broadcast = 0; /* and back */
  make_numbers_agree(p);
  if (cancels(p)) keep_small(p);
  keep_off_edges(p);
  problem_keep_off_p(p);
  if (is_ghm(kind) && p->loss.ghm.density == TARE_GHM_DENSITY_EXACT && !draw_window(p, s))
    p->loss.ghm.density = TARE_GHM_DENSITY_UNIT_REGION;
  draw_output(p, s);
  draw_levels(p, s);
  draw_class_sums(p, s);
  draw_class_mask(p, index);
  if (cancels(p)) set_slack(p);
  return p;
}

void draw_check_state(const problem *p) {
  if (p->ghm_state == NULL) return;
  const int32_t bins = p->loss.ghm.bins;
  const struct oracle_ghm_state *want = p->oracle_state;
  cr_assert_eq((int64_t)p->ghm_state[0], want->steps, "%s: step", problem_text(p));
  cr_assert_eq((int64_t)p->ghm_state[1], want->total, "%s: N", problem_text(p));
  const double *sums = (const double *)(const void *)(p->ghm_state + 2 + bins), *inverse = sums + bins;
  for (int32_t k = 0; k < bins; k++) {
    cr_assert_eq((int64_t)p->ghm_state[2 + k], want->counts[k], "%s: bin %d", problem_text(p), k);
    CHECK_NEAR(problem_text(p), sums[k], want->sums[k], ((tolerance){0, 1e-14}));
    CHECK_NEAR(problem_text(p), inverse[k], want->weights[k], ((tolerance){0, 1e-14}));
  }
}
