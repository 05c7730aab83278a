/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drawing a random problem: size, layout, labels, numbers, weights, outputs, in this order.
 */
#include "draw.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "head.h"
#include "numbers.h"
#include "parameters.h"

enum { MOST_ELEMENTS = 3000, MOST_EXACT = 600 };

static bool one_in(random_source *s, int64_t n) { return random_below(s, n) == 0; }

static double one_of(random_source *s, const double *values, size_t count) {
  return values[random_below(s, (int64_t)count)];
}
#define ONE_OF(s, ...) \
  one_of((s), (const double[]){__VA_ARGS__}, sizeof((const double[]){__VA_ARGS__}) / sizeof(double))

/* ---- Sizes and layout --------------------------------------------------------------------------------------------- */

static int64_t draw_classes(random_source *s) {
  if (one_in(s, 12)) return 60 + random_below(s, 200);
  return one_in(s, 3) ? 1 + random_below(s, 3) : 1 + random_below(s, 40);
}

/* Few problems are empty, most are small, and some are one long level. */
static int32_t draw_levels(random_source *s, int64_t classes, int64_t *images, level_shape *levels) {
  const int64_t most = MOST_ELEMENTS / classes + 1;
  *images = one_in(s, 40) ? 0 : 1 + (one_in(s, 3) ? random_below(s, 3) : 0);
  if (one_in(s, 3)) {
    levels[0] = (level_shape){.height = 1, .width = random_below(s, most), .anchors = 1};
    return 1;
  }
  const int32_t count = (int32_t)(one_in(s, 20) ? TARE_MAX_LEVELS : 1 + random_below(s, 4));
  const int64_t side = (int64_t)sqrt((double)(most / (*images + 1) / count)) + 2;
  for (int32_t l = 0; l < count; l++) {
    levels[l] = (level_shape){
        .height = random_below(s, side), .width = 1 + random_below(s, side), .anchors = 1 + random_below(s, 3)};
  }
  return count;
}

static placement draw_placement(random_source *s, bool channels_first, bool is_output) {
  placement place = {.channels_first = channels_first, .phase = one_in(s, 3) ? random_below(s, 9) : 0};
  if (one_in(s, 5)) place.channels_first = !channels_first;
  for (int axis = 0; axis < AXES; axis++) {
    if (one_in(s, 8)) place.pad[axis] = 1 + random_below(s, 3);
    if (one_in(s, 12)) place.flip |= 1u << axis;
    if (!is_output && one_in(s, 15)) place.broadcast |= 1u << axis;
  }
  return place;
}

static bool is_output_array(int kind) {
  return kind == ARRAY_GRADIENT || kind == ARRAY_ROW_LOSS || kind == ARRAY_ELEMENT_LOSS;
}

static void draw_layout(problem *p, random_source *s) {
  const bool plain = one_in(s, 3), channels_first = one_in(s, 2);
  p->in_place = one_in(s, 3);
  p->image_major = one_in(s, 4);
  for (int kind = 0; kind < ARRAY_KINDS && !plain; kind++) {
    p->place[kind] = draw_placement(s, channels_first, is_output_array(kind) || (kind == ARRAY_LOGITS && p->in_place));
  }
  if (!p->image_major) return;
  for (int kind = 0; kind < ARRAY_KINDS; kind++) {
    if (is_row_array(kind)) p->place[kind] = (placement){0};
  }
}

/* Along an axis of stride 0 the numbers are those of its index 0: where, in row order, those of a place stand. */
static int64_t source_of_broadcast(const problem *p, const level_shape *shape, unsigned axes, int64_t classes,
                                   int64_t place) {
  const int64_t lengths[AXES] = {p->images, shape->height, shape->width, shape->anchors, classes};
  int64_t source = 0, stride = 1;
  for (int axis = AXES - 1; axis >= 0; axis--) {
    if (!(axes >> axis & 1u)) source += place % lengths[axis] * stride;
    place /= lengths[axis];
    stride *= lengths[axis];
  }
  return source;
}

/* All numbers here are 8 bytes wide. */
static void repeat_along_axes(const problem *p, int kind, void *numbers, int64_t classes) {
  char *at = numbers;
  if (numbers == NULL || p->place[kind].broadcast == 0) return;
  for (int32_t l = 0; l < p->level_count; l++) {
    const level_shape *shape = &p->levels[l];
    const int64_t count = p->images * shape->height * shape->width * shape->anchors * classes;
    for (int64_t i = 0; i < count; i++) {
      memcpy(at + 8 * i, at + 8 * source_of_broadcast(p, shape, p->place[kind].broadcast, classes, i), 8);
    }
    at += 8 * count;
  }
}

