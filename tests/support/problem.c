/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making problems: sizes, random numbers, and a line of text that names one.
 */
#include "problem.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "head.h"
#include "numbers.h"
#include "parameters.h"
#include "random.h"

static bool is_computed(int32_t kind) {
  const test_device *device = device_in_turn();
  return device == NULL || device_computes(device, kind, TARE_DTYPE_F32);
}

int32_t listed_losses(void) {
  const int32_t all = tare_loss_count();
  cr_assert_geq(all, 7, "the library lists %d losses", (int)all);
  int32_t count = 0;
  for (int32_t i = 0; i < all; i++) count += is_computed(tare_loss_kind_at(i));
  return count;
}

int32_t next_loss(int32_t index, int line) {
  for (index++; test_is_thinned() && index < listed_losses() && (index + line) % 2 != 0;) index++;
  return index;
}

int32_t listed_loss(int32_t index) {
  for (int32_t i = 0; i < tare_loss_count(); i++) {
    if (is_computed(tare_loss_kind_at(i)) && index-- == 0) return tare_loss_kind_at(i);
  }
  return -1;
}

bool is_softmax(int32_t kind) { return describe_loss(kind).family == TARE_LOSS_FAMILY_SOFTMAX; }

bool takes_targets(int32_t kind) {
  const tare_loss_description loss = describe_loss(kind);
  return loss.takes_targets && loss.family != TARE_LOSS_FAMILY_REGRESSION;
}

bool takes_scores(int32_t kind) {
  tare_loss_description description = {.struct_size = sizeof description};
  cr_assert_eq(tare_loss_describe(kind, &description), TARE_STATUS_OK);
  return description.takes_scores != 0;
}

int32_t takes_bins(int32_t kind) { return describe_loss(kind).takes_bins; }

int64_t score_columns(const problem *p) { return takes_bins(p->loss.kind) == 2 ? 2 : 1; }

static void keep_off(double *target, double logit) {
  if (fabs(*target - oracle_point(logit).p) < 0.05) *target = *target < 0.5 ? 1 : 0;
}

void problem_keep_off_p(problem *p) {
  if (p->loss.kind != TARE_LOSS_SIGMOID_QUALITY_FOCAL) return;
  for (int64_t i = 0; i < p->rows * p->classes && p->targets != NULL; i++)
    if (p->targets[i] > 0 && p->targets[i] < 1) keep_off(&p->targets[i], p->logits[i]);
  for (int64_t row = 0; row < p->rows && p->scores != NULL && p->labels != NULL; row++) {
    const int64_t cls = p->labels[row] - p->first_label;
    const bool is_soft = p->scores[row] > 0 && p->scores[row] < 1;
    if (is_soft && cls >= 0 && cls < p->classes) keep_off(&p->scores[row], p->logits[row * p->classes + cls]);
  }
}

int32_t taken_target_dtype(int32_t kind, int32_t dtype) {
  const bool is_half = dtype == TARE_DTYPE_F16 || dtype == TARE_DTYPE_BF16;
  return kind == TARE_LOSS_SIGMOID_HEATMAP_FOCAL && is_half ? TARE_DTYPE_F32 : dtype;
}

bool is_ghm(int32_t kind) { return describe_loss(kind).has_state != 0; }

static random_source source_of(const problem *p, uint64_t salt) {
  return random_from(salt * 1000003u + (uint64_t)p->rows * 4099u + (uint64_t)p->classes * 17u + (uint64_t)p->dtype);
}

/* Mostly what a detector gives, with some far out, some equal and some exactly 0. */
static double random_logit(random_source *source, const problem *p) {
  const double choice = random_uniform(source);
  double x = random_normal(source) * 3 - (is_softmax(p->loss.kind) ? 0 : 2);
  if (choice < 0.02) x *= 10;
  if (choice > 0.99) x = 0;
  if (p->loss.kind == TARE_LOSS_SOFTMAX_LDAM) x = fmax(-1, fmin(1, x / 8)); /* cosines */
  return round_to_dtype(p->dtype, x);
}

