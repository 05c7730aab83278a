/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A GPU has a kernel for each way a batch may lie, each type, and each width of softmax rows. Here every loss goes
 * through every one of them, on batches of a few rows.
 */
#include <criterion/criterion.h>

#include "support/numbers.h"
#include "support/problem.h"

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16};
enum { DTYPES = sizeof dtypes / sizeof *dtypes };

enum layout { ROWS, ROWS_WITH_LOSSES, BACKWARDS, PLANES, LAYOUTS };

static problem *lie(enum layout layout, int32_t kind, int32_t dtype, int64_t classes) {
  static const level_shape map = {5, 7, 1};
  if (layout != PLANES) {
    problem *p = problem_new(kind, dtype, 19, classes);
    if (layout != ROWS_WITH_LOSSES) p->want &= ~(unsigned)(WANT_ROW_LOSS | WANT_ELEMENT_LOSS);
    if (layout == BACKWARDS) p->place[ARRAY_LOGITS].flip = 1u << AXIS_CLASS;
    return p;
  }
  problem *p = problem_new_levels(kind, dtype, 1, classes, 1, &map);
  p->place[ARRAY_LOGITS].channels_first = p->place[ARRAY_GRADIENT].channels_first = true;
  p->place[ARRAY_TARGETS].channels_first = true;
  p->want &= ~(unsigned)(WANT_ROW_LOSS | WANT_ELEMENT_LOSS);
  return p;
}

/* Counting by itself, and an evaluation that counts nothing. */
static tare_status in_three_calls(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                  const tare_output *output, void *user) {
  (void)user;
  tare_loss_spec given = *loss;
  given.ghm.use_stored_density = 1;
  tare_status status = tare_ghm_histogram(context, loss, batch, NULL);
  if (status == TARE_STATUS_OK) status = tare_ghm_density_update(context, loss, NULL);
  return status == TARE_STATUS_OK ? tare_evaluate(context, &given, batch, output, NULL) : status;
}

static void check(const test_device *device, problem *p, double gamma, bool soft) {
  if (p->loss.kind == TARE_LOSS_SIGMOID_FOCAL || p->loss.kind == TARE_LOSS_SOFTMAX_FOCAL) p->loss.focal.gamma = gamma;
  if (p->loss.kind == TARE_LOSS_SIGMOID_POLY1) p->loss.poly1.gamma = gamma;
  if (soft) {
    problem_draw_targets(p, TARE_DTYPE_F32);
    p->slack = 1e-5;
  }
  CHECK_PROBLEM(p, device);
  problem_free(p);
}

static void check_ghm_in_three_calls(const test_device *device, enum layout layout, int32_t dtype) {
  problem *p = lie(layout, TARE_LOSS_GHM_C, dtype, 13);
  problem_add_ghm_state(p);
  p->call = in_three_calls;
  CHECK_PROBLEM(p, device);
  problem_free(p);
}

Test(shapes, every_sigmoid_loss_in_every_layout) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      if (is_softmax(kind) || kind == TARE_LOSS_GHM_R) continue;
      for (size_t d = 0; d < DTYPES; d++) {
        for (enum layout layout = ROWS; layout < LAYOUTS; layout++) {
          for (int soft = 0; soft < 2; soft++) {
            check(device, lie(layout, kind, dtypes[d], 13), 2, soft);
            check(device, lie(layout, kind, dtypes[d], 13), 3.7, soft);
          }
        }
      }
    }
  }
}

Test(shapes, gradient_density_in_every_layout) {
  FOR_EACH_DEVICE(device) {
    for (size_t d = 0; d < DTYPES; d++) {
      for (enum layout layout = ROWS; layout < LAYOUTS; layout++) check_ghm_in_three_calls(device, layout, dtypes[d]);
    }
  }
}

Test(shapes, softmax_rows_of_every_width) {
  static const int64_t widths[] = {1, 2, 3, 5, 12, 20, 30, 40, 60, 81, 100, 130, 200, 300, 400, 600, 1000, 1600, 3100};
  FOR_EACH_DEVICE(device) {
    for (size_t d = 0; d < DTYPES; d++) {
      for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
        check(device, lie(ROWS, TARE_LOSS_SOFTMAX_CE, dtypes[d], widths[w]), 0, false);
        check(device, lie(ROWS_WITH_LOSSES, TARE_LOSS_SOFTMAX_FOCAL, dtypes[d], widths[w]), 2, false);
        check(device, lie(BACKWARDS, TARE_LOSS_SOFTMAX_FOCAL, dtypes[d], widths[w]), 2, false);
        check(device, lie(PLANES, TARE_LOSS_SOFTMAX_FOCAL, dtypes[d], widths[w]), 1.5, false);
        check(device, lie(ROWS, TARE_LOSS_SOFTMAX_CE, dtypes[d], widths[w]), 0, true);
      }
    }
  }
}
