/* SPDX-License-Identifier: Apache-2.0 */
#include "boxes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "npy.h"

/* How far two intervals of a centre and a logarithm of a length overlap, and reach together. */
static void compare_spans(double a, double log_a, double b, double log_b, double *both, double *area_a,
                          double *area_b) {
  const double half_a = exp(log_a) / 2, half_b = exp(log_b) / 2;
  *both *= fmax(0, fmin(a + half_a, b + half_b) - fmax(a - half_a, b - half_b));
  *area_a *= 2 * half_a;
  *area_b *= 2 * half_b;
}

/* The IoU of two boxes, as offsets and logarithms of sizes from the same anchor. */
static double iou_of(const npy_array *boxes, const npy_array *targets, size_t row) {
  double both = 1, ours = 1, theirs = 1;
  for (size_t axis = 0; axis < 2; axis++) {
    const size_t at = 4 * row + axis;
    compare_spans(npy_number(boxes, at), npy_number(boxes, at + 2), npy_number(targets, at),
                  npy_number(targets, at + 2), &both, &ours, &theirs);
  }
  return both / (ours + theirs - both);
}

problem *problem_of_detector(int32_t kind, const char *state) {
  char logits_name[64], boxes_name[64];
  snprintf(logits_name, sizeof logits_name, "%s_logits.npy", state);
  snprintf(boxes_name, sizeof boxes_name, "%s_boxes.npy", state);
  npy_array logits = npy_real(logits_name), labels = npy_real("labels.npy");
  npy_array boxes = npy_real(boxes_name), targets = npy_real("box_targets.npy");
  problem *p = problem_new(kind, TARE_DTYPE_F32, logits.shape[0], logits.shape[1]);
  p->scores = calloc((size_t)p->rows, sizeof *p->scores);
  p->want = WANT_LOSS | WANT_GRADIENT | WANT_COUNTS;
  for (size_t i = 0; i < logits.count; i++) p->logits[i] = npy_number(&logits, i);
  for (size_t row = 0; row < labels.count; row++) {
    p->labels[row] = (int64_t)npy_number(&labels, row);
    p->scores[row] = p->labels[row] < 0 ? NAN : (double)(float)iou_of(&boxes, &targets, row);
  }
  npy_array *const all[] = {&logits, &labels, &boxes, &targets};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) npy_free(all[i]);
  return p;
}
