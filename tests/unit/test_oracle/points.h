/* SPDX-License-Identifier: Apache-2.0 */
/* Points, and the worst error found there. */
#ifndef TEST_POINTS_H
#define TEST_POINTS_H
#include <criterion/criterion.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "oracle/literal.h"
#include "oracle/mmdet.h"
#include "oracle/oracle.h"
#include "support/parameters.h"
#include "support/random.h"

/* ---- Errors ---------------------------------------------------------------------------------------------------- */

struct worst {
  long points;
  double error;
  char where[128];
};

/* Takes note of the relative error beyond `absolute`. Below 1e-290 double itself has no digits left. */
__attribute__((format(printf, 5, 6))) static inline void note(struct worst *worst, double got, double want,
                                                              double absolute, const char *where, ...) {
  worst->points += 1;
  double beyond = got == want ? 0 : fabs(got - want) - fmax(absolute, 1e-290);
  double error = beyond > 0 ? beyond / fabs(want) : isnan(beyond) ? INFINITY : 0;
  if (error <= worst->error) return;
  worst->error = error;
  va_list arguments;
  va_start(arguments, where);
  vsnprintf(worst->where, sizeof worst->where, where, arguments);
  va_end(arguments);
}

static inline void conclude(const char *what, const struct worst *worst, double bound) {
  printf("%s: %ld points, worst relative error %.2g at %s\n", what, worst->points, worst->error, worst->where);
  cr_assert(worst->points > 0, "%s: nothing was checked", what);
  cr_assert(worst->error <= bound, "%s: error %g above %g at %s", what, worst->error, bound, worst->where);
}

/* ---- Points ---------------------------------------------------------------------------------------------------- */

static const double fixed_points[] = {0,   1e-300, 1e-30, 1e-16, 1e-8, 1e-3,  0.1, 0.25, 0.5, 0.6931, 1,
                                      2,   3.66,   5,     8.32,  10,   17,    20,  37,   40,  88.72,  100,
                                      128, 300,    400,   500,   700,  708.4, 745, 750,  800};
enum { FIXED = sizeof fixed_points / sizeof *fixed_points, DRAWN = 70, POINTS = 2 * FIXED + DRAWN };

/* Both signs of the fixed points, and draws of every size up to 800. */
static inline const double *points(void) {
  static double all[POINTS];
  random_source random = random_from(1);
  for (size_t i = 0; i < FIXED; ++i) {
    all[2 * i] = fixed_points[i];
    all[2 * i + 1] = -fixed_points[i];
  }
  for (int i = 2 * FIXED; i < POINTS; ++i)
    all[i] = (random_uniform(&random) < 0.5 ? 1 : -1) * exp(log(1e-4) + random_uniform(&random) * log(8e6));
  return all;
}

static const double gammas[] = {0, 0.5, 1, 1.5, 2, 3.7, 5};
enum { GAMMAS = sizeof gammas / sizeof *gammas };

#endif
