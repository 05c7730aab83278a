/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A random problem: logits, targets and scores, and the window of the exact density, where the header promises an
 * accuracy.
 */
#include <math.h>
#include <stdlib.h>

#include "draw_parts.h"
#include "numbers.h"

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

void draw_logits(problem *p, random_source *s) {
  const int64_t manner = random_below(s, 10);
  for (int64_t i = 0; i < p->rows * p->classes; i++) {
    p->logits[i] = round_to_dtype(p->dtype, draw_logit(s, p, manner));
  }
}

/* GHM-R: differences of every size around mu. The predictions are made from the targets. */
void draw_regression(problem *p, random_source *s) {
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

void draw_targets(problem *p, random_source *s) {
  p->target_dtype = taken_target_dtype(p->loss.kind, (int32_t)random_below(s, 4));
  p->targets = calloc((size_t)(p->rows * p->classes) + 1, sizeof *p->targets);
  for (int64_t i = 0; i < p->rows * p->classes; i++) {
    p->targets[i] = round_to_dtype(p->target_dtype, draw_target(s));
  }
}

/* Scores of labels, and anything in rows without a class. */
void draw_scores(problem *p, random_source *s) {
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

static double draw_bin(random_source *s, const problem *p) {
  if (score_columns(p) == 2) return ONE_OF(s, 0, 1, 0.5, random_uniform(s), 3 * random_uniform(s));
  const double y = random_uniform(s) * (double)(p->classes + 1) - 1;
  return one_in(s, 4) ? floor(y) : one_in(s, 30) ? 1e30 * y : y;
}

/* The last bin has none after it. Rows without a class may have anything. */
void draw_bins(problem *p, random_source *s) {
  const int64_t columns = score_columns(p);
  repeat_along_axes(p, ARRAY_LABELS, p->labels, 1);
  p->score_dtype = (int32_t)random_below(s, p->dtype == TARE_DTYPE_F64 ? 4 : 3);
  p->scores = calloc((size_t)(p->rows * columns) + 1, sizeof *p->scores);
  for (int64_t i = 0; i < p->rows * columns; i++) {
    const int64_t label = p->labels[i / columns];
    const bool is_read = label != p->ignore_label && (label != p->background_label || columns == 2);
    const bool is_last = columns == 2 && i % 2 && label - p->first_label == p->classes - 1;
    const double number = is_last ? 0 : draw_bin(s, p);
    p->scores[i] = round_to_dtype(p->score_dtype, is_read || one_in(s, 2) ? number : NAN);
    if (p->score_dtype == TARE_DTYPE_F16) p->scores[i] = fmin(fmax(p->scores[i], -60000), 60000); /* NaN is no bin */
  }
}

/* Logits of soft targets and of scores stay small, so that what cancels does. */
void keep_small(problem *p) {
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

/* Bins that soft norms fall in, and those of GHM-R, are decided with a rounding: elements keep off the edges. A soft
 * target that is near one wherever the logit is becomes a hard one; a fused head's logits stay as they are. */
void keep_off_edges(problem *p) {
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

/* ---- The exact density ------------------------------------------------------------------------------------------- */

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
bool draw_window(problem *p, random_source *s) {
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
