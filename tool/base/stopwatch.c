/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time and its statistics.
 */
#define _GNU_SOURCE
#include "stopwatch.h"

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

void times_free(struct times *times) {
  free(times->of);
  *times = (struct times){0};
}
