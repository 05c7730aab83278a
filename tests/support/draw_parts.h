/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of drawing a random problem (draw.h).
 */
#ifndef TARE_TESTS_DRAW_PARTS_H
#define TARE_TESTS_DRAW_PARTS_H

#include "problem.h"
#include "random.h"

static inline bool one_in(random_source *s, int64_t n) { return random_below(s, n) == 0; }

static inline double one_of(random_source *s, const double *values, size_t count) {
  return values[random_below(s, (int64_t)count)];
}
#define ONE_OF(s, ...) \
  one_of((s), (const double[]){__VA_ARGS__}, sizeof((const double[]){__VA_ARGS__}) / sizeof(double))

/** A problem of random sizes, whose arrays have random strides. It has no numbers yet. */
problem *draw_shape(int32_t kind, random_source *s);

/** Numbers along an axis of stride 0 become those of its index 0: of one array with `classes` numbers a row, and of all
 *  inputs. All numbers are 8 bytes wide. */
void repeat_along_axes(const problem *p, int kind, void *numbers, int64_t classes);
void make_numbers_agree(problem *p);

void draw_logits(problem *p, random_source *s);
/** GHM-R: targets, and predictions near them. */
void draw_regression(problem *p, random_source *s);
void draw_targets(problem *p, random_source *s);
/** Scores of labels, and anything in rows without a class. */
void draw_scores(problem *p, random_source *s);

/** Targets between bins, and anything in rows that are not read. */
void draw_bins(problem *p, random_source *s);

/** Logits of soft targets and of scores stay small, so that what cancels does. */
void keep_small(problem *p);
/** No gradient norm is so near the edge of a bin that rounding decides. */
void keep_off_edges(problem *p);
/** Sets a window of the exact density whose ends no element is within rounding of. False: none was found. */
bool draw_window(problem *p, random_source *s);

#endif
