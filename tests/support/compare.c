/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Comparison of arrays with a reference in double.
 */
#include "compare.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "random.h"

/* An array with this many elements has some that are not 0. A few elements may all round to 0 in a half type. */
enum { MANY = 64 };

/* Below this, what is computed in single precision is promised within 1e-36 only: zeros may pass there. */
static const double LEAST_TELLING = 1e-30;

/* How far out an element is, in units of what is allowed; above 1 is bad. */
static double badness(double got, double want, tolerance allowed) {
  if (isnan(want) || isnan(got)) return isnan(want) && isnan(got) ? 0 : INFINITY;
  if (isinf(want) || isinf(got)) return got == want ? 0 : INFINITY;
  const double error = fabs(got - want);
  if (error == 0) return 0;
  if (allowed.absolute == 0 && (allowed.relative == 0 || want == 0)) return INFINITY;
  return error / (allowed.absolute + allowed.relative * fabs(want));
}

comparison compare_arrays(const double *got, const double *want, size_t count, tolerance allowed) {
  comparison result = {.checked = count};
  double worst = -1;
  for (size_t i = 0; i < count; i++) {
    const double bad = badness(got[i], want[i], allowed);
    result.bad += !(bad <= 1);
    if (bad > worst) {
      worst = bad;
      result.worst = i;
      result.got = got[i];
      result.want = want[i];
    }
    if (fabs(want[i]) <= LEAST_TELLING) continue;
    result.nonzero++;
    result.telling += !(badness(0, want[i], allowed) <= 1);
  }
  return result;
}

static void fail_if_bad(const char *file, int line, const char *what, comparison result, tolerance allowed) {
  if (result.checked == 0) cr_assert_fail("%s:%d: %s: nothing was compared", file, line, what);
  if (result.bad == 0) return;
  cr_assert_fail(
      "%s:%d: %s: %zu of %zu out of tolerance %g + %g*|want|; worst [%zu]: got %.17g, want %.17g (seed %llu)", file,
      line, what, result.bad, result.checked, allowed.absolute, allowed.relative, result.worst, result.got, result.want,
      (unsigned long long)random_seed());
}

static void fail_if_zeros_pass(const char *file, int line, const char *what, comparison result) {
  if (result.checked >= MANY && result.nonzero > 0 && result.telling == 0)
    cr_assert_fail("%s:%d: %s: zeros would pass", file, line, what);
}

void check_close(const char *file, int line, const char *what, const double *got, const double *want, size_t count,
                 tolerance allowed) {
  const comparison result = compare_arrays(got, want, count, allowed);
  fail_if_zeros_pass(file, line, what, result);
  fail_if_bad(file, line, what, result, allowed);
  if (result.nonzero == 0) cr_assert_fail("%s:%d: %s: the reference is all zeros", file, line, what);
}

void check_close_or_zero(const char *file, int line, const char *what, const double *got, const double *want,
                         size_t count, tolerance allowed) {
  const comparison result = compare_arrays(got, want, count, allowed);
  fail_if_zeros_pass(file, line, what, result);
  fail_if_bad(file, line, what, result, allowed);
}

void check_close_or_small(const char *file, int line, const char *what, const double *got, const double *want,
                          size_t count, tolerance allowed) {
  fail_if_bad(file, line, what, compare_arrays(got, want, count, allowed), allowed);
}

void check_same(const char *file, int line, const char *what, const double *got, const double *want, size_t count) {
  if (count == 0) cr_assert_fail("%s:%d: %s: nothing was compared", file, line, what);
  for (size_t i = 0; i < count; i++) {
    if (memcmp(&got[i], &want[i], sizeof *got) == 0) continue;
    cr_assert_fail("%s:%d: %s: [%zu] is %.17g, was %.17g (seed %llu)", file, line, what, i, got[i], want[i],
                   (unsigned long long)random_seed());
  }
}

void check_near(const char *file, int line, const char *what, double got, double want, tolerance allowed) {
  check_close_or_zero(file, line, what, &got, &want, 1, allowed);
}