static void make_numbers_agree(problem *p) {
  repeat_along_axes(p, ARRAY_LOGITS, p->logits, p->classes);
  repeat_along_axes(p, ARRAY_LABELS, p->labels, 1);
  repeat_along_axes(p, ARRAY_TARGETS, p->targets, p->classes);
  repeat_along_axes(p, ARRAY_SCORES, p->scores, 1);
  repeat_along_axes(p, ARRAY_ROW_WEIGHTS, p->row_weights, 1);
  repeat_along_axes(p, ARRAY_ELEMENT_WEIGHTS, p->element_weights, p->classes);
}

/* ---- Numbers ------------------------------------------------------------------------------------------------------ */

/* What a detector gives; far out; the ends of the type, where the loss is no longer finite; ties. */
static double draw_logit(random_source *s, const problem *p, int64_t manner) {
  const double x = random_normal(s);
  switch (manner) {
    case 0:
      return 30 * x;
    case 1:
      return one_in(s, 6) ? ONE_OF(s, INFINITY, -INFINITY, NAN, 1e4, -1e4, 1e-30, -1e-30, 88.8, -103.5, 0, -0.0)
                          : 4 * x;
    case 2:
      return (double)random_below(s, 5) - 2;
    case 3:
      return pow(10, 12 * random_uniform(s) - 10) * (x < 0 ? -1 : 1);
    default:
      return 3 * x - (is_softmax(p->loss.kind) ? 0 : 2);
  }
}

static void draw_logits(problem *p, random_source *s) {
  const int64_t manner = random_below(s, 10);
  for (int64_t i = 0; i < p->rows * p->classes; i++) {
    p->logits[i] = round_to_dtype(p->dtype, draw_logit(s, p, manner));
  }
}

/* GHM-R: differences of every size around mu. The predictions are made from the targets. */
static void draw_regression(problem *p, random_source *s) {
  const double mu = p->loss.ghm.mu;
  for (int64_t i = 0; i < p->rows * p->classes; i++) {
    const double difference = random_normal(s) * mu * pow(10, 3 * random_uniform(s) - 1);
    p->targets[i] = round_to_dtype(p->target_dtype, random_normal(s));
    p->logits[i] = round_to_dtype(p->dtype, one_in(s, 50) ? p->targets[i] : p->targets[i] + difference);
  }
}

static double draw_target(random_source *s) {
  const int64_t choice = random_below(s, 10);
  if (choice < 4) return 0;
  if (choice < 6) return 1;
  return choice == 6 ? ONE_OF(s, 0.5, 0.001, 0.999) : random_uniform(s);
}

static void draw_targets(problem *p, random_source *s) {
  p->target_dtype = (int32_t)random_below(s, 4);
  p->targets = calloc((size_t)(p->rows * p->classes) + 1, sizeof *p->targets);
  for (int64_t i = 0; i < p->rows * p->classes; i++) {
    p->targets[i] = round_to_dtype(p->target_dtype, draw_target(s));
  }
}

/* Scores of labels, and anything in rows without a class. */
static void draw_scores(problem *p, random_source *s) {
  repeat_along_axes(p, ARRAY_LABELS, p->labels,
                    1); /* what a score may be depends on the label that the row will have */
  p->score_dtype = (int32_t)random_below(s, p->dtype == TARE_DTYPE_F64 ? 4 : 3);
  p->scores = calloc((size_t)p->rows + 1, sizeof *p->scores);
  for (int64_t i = 0; i < p->rows; i++) {
    const bool has_class = p->labels[i] != p->background_label && p->labels[i] != p->ignore_label;
    const double score = has_class || one_in(s, 2) ? draw_target(s) : ONE_OF(s, NAN, -5, 1e30, INFINITY);
    p->scores[i] = round_to_dtype(p->score_dtype, score);
  }
}

/* Logits of soft targets and of scores stay small, so that what cancels does. */
static void keep_small(problem *p) {
  for (int64_t i = 0; i < p->rows * p->classes && p->head == NULL; i++) {
    const bool soft = p->targets == NULL || is_softmax(p->loss.kind) || (p->targets[i] > 0 && p->targets[i] < 1);
    if (soft && isfinite(p->logits[i])) p->logits[i] = fmin(fmax(p->logits[i], -16), 16);
  }
}

static bool is_near_edge(const problem *p, int64_t i) {
  const double x = p->logits[i], t = p->targets[i];
  const double norm =
      p->loss.kind == TARE_LOSS_GHM_R ? oracle_ghm_r_norm(x - t, p->loss.ghm.mu) : oracle_ghm_c_norm(x, t);
  const double place = norm * p->loss.ghm.bins;
  return norm > 0 && norm < 1 && fabs(place - nearbyint(place)) < 2e-3;
}

