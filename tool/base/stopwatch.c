/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time and its statistics.
 */
#define _GNU_SOURCE
#include "stopwatch.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "problem.h"

double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int times_add(struct times *times, double seconds) {
  if (times->count == times->capacity) {
    size_t capacity = times->capacity ? 2 * times->capacity : 64;
    double *grown = realloc(times->of, capacity * sizeof *grown);
    if (!grown) return complain("out of memory");
    times->of = grown;
    times->capacity = capacity;
  }
  times->of[times->count++] = seconds;
  return TOOL_OK;
}

static int ascending(const void *left, const void *right) {
  double a = *(const double *)left, b = *(const double *)right;
  return (a > b) - (a < b);
}

double times_quantile(struct times *times, double fraction) {
  if (times->count == 0) return 0;
  qsort(times->of, times->count, sizeof *times->of, ascending);
  double place = fraction * (double)(times->count - 1);
  size_t below = (size_t)place;
  size_t above = below + 1 < times->count ? below + 1 : below;
  return times->of[below] + (place - (double)below) * (times->of[above] - times->of[below]);
}

/* The k-th smallest and the k-th largest of n times hold the median between them unless fewer than k times are below
 * it, or above it. How many are below is binomial with n and 1/2. From the middle outwards, term by term, until the
 * confidence is reached. */
struct interval times_median_interval(struct times *times) {
  const double n = (double)times->count;
  size_t k = times->count / 2;
  if (k == 0) return (struct interval){.known = false};
  double below = (double)k, term = exp(lgamma(n + 1) - lgamma(below + 1) - lgamma(n - below + 1) - n * log(2));
  double covered = times->count % 2 ? 2 * term : term;
  while (covered < INTERVAL_CONFIDENCE && k > 1) {
    term *= (double)k / (n - (double)k + 1);
    k--;
    covered += 2 * term;
  }
  if (covered < INTERVAL_CONFIDENCE) return (struct interval){.known = false};
  qsort(times->of, times->count, sizeof *times->of, ascending);
  return (struct interval){true, times->of[k - 1], times->of[times->count - k]};
}

struct noise times_noise(struct times *times) {
  const double median = times_quantile(times, 0.5);
  if (times->count < 2 || !(median > 0)) return (struct noise){.known = false};
  const double spread = (times_quantile(times, 0.8) - times_quantile(times, 0.2)) / median;
  return (struct noise){true, spread, spread <= NOISE_LIMIT};
}

void times_free(struct times *times) {
  free(times->of);
  *times = (struct times){0};
}
