/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Comparison of arrays with a reference in double: one assertion an array, which names the worst element.
 */
#ifndef TARE_TESTS_COMPARE_H
#define TARE_TESTS_COMPARE_H

#include <stddef.h>

/* |got - want| <= absolute + relative*|want|. NaN matches NaN, an infinity only itself. */
typedef struct tolerance {
  double absolute, relative;
} tolerance;

typedef struct comparison {
  size_t checked, bad; /* elements; those out of tolerance */
  size_t nonzero;      /* those whose reference is not next to 0 */
  size_t telling;      /* those whose reference a zero would miss by more than is allowed */
  size_t worst;        /* index of the worst, and its two values */
  double got, want;
} comparison;

comparison compare_arrays(const double *got, const double *want, size_t count, tolerance allowed);

/** Fails unless every element is within tolerance, and also where nothing would be checked: no element at all, a
 *  reference of zeros only, or one that zeros would match. */
void check_close(const char *file, int line, const char *what, const double *got, const double *want, size_t count,
                 tolerance allowed);
#define CHECK_CLOSE(what, got, want, count, allowed) \
  check_close(__FILE__, __LINE__, (what), (got), (want), (count), (allowed))

/** The same for an array whose reference may be all zeros. */
void check_close_or_zero(const char *file, int line, const char *what, const double *got, const double *want,
                         size_t count, tolerance allowed);
#define CHECK_CLOSE_OR_ZERO(what, got, want, count, allowed) \
  check_close_or_zero(__FILE__, __LINE__, (what), (got), (want), (count), (allowed))

/** The same for random numbers, where it may be that zeros pass. */
void check_close_or_small(const char *file, int line, const char *what, const double *got, const double *want,
                          size_t count, tolerance allowed);

/** Fails unless the arrays are equal bit for bit. */
void check_same(const char *file, int line, const char *what, const double *got, const double *want, size_t count);
#define CHECK_SAME(what, got, want, count) check_same(__FILE__, __LINE__, (what), (got), (want), (count))

/** Fails unless two numbers are within tolerance. */
void check_near(const char *file, int line, const char *what, double got, double want, tolerance allowed);
#define CHECK_NEAR(what, got, want, allowed) check_near(__FILE__, __LINE__, (what), (got), (want), (allowed))

#endif
