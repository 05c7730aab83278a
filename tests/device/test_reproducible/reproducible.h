/* SPDX-License-Identifier: Apache-2.0 */
/* Problems whose results are compared bit for bit. */
#ifndef TEST_REPRODUCIBLE_H
#define TEST_REPRODUCIBLE_H
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/problem.h"

static const level_shape head[] = {{40, 33, 3}, {20, 17, 3}, {10, 9, 3}};
static const level_shape small_head[] = {{7, 5, 3}, {4, 3, 3}, {2, 1, 3}};

enum layout { FLAT, CHANNELS_FIRST, IMAGE_MAJOR, ODD_PLACES, LAYOUTS };

/* Large enough for several tiles and more of them than threads. */
static inline problem *problem_in(int32_t kind, int32_t dtype, int layout) {
  if (layout == FLAT) return problem_new(kind, dtype, test_size(9000, 300), 31);
  problem *p = problem_new_levels(kind, dtype, 2, 7, 3, test_small() ? small_head : head);
  problem_draw_row_weights(p);
  for (int a = 0; a < ARRAY_KINDS; a++) {
    p->place[a].channels_first = layout != IMAGE_MAJOR || a == ARRAY_GRADIENT;
    p->place[a].phase = layout == ODD_PLACES ? 1 + a % 3 : 0;
  }
  p->image_major = layout == IMAGE_MAJOR;
  return p;
}

static inline outcome *run_in(problem *p, const test_device *device, tare_context *context) {
  p->context = context;
  outcome *o = problem_run(p, device);
  p->context = NULL;
  return o;
}

static inline void expect_same(problem *p, const test_device *device, tare_context *context, const outcome *first) {
  outcome *again = run_in(p, device, context);
  CHECK_SAME_OUTCOME(p, again, first);
  outcome_free(again);
}

#endif
