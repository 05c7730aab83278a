/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of labels share. */
#ifndef TEST_LABELS_H
#define TEST_LABELS_H
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/buffers.h"
#include "support/problem.h"

typedef struct convention {
  int64_t first, background, ignore;
} convention;

enum { CLASSES = 7 };

static const convention conventions[] = {
    {0, -1, -2},          /* apex, and the default */
    {0, CLASSES, -1},     /* mmcv: background = classes */
    {0, CLASSES, 255},    /* and an ignore label of one byte */
    {1, 0, -1},           /* Detectron: background 0, classes from 1 */
    {0, 0, -1},           /* the background is class 0 */
    {0, 3, -100},         /* the background is in the middle of the classes */
    {1, CLASSES, 0},      /* the background is the last class */
    {0, -1, 2},           /* a class of the range is ignored */
    {-5, 100, 101},       /* classes below 0 */
    {2147483000, -1, -2}, /* classes near the end of int32 */
    {-2147483648, 7, 9},  /* and at its beginning */
};

static inline problem *in_convention(int32_t kind, convention c, int32_t label_dtype) {
  problem *p = problem_new(kind, TARE_DTYPE_F32, test_size(500, 80), CLASSES);
  p->first_label = c.first;
  p->background_label = c.background;
  p->ignore_label = c.ignore;
  p->label_dtype = label_dtype;
  problem_draw_labels(p, 0.4, 0.1);
  return p;
}

/* Expects the refusal on a CPU context, with nothing written (problem_run checks that), or on a GPU the row left out
 * and the error from tare_context_synchronize, which knows the row but not what stood there. */
static inline void expect_refused(problem *p, const test_device *device, int64_t row) {
  outcome *o = problem_run(p, device);
  char number[32];
  snprintf(number, sizeof number, "%" PRId64, row);
  if (o->device->kind == TARE_DEVICE_CPU) {
    cr_assert_eq(o->status, TARE_STATUS_INVALID_LABEL, "%s: %s (%s)", problem_text(p), tare_status_name(o->status),
                 o->text);
  } else {
    cr_assert_eq(o->check_status, TARE_STATUS_INVALID_LABEL, "%s: %s", problem_text(p),
                 tare_status_name(o->check_status));
    outcome *want = problem_expect(p);
    CHECK_OUTCOME(p, o, want);
    outcome_free(want);
  }
  cr_assert_not_null(strstr(o->text, number), "the text names no row %s: %s", number, o->text);
  if (o->device->kind == TARE_DEVICE_CPU) {
    snprintf(number, sizeof number, "%" PRId64, p->labels[row]);
    cr_assert_not_null(strstr(o->text, number), "the text names no label %s: %s", number, o->text);
  }
  outcome_free(o);
}

#endif