/* Bins that soft norms fall in, and those of GHM-R, are decided with a rounding: elements keep off the edges. A soft target
 * that is near one wherever the logit is becomes a hard one; a fused head's logits stay as they are. */
static void keep_off_edges(problem *p) {
  const bool regression = p->loss.kind == TARE_LOSS_GHM_R;
  if (!is_ghm(p->loss.kind) || p->loss.ghm.density == TARE_GHM_DENSITY_EXACT || p->targets == NULL) return;
  for (int64_t i = 0; i < p->rows * p->classes; i++) {
    for (int tries = 0; tries < 20 && is_near_edge(p, i); tries++) {
      const double step = regression ? 0.25 * fabs(p->logits[i] - p->targets[i]) : 0.25;
      if (p->head == NULL) {
        p->logits[i] = round_to_dtype(p->dtype, p->logits[i] + step);
      } else if (regression) {
        p->targets[i] = round_to_dtype(p->target_dtype, p->targets[i] + step);
      }
    }
    if (!regression && is_near_edge(p, i)) p->targets[i] = 1;
  }
}

/* ---- Labels ------------------------------------------------------------------------------------------------------- */

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

/* ---- Parameters and weights ----------------------------------------------------------------------------------------- */

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
    p->class_offset[c] = (double)(float)offset;
  }
}

/* Of a parameter that is not named here the default. */
static double draw_parameter(const tare_parameter_description *parameter, random_source *s) {
  if (strcmp(parameter->option, "alpha") == 0) return parameter->high > 1 && one_in(s, 3) ? 2.5 : draw_alpha(s);
  if (strcmp(parameter->option, "gamma") == 0 || strcmp(parameter->option, "quality-beta") == 0) return draw_gamma(s);
  if (strcmp(parameter->option, "p-exponent") == 0) return ONE_OF(s, 0.25, 0.25, 0, 0.5);
  if (parameter->type == TARE_PARAMETER_TYPE_CHOICE) return (double)random_below(s, (int64_t)parameter->high + 1);
  if (strcmp(parameter->option, "poly-epsilon") == 0) return ONE_OF(s, 1, 1, 0, 0.5, 3);
  return parameter->default_value;
}