static void draw_logits(problem *p) {
  random_source source = source_of(p, 1);
  for (int64_t i = 0; i < p->rows * p->classes; i++) p->logits[i] = random_logit(&source, p);
}

/* GHM-R: differences of every size around mu, and some exact hits. */
static void draw_regression(problem *p) {
  random_source source = source_of(p, 2);
  for (int64_t i = 0; i < p->rows * p->classes; i++) {
    const double target = random_normal(&source);
    const double difference = random_normal(&source) * pow(10, -3 + 4 * random_uniform(&source));
    p->targets[i] = round_to_dtype(p->target_dtype, target);
    p->logits[i] = round_to_dtype(p->dtype, random_below(&source, 50) == 0 ? p->targets[i] : target + difference);
  }
}

void problem_draw_labels(problem *p, double positive, double ignored) {
  random_source source = source_of(p, 3);
  for (int64_t i = 0; i < p->rows; i++) {
    const double choice = random_uniform(&source);
    const int64_t label = p->first_label + random_below(&source, p->classes);
    p->labels[i] = choice < positive ? label : choice < positive + ignored ? p->ignore_label : p->background_label;
  }
}

void problem_draw_targets(problem *p, int32_t target_dtype) {
  random_source source = source_of(p, 4);
  p->target_dtype = target_dtype = taken_target_dtype(p->loss.kind, target_dtype);
  if (p->targets == NULL) p->targets = calloc((size_t)(p->rows * p->classes) + 1, sizeof *p->targets);
  for (int64_t i = 0; i < p->rows * p->classes; i++) {
    const double choice = random_uniform(&source);
    const double between = random_uniform(&source);
    p->targets[i] = choice < 0.4 ? 0 : choice < 0.5 ? 1 : round_to_dtype(target_dtype, between);
  }
}

void problem_draw_scores(problem *p, int32_t score_dtype) {
  random_source source = source_of(p, 9);
  p->score_dtype = score_dtype;
  free(p->scores);
  p->scores = calloc((size_t)p->rows + 1, sizeof *p->scores);
  for (int64_t i = 0; i < p->rows; i++) {
    const double choice = random_uniform(&source), between = random_uniform(&source);
    const bool has_class = p->labels[i] != p->background_label && p->labels[i] != p->ignore_label;
    p->scores[i] = choice < 0.1 ? 0 : choice < 0.2 ? 1 : round_to_dtype(score_dtype, between);
    if (!has_class && choice < 0.5) p->scores[i] = NAN;
  }
}

static double random_target_of_bins(random_source *source, int64_t classes) {
  const double choice = random_uniform(source), between = random_uniform(source) * (double)(classes - 1);
  if (choice < 0.1) return (double)random_below(source, classes);
  if (choice < 0.15) return (double)classes - 1 + between;
  return choice < 0.2 ? -between : between;
}

void problem_draw_bins(problem *p, int32_t score_dtype) {
  random_source source = source_of(p, 11);
  const int64_t columns = score_columns(p);
  p->score_dtype = score_dtype;
  free(p->scores);
  p->scores = calloc((size_t)(p->rows * columns) + 1, sizeof *p->scores);
  for (int64_t i = 0; i < p->rows * columns; i++) {
    const double choice = random_uniform(&source), between = random_uniform(&source);
    const double weight = choice < 0.1 ? 0 : choice < 0.2 ? 1 : 2 * between;
    p->scores[i] = round_to_dtype(score_dtype, columns == 2 ? weight : random_target_of_bins(&source, p->classes));
  }
  for (int64_t row = 0; row < p->rows && columns == 2 && p->labels; row++)
    if (p->labels[row] - p->first_label == p->classes - 1) p->scores[2 * row + 1] = 0;
}

static double *random_weights(problem *p, int64_t count, uint64_t salt) {
  random_source source = source_of(p, salt);
  double *weights = calloc((size_t)count + 1, sizeof *weights);
  for (int64_t i = 0; i < count; i++) {
    const double choice = random_uniform(&source);
    weights[i] = choice < 0.1 ? 0 : choice < 0.3 ? 1 : (double)(float)(2 * random_uniform(&source));
  }
  return weights;
}

