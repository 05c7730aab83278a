/* SPDX-License-Identifier: Apache-2.0 */
/* A label of a class that the loss excludes is none. */
#include "labels.h"

#include <math.h>

static void exclude(problem *p, int64_t cls) {
  if (p->offset != NULL) p->offset[cls] = -INFINITY;
  if (p->margins != NULL) p->margins[cls] = INFINITY;
}

/* Class 2 has no label. With a background that is a class, the last one. */
static problem *with_excluded(int32_t kind, int32_t dtype, int64_t classes, int way) {
  const level_shape shape = {.height = classes > 1000 ? 3 : 20, .width = 2, .anchors = 1};
  problem *p = problem_new_levels(kind, dtype, 1, classes, 1, &shape);
  if (way & 1) p->background_label = classes - 1;
  problem_draw_labels(p, 0.8, 0.1);
  for (int64_t i = 0; i < p->rows; i++)
    if (p->labels[i] == 2) p->labels[i] = 0;
  exclude(p, 2);
  p->place[ARRAY_LOGITS].channels_first = p->place[ARRAY_GRADIENT].channels_first = way & 2;
  p->in_place = way & 1;
  p->normalizer = way & 2 ? TARE_NORMALIZER_ROWS : TARE_NORMALIZER_WEIGHTS;
  p->want |= WANT_CLASS_SUMS | WANT_NORMALIZER_SUMS;
  return p;
}

/* Each walk of the kernels: registers, planes held and read again, a warp, a block. */
Test(labels, excluded_ones_are_refused_by_row) {
  static const int32_t kinds[] = {TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED, TARE_LOSS_SOFTMAX_LDAM};
  static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16};
  static const int64_t widths[] = {3, 81, 130, 1600, 2100};
  FOR_EACH_DEVICE(device) {
    for (int way = 0; way < 2 * 5 * 4; way++) {
      problem *p = with_excluded(kinds[way % 2], dtypes[way / 2 % 2], widths[way / 2 % 5], way / 10);
      if (p->background_label == 2) p->background_label = -1; /* of three classes */
      CHECK_PROBLEM(p, device);
      p->labels[5] = 2;
      expect_refused(p, device, 5);
      problem_free(p);
    }
  }
}

/* The background's class, too: every background row is invalid, and named by the label that it has. */
Test(labels, an_excluded_background) {
  FOR_EACH_DEVICE(device) {
    for (int32_t first = 0; first < 2; first++) {
      problem *p = in_convention(TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED, (convention){0, first ? 0 : CLASSES - 1, -5},
                                 TARE_LABEL_DTYPE_I32);
      for (int64_t i = 0; i < 9; i++) p->labels[i] = 1;
      p->labels[9] = p->background_label;
      exclude(p, p->background_label);
      expect_refused(p, device, 9);
      problem_free(p);
    }
  }
}

/* Where the background is no class, it is none that could be excluded. */
Test(labels, a_background_beside_excluded_classes) {
  FOR_EACH_DEVICE(device) {
    problem *p = in_convention(TARE_LOSS_SOFTMAX_LDAM, (convention){0, CLASSES, -1}, TARE_LABEL_DTYPE_I64);
    for (int64_t i = 0; i < p->rows; i++)
      if (p->labels[i] == CLASSES - 1) p->labels[i] = CLASSES;
    exclude(p, CLASSES - 1);
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}