static void draw_parameters(problem *p, random_source *s) {
  if (is_ghm(p->loss.kind)) {
    draw_ghm(p, s);
    return;
  }
  if (p->class_offset != NULL) draw_offsets(p, s);
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

static void draw_all_weights(problem *p, random_source *s) {
  const bool sigmoid = !is_softmax(p->loss.kind) && !is_ghm(p->loss.kind);
  if (one_in(s, 3)) p->row_weights = draw_weights(s, p->rows, 2);
  if (sigmoid && one_in(s, 3)) p->element_weights = draw_weights(s, p->rows * p->classes, 2);
  if (sigmoid && one_in(s, 4)) p->positive_weights = draw_weights(s, p->classes, ONE_OF(s, 4, 4, 1e-3, 1e-9));
  if (takes_alpha(p) && one_in(s, 4)) p->alpha_per_class = draw_weights(s, p->classes, ONE_OF(s, 1, 1, 1e-4));
  if (is_ghm(p->loss.kind) || p->targets != NULL) return;
  if (one_in(s, 3)) p->class_weights = draw_weights(s, p->classes, 2);
  if (one_in(s, 3)) p->background_weight = ONE_OF(s, 0, 0.5, 1, 3);
}

/* ---- Outputs ------------------------------------------------------------------------------------------------------ */

static void draw_output(problem *p, random_source *s) {
  const unsigned all = is_softmax(p->loss.kind) ? WANT_ALL & ~(unsigned)WANT_ELEMENT_LOSS : WANT_ALL;
  if (one_in(s, 2)) p->want = (unsigned)random_below(s, WANT_ALL + 1) & all;
  if (p->head != NULL) p->want |= WANT_GRADIENT;
  if (p->want == 0) p->want = WANT_LOSS;
  p->loss_dtype = one_in(s, 2) ? TARE_DTYPE_F64 : TARE_DTYPE_F32;
  p->gradient_scale = one_in(s, 2) ? ONE_OF(s, 1, -1, 0.5, 128, 0) : 1;
  if (one_in(s, 4)) p->device_scale = ONE_OF(s, 2, -3, 0.125);
  if (is_ghm(p->loss.kind)) return;
  p->normalizer = (int32_t)random_below(s, 6);
  if (p->targets != NULL && p->normalizer == TARE_NORMALIZER_POSITIVES) p->normalizer = TARE_NORMALIZER_SUM;
  if (p->normalizer != TARE_NORMALIZER_VALUE) return;
  p->normalizer_value = ONE_OF(s, 1, 7, 0.25, -2, 1000.5);
  p->normalizer_on_device = one_in(s, 2);
}

/* Heads, the columns of GHM-R, and dense rows of a softmax loss have none. */
static void draw_class_sums(problem *p, random_source *s) {
  const bool has_none = p->head != NULL || p->loss.kind == TARE_LOSS_GHM_R || (is_softmax(p->loss.kind) && p->targets);
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
                         largest(p->positive_weights, p->classes) * (is_softmax(p->loss.kind) ? (double)p->classes : 1);
  const double scale = fmax(1, fabs(p->gradient_scale * (p->device_scale != 0 ? p->device_scale : 1)));
  const double divisor = p->normalizer == TARE_NORMALIZER_VALUE ? fmin(1, fabs(p->normalizer_value)) : 1;
  p->slack = (p->dtype == TARE_DTYPE_F64 ? 1e-14 : 2e-6) * weights * scale / divisor;
}

/* ---- The exact density -------------------------------------------------------------------------------------------- */

static bool decides(const problem *p, const double *norms, int64_t count, double epsilon) {
  const double margin = p->dtype == TARE_DTYPE_F64 ? 1e-12 : 4e-6;
  for (int64_t i = 0; i < count; i++) {
    for (int64_t k = 0; k < i; k++) {
      if (fabs(fabs(norms[i] - norms[k]) - epsilon / 2) < margin) return true;
    }
  }
  return false;
}

/* A window whose ends no element is within rounding of. False: none was found. */
static bool draw_window(problem *p, random_source *s) {
  const int64_t count = p->rows * p->classes;
  double *norms = calloc((size_t)count + 1, sizeof *norms);
  for (int64_t i = 0; i < count; i++) {
    const int64_t row = i / p->classes;
    const double hard =
        p->labels != NULL && p->labels[row] == p->first_label + i % p->classes && p->labels[row] != p->background_label
            ? 1
            : 0;
    const double t = p->targets != NULL ? p->targets[i] : hard;
    norms[i] = p->loss.kind == TARE_LOSS_GHM_R ? oracle_ghm_r_norm(p->logits[i] - t, p->loss.ghm.mu)
                                               : oracle_ghm_c_norm(p->logits[i], t);
    if (isnan(norms[i])) norms[i] = 0;
  }
  bool found = false;
  for (int tries = 0; tries < 200 && !found; tries++) {
    p->loss.ghm.epsilon = pow(10, -2.5 * random_uniform(s)) * 2;
    found = !decides(p, norms, count, p->loss.ghm.epsilon);
  }
  free(norms);
  return found;
}

/* ---- Together ----------------------------------------------------------------------------------------------------- */

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

static problem *draw_shape(int32_t kind, random_source *s) {
  level_shape levels[TARE_MAX_LEVELS];
  int64_t images;
  const int64_t classes = kind == TARE_LOSS_GHM_R && one_in(s, 2) ? 4 : draw_classes(s);
  const int32_t count = draw_levels(s, classes, &images, levels);
  problem *p = problem_new_levels(kind, (int32_t)random_below(s, 4), images, classes, count, levels);
  draw_layout(p, s);
  return p;
}

static bool takes_targets(int32_t kind) { return describe_loss(kind).takes_targets && kind != TARE_LOSS_GHM_R; }

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
  if (kind == TARE_LOSS_SIGMOID_VARIFOCAL && p->targets != NULL) p->loss.varifocal.positives = TARE_POSITIVES_BY_SCORE;
  draw_all_weights(p, s);
  if (p->targets != NULL) p->place[ARRAY_LOGITS].broadcast = 0; /* what a logit may be depends on its target */
  if (p->scores != NULL) p->place[ARRAY_SCORES].broadcast = 0;  /* and a score on its label */
  if (is_ghm(kind) || kind == TARE_LOSS_SIGMOID_QUALITY_FOCAL) p->place[ARRAY_TARGETS].broadcast = 0; /* and back */
  make_numbers_agree(p);
  if ((p->targets != NULL && kind != TARE_LOSS_GHM_R) || p->scores != NULL) keep_small(p);
  keep_off_edges(p);
  problem_keep_off_p(p);
  if (is_ghm(kind) && p->loss.ghm.density == TARE_GHM_DENSITY_EXACT && !draw_window(p, s))
    p->loss.ghm.density = TARE_GHM_DENSITY_UNIT_REGION;
  draw_output(p, s);
  draw_class_sums(p, s);
  if ((p->targets != NULL && kind != TARE_LOSS_GHM_R) || p->scores != NULL) set_slack(p);
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