void problem_draw_row_weights(problem *p) {
  free(p->row_weights);
  p->row_weights = random_weights(p, p->rows, 5);
}

void problem_draw_element_weights(problem *p) {
  free(p->element_weights);
  p->element_weights = random_weights(p, p->rows * p->classes, 6);
}

double *random_class_weights(const problem *p, uint64_t salt) {
  random_source source = source_of(p, salt + 100);
  double *weights = calloc((size_t)p->classes, sizeof *weights);
  for (int64_t i = 0; i < p->classes; i++) weights[i] = (double)(float)(0.1 + 2 * random_uniform(&source));
  return weights;
}

void problem_draw_class_mask(problem *p, double share) {
  random_source source = source_of(p, 21);
  free(p->class_mask);
  p->class_mask = calloc((size_t)(p->images * p->classes) + 1, 1);
  for (int64_t i = 0; i < p->images; i++) {
    const int64_t manner = random_below(&source, 8);
    const double of_image = manner == 0 ? 0 : manner == 1 ? 1 : share;
    for (int64_t c = 0; c < p->classes; c++)
      if (random_uniform(&source) < of_image) p->class_mask[i * p->classes + c] = (unsigned char)(1 + c % 255);
  }
}

/* What priors of a long tail come to. */
static double *random_offsets(const problem *p) {
  random_source source = source_of(p, 7);
  double *offset = calloc((size_t)p->classes, sizeof *offset);
  for (int64_t i = 0; i < p->classes; i++) offset[i] = (double)(float)(-8 * random_uniform(&source));
  return offset;
}

/* Of a long tail. */
static double *random_log_counts(const problem *p) {
  double *logs = random_offsets(p);
  for (int64_t i = 0; i < p->classes; i++) logs[i] = logs[i] > -1 ? 0 : -logs[i];
  return logs;
}

/* Of a long tail, whose rarest class has 0.5. */
static double *random_margins(const problem *p) {
  double *margins = random_offsets(p);
  for (int64_t i = 0; i < p->classes; i++) margins[i] = (double)(float)(0.5 * exp(margins[i] / 4));
  return margins;
}

problem *problem_new_levels(int32_t kind, int32_t dtype, int64_t images, int64_t classes, int32_t level_count,
                            const level_shape *levels) {
  problem *p = calloc(1, sizeof *p);
  tare_loss_spec_init(&p->loss, (tare_loss_kind)kind);
  p->dtype = dtype;
  p->images = images;
  p->classes = classes;
  p->level_count = level_count;
  for (int32_t l = 0; l < level_count; l++) {
    p->levels[l] = levels[l];
    p->rows += images * levels[l].height * levels[l].width * levels[l].anchors;
  }
  p->background_label = -1;
  p->ignore_label = -2;
  p->background_weight = 1;
  p->normalizer_value = 1;
  p->gradient_scale = 1;
  p->want = is_softmax(kind) ? WANT_ALL & ~WANT_ELEMENT_LOSS : WANT_ALL;
  p->logits = calloc((size_t)(p->rows * classes) + 1, sizeof *p->logits);
  p->labels = calloc((size_t)p->rows + 1, sizeof *p->labels);
  problem_draw_labels(p, 0.35, 0.05);
  if (kind == TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED) p->offset = random_offsets(p);
  if (kind == TARE_LOSS_SOFTMAX_SEESAW) p->log_counts = random_log_counts(p);
  if (kind == TARE_LOSS_SOFTMAX_LDAM) p->margins = random_margins(p);
  if (kind == TARE_LOSS_GHM_R) {
    p->targets = calloc((size_t)(p->rows * classes) + 1, sizeof *p->targets);
    draw_regression(p);
  } else {
    draw_logits(p);
  }
  return p;
}

