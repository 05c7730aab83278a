/* SPDX-License-Identifier: Apache-2.0 */
#include "softmax_rows.h"

#include <stdlib.h>
#include <string.h>

const int32_t softmax_dtypes[SOFTMAX_DTYPES] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};

/* A few classes, registers, planes held and read again, a warp, a block, many chunks. */
static const int64_t widths[] = {1, 2, 3, 15, 16, 81, 91, 130, 1203, 1600, 2100, 17000};

problem *softmax_problem(int32_t kind, int32_t dtype, int64_t classes, enum manner manner) {
  const level_shape shape = {.height = classes > 1000 ? 3 : test_size(70, 35), .width = 2, .anchors = 1};
  problem *p = problem_new_levels(kind, dtype, 1, classes, 1, &shape);
  problem_draw_labels(p, 0.8, 0.1);
  p->in_place = manner == IN_PLACE;
  for (int a = 0; a < ARRAY_KINDS; a++) {
    p->place[a].channels_first = manner == PLANES;
    if (manner == PADDED) p->place[a].pad[AXIS_CLASS] = p->place[a].pad[AXIS_X] = 3;
  }
  return p;
}

void check_softmax_widths(int32_t kind, const test_device *device) {
  for (int d = 0; d < SOFTMAX_DTYPES; d++) {
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
      for (int manner = FLAT; manner < MANNERS; manner++) {
        problem *p = softmax_problem(kind, softmax_dtypes[d], widths[w], (enum manner)manner);
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

void check_is_softmax_ce(problem *p, const test_device *device) {
  problem *plain = problem_new(TARE_LOSS_SOFTMAX_CE, p->dtype, p->rows, p->classes);
  memcpy(plain->logits, p->logits, (size_t)(p->rows * p->classes) * sizeof *p->logits);
  memcpy(plain->labels, p->labels, (size_t)p->rows * sizeof *p->labels);
  check_same_bits(p, plain, device);
}