problem *problem_new(int32_t kind, int32_t dtype, int64_t rows, int64_t classes) {
  const level_shape level = {.height = 1, .width = rows, .anchors = 1};
  return problem_new_levels(kind, dtype, 1, classes, 1, &level);
}

void problem_free(problem *p) {
  free(p->logits);
  free(p->labels);
  free(p->targets);
  free(p->scores);
  free(p->row_weights);
  free(p->element_weights);
  free(p->class_weights);
  free(p->positive_weights);
  free(p->alpha_per_class);
  free(p->negative_weights);
  free(p->background_negative_weights);
  free(p->gamma_per_class);
  free(p->offset);
  free(p->log_counts);
  free(p->margins);
  free(p->class_mask);
  free(p->ghm_state);
  free(p->oracle_state);
  head_free(p->head);
  free(p);
}

void problem_add_ghm_state(problem *p) {
  const uint64_t bytes = tare_ghm_state_bytes(p->loss.ghm.bins);
  cr_assert_eq(bytes, 8u * (2 + 3 * (uint64_t)p->loss.ghm.bins), "state of %d bins", (int)p->loss.ghm.bins);
  free(p->ghm_state);
  free(p->oracle_state);
  p->ghm_state = calloc(1, bytes);
  p->oracle_state = calloc(1, sizeof *p->oracle_state);
}

double weight_of_level(const problem *p, int32_t level) {
  return p->of_level[level].weight == 0 ? 1 : p->of_level[level].weight;
}

static int parameters_text(const problem *p, char *text, size_t size) {
  int used = 0;
  const int32_t count = describe_loss(p->loss.kind).parameters;
  for (int32_t i = 0; i < count && (size_t)used < size; i++) {
    const tare_parameter_description parameter = describe_parameter(p->loss.kind, i);
    if (parameter.type != TARE_PARAMETER_TYPE_PER_CLASS && parameter.type != TARE_PARAMETER_TYPE_STATE)
      used +=
          snprintf(text + used, size - (size_t)used, " %s %g", parameter.name, parameter_value(&p->loss, &parameter));
  }
  const char *alphas = p->alpha_per_class != NULL ? " alpha per class" : "";
  const char *gammas = p->gamma_per_class != NULL ? " gamma per class" : "";
  return (size_t)used < size ? used + snprintf(text + used, size - (size_t)used, "%s%s", alphas, gammas) : used;
}

const char *problem_text(const problem *p) {
  static char text[512];
  const char *name = tare_loss_name(p->loss.kind);
  int used = snprintf(text, sizeof text, "%s %s %lld x %lld", name == NULL ? "(no name)" : name, dtype_name(p->dtype),
                      (long long)p->rows, (long long)p->classes);
  used += parameters_text(p, text + used, sizeof text - (size_t)used);
  if (p->head != NULL) {
    used += snprintf(text + used, sizeof text - (size_t)used, " fused head %s x %lld room %g outputs %u",
                     dtype_name(p->head->dtype), (long long)p->head->dimensions, p->head->room, p->head->outputs);
  }
  snprintf(text + used, sizeof text - (size_t)used, "%s%s%s%s%s%s%s%s%s%s%s normalizer %d levels %d",
           p->scores != NULL ? " scores" : "", p->targets != NULL ? " targets" : "",
           p->row_weights != NULL ? " row weights" : "", p->element_weights != NULL ? " element weights" : "",
           p->class_weights != NULL ? " class weights" : "", p->positive_weights != NULL ? " positive weights" : "",
           p->negative_weights != NULL ? " negative weights" : "",
           p->background_negative_weights != NULL ? " background negative weights" : "", p->in_place ? " in place" : "",
           p->image_major ? " image-major" : "", p->class_mask != NULL ? " class mask" : "", (int)p->normalizer,
           (int)p->level_count);
  return text;
}

void outcome_free(outcome *o) {
  if (o == NULL) return;
  free(o->gradient);
  free(o->row_loss);
  free(o->element_loss);
  free(o->class_sums);
  head_outcome_free(o->head);
  free(o);
}
