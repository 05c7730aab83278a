/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sizes, strides and counters at the ends of 64 bits: what has no meaning may have any value, what has one is computed
 * or refused, and nothing overflows on the way there.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "support/buffers.h"
#include "support/head.h"
#include "support/problem.h"

static const int64_t extremes[] = {
    INT64_MIN,        INT64_MIN + 1,    -(INT64_C(1) << 62), -(INT64_C(1) << 58) - 1, -1,       0, 1, 3,
    INT64_C(1) << 33, INT64_C(1) << 59, INT64_MAX / 2,       INT64_MAX - 1,           INT64_MAX};
enum { EXTREMES = sizeof extremes / sizeof *extremes };

/* ---- Strides of axes of length 1 ------------------------------------------------------------------------------- */

static int64_t *stride_at(tare_strides *s, int axis) {
  return axis == AXIS_IMAGE    ? &s->image
         : axis == AXIS_Y      ? &s->y
         : axis == AXIS_X      ? &s->x
         : axis == AXIS_ANCHOR ? &s->anchor
                               : &s->cls;
}

static tare_strides *strides_of(tare_level *level, int kind) {
  tare_strides *const all[ARRAY_KINDS] = {[ARRAY_LOGITS] = &level->logits_strides,
                                          [ARRAY_GRADIENT] = &level->gradient_strides,
                                          [ARRAY_LABELS] = &level->labels_strides,
                                          [ARRAY_TARGETS] = &level->targets_strides,
                                          [ARRAY_ROW_WEIGHTS] = &level->row_weights_strides,
                                          [ARRAY_ELEMENT_WEIGHTS] = &level->element_weights_strides,
                                          [ARRAY_ROW_LOSS] = &level->row_loss_strides,
                                          [ARRAY_ELEMENT_LOSS] = &level->element_loss_strides,
                                          [ARRAY_SCORES] = &level->scores_strides};
  return all[kind];
}

static const void *data_of(const tare_level *level, int kind) {
  const void *const all[ARRAY_KINDS] = {[ARRAY_LOGITS] = level->logits,
                                        [ARRAY_GRADIENT] = level->gradient,
                                        [ARRAY_LABELS] = level->labels,
                                        [ARRAY_TARGETS] = level->targets,
                                        [ARRAY_ROW_WEIGHTS] = level->row_weights,
                                        [ARRAY_ELEMENT_WEIGHTS] = level->element_weights,
                                        [ARRAY_ROW_LOSS] = level->row_loss,
                                        [ARRAY_ELEMENT_LOSS] = level->element_loss,
                                        [ARRAY_SCORES] = level->scores};
  return all[kind];
}

/* Which strides have no meaning: those of axes of length 1, a class axis that an array has not, and all of an array
 * that is not there. They get `value`, or if that is `mixed` a different one each. */
typedef struct fill {
  int64_t value;
  bool mixed;
  int next;
} fill;

static int64_t next_value(fill *f) { return f->mixed ? extremes[f->next++ % EXTREMES] : f->value; }

static void fill_strides(tare_level *level, const tare_batch *batch, fill *f) {
  const int64_t lengths[AXES] = {batch->images, level->height, level->width, level->anchors, batch->classes};
  for (int kind = 0; kind < ARRAY_KINDS; kind++)
    for (int axis = 0; axis < AXES; axis++) {
      const bool by_row = is_row_array(kind);
      if (lengths[axis] <= 1 || !data_of(level, kind) || (by_row && axis == AXIS_CLASS))
        *stride_at(strides_of(level, kind), axis) = next_value(f);
    }
}

static tare_batch filled_batch(const tare_batch *batch, tare_level *levels, fill *f) {
  tare_batch changed = *batch;
  memcpy(levels, batch->levels, (size_t)batch->level_count * sizeof *levels);
  for (int l = 0; l < batch->level_count; l++) fill_strides(&levels[l], batch, f);
  changed.levels = levels;
  return changed;
}

static tare_status evaluate_filled(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                   const tare_output *output, void *user) {
  tare_level levels[TARE_MAX_LEVELS];
  const tare_batch changed = filled_batch(batch, levels, user);
  return tare_evaluate(context, loss, &changed, output, NULL);
}

static tare_status evaluate_filled_head(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                        const tare_linear *linear, const tare_output *output, void *user) {
  tare_level levels[TARE_MAX_LEVELS];
  const tare_batch changed = filled_batch(batch, levels, user);
  return tare_linear_evaluate(context, loss, &changed, linear, output, NULL);
}

static void draw_everything(problem *p, bool soft) {
  problem_draw_row_weights(p);
  if (!is_softmax(p->loss.kind) && !is_ghm(p->loss.kind)) problem_draw_element_weights(p);
  if (soft && takes_targets(p->loss.kind)) problem_draw_targets(p, TARE_DTYPE_F32);
  if (p->targets != NULL) p->slack = 2e-6;
}

/* Every extreme in all strides at once, then another in each. */
static void check_fills(problem *p, const test_device *device) {
  for (int e = 0; e < EXTREMES + 3; e += test_small() ? 3 : 1) {
    fill f = {.value = extremes[e % EXTREMES], .mixed = e >= EXTREMES, .next = e - EXTREMES};
    p->user = &f;
    p->call = evaluate_filled;
    CHECK_PROBLEM(p, device);
  }
}

Test(extremes, an_axis_of_length_1_has_any_stride) {
  static const struct {
    int64_t images, classes;
    level_shape level;
  } shapes[] = {{1, 1, {1, 1, 1}}, {1, 5, {1, 1, 1}}, {1, 1, {1, 9, 1}}, {3, 1, {1, 1, 1}},
                {1, 4, {2, 1, 3}}, {2, 3, {1, 6, 1}}, {1, 1, {4, 1, 2}}, {1, 40, {1, 1, 7}}};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        for (int soft = 0; soft < 2; soft++) {
          if (!test_is_due(kind, 2 * (int)s + soft)) continue;
          problem *p =
              problem_new_levels(kind, TARE_DTYPE_F32, shapes[s].images, shapes[s].classes, 1, &shapes[s].level);
          draw_everything(p, soft);
          check_fills(p, device);
          problem_free(p);
        }
      }
    }
  }
}

Test(extremes, an_empty_axis_has_any_stride) {
  static const level_shape empty[] = {{0, 3, 1}, {2, 2, 0}, {1, 0, 1}};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      problem *p = problem_new_levels(kind, TARE_DTYPE_F32, 1, 3, 3, empty);
      check_fills(p, device);
      problem_free(p);
      p = problem_new_levels(kind, TARE_DTYPE_F32, 0, 3, 1, &(level_shape){2, 2, 2});
      check_fills(p, device);
      problem_free(p);
    }
  }
}

Test(extremes, the_rows_of_a_head_have_any_stride_where_one_row_is_all) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    for (int64_t rows = 1; rows <= 6; rows += 5) {
      for (int e = 0; e < EXTREMES + 1; e++) {
        fill f = {.value = extremes[e % EXTREMES], .mixed = e == EXTREMES};
        problem *p = head_problem(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, rows, 3, 4);
        problem_draw_row_weights(p);
        p->head->call = evaluate_filled_head;
        p->head->user = &f;
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* Counting looks at the labels alone: what the level says of other arrays is not even checked. */
Test(extremes, label_counts_take_any_stride_of_other_arrays) {
  FOR_EACH_DEVICE(device) {
    static const int32_t labels[6] = {0, 1, -1, 2, 2, 1};
    buffer *given = buffer_of(device, labels, sizeof labels);
    buffer *counts = buffer_new(device, sizeof(tare_counts), 0);
    for (int e = 0; e < EXTREMES; e++) {
      const tare_strides any = {extremes[e], extremes[e], extremes[e], extremes[e], extremes[e]};
      tare_level level;
      tare_batch batch;
      tare_level_init_rows(&level, 6, 3);
      level.logits = level.gradient = level.element_loss = given->memory;
      level.logits_strides = level.gradient_strides = level.element_loss_strides = level.targets_strides = any;
      level.labels = given->memory;
      tare_batch_init(&batch);
      batch.levels = &level, batch.level_count = 1, batch.classes = 3;
      cr_assert_eq(tare_label_counts(device->context, &batch, counts->memory, NULL, NULL), TARE_STATUS_OK, "%s",
                   tare_error_text(device->context));
      cr_assert_eq(tare_context_synchronize(device->context, NULL), TARE_STATUS_OK);
      tare_counts found;
      buffer_download(counts, "counts");
      memcpy(&found, counts->now, sizeof found);
      cr_assert(found.rows == 6 && found.positives == 5 && found.background == 1);
    }
    buffer_free(given);
    buffer_free(counts);
  }
}

/* ---- Strides that reach too far -------------------------------------------------------------------------------- */

/* Two rows and two classes; one stride of one array is `stride`, and the array has two places along its axis. */
static tare_status with_stride(const test_device *device, int kind, int axis, int64_t stride) {
  static const float zeros[64];
  tare_level level;
  tare_batch batch;
  tare_loss_spec loss;
  uint64_t bytes;
  tare_loss_spec_init(&loss, TARE_LOSS_SIGMOID_CE);
  tare_batch_init(&batch);
  tare_level_init_nchw(&level, 2, 2, 2, 2);
  level.logits = zeros, level.gradient = (void *)1024;
  level.labels = zeros, level.targets = zeros, level.row_weights = zeros, level.element_weights = zeros;
  level.scores = zeros, level.row_loss = (void *)2048, level.element_loss = (void *)4096;
  *stride_at(strides_of(&level, kind), axis) = stride;
  batch.levels = &level, batch.level_count = 1, batch.classes = 2, batch.images = 2;
  return tare_workspace_size(device->context, &loss, &batch, NULL, &bytes);
}

Test(extremes, strides_that_reach_too_far) {
  static const int64_t far[] = {
      INT64_MIN,        INT64_MIN + 1, -INT64_MAX / 2,          -(INT64_C(1) << 59),   INT64_MAX,
      INT64_C(1) << 59, INT64_MAX / 2, -(INT64_C(1) << 58) - 1, (INT64_C(1) << 58) + 1};
  FOR_EACH_DEVICE(device) {
    for (int kind = 0; kind < ARRAY_KINDS; kind++)
      for (int axis = 0; axis < AXES; axis++) {
        const bool by_row = is_row_array(kind);
        if (by_row && axis == AXIS_CLASS) continue;
        for (size_t i = 0; i < sizeof far / sizeof *far; i++) {
          const tare_status status = with_stride(device, kind, axis, far[i]);
          const char *text = tare_error_text(device->context);
          cr_assert_eq(status, TARE_STATUS_INVALID_ARGUMENT, "array %d, axis %d, %lld: %s", kind, axis,
                       (long long)far[i], tare_status_name(status));
          cr_assert(strstr(text, "_strides") && strstr(text, "2^58"), "%s", text);
        }
      }
  }
}

/* Each axis reaches less than the bound, and all of them more, on either side. */
Test(extremes, strides_that_reach_too_far_together) {
  static const float zeros[64];
  FOR_EACH_DEVICE(device) {
    for (int sign = -1; sign <= 1; sign += 2) {
      const int64_t half = sign * ((INT64_C(1) << 57) + 1);
      tare_level level;
      tare_batch batch;
      tare_loss_spec loss;
      uint64_t bytes;
      tare_loss_spec_init(&loss, TARE_LOSS_SIGMOID_CE);
      tare_batch_init(&batch);
      tare_level_init_rows(&level, 2, 2);
      level.logits = zeros, level.labels = zeros;
      level.logits_strides = (tare_strides){half, 0, half, 0, 1};
      batch.levels = &level, batch.level_count = 1, batch.classes = 2, batch.images = 2;
      const tare_status status = tare_workspace_size(device->context, &loss, &batch, NULL, &bytes);
      cr_assert_eq(status, TARE_STATUS_INVALID_ARGUMENT, "%s", tare_status_name(status));
      cr_assert_not_null(strstr(tare_error_text(device->context), "2^58"), "%s", tare_error_text(device->context));
    }
  }
}

/* ---- Sizes ----------------------------------------------------------------------------------------------------- */

Test(extremes, strides_of_huge_levels_do_not_wrap) {
  const int64_t big = INT64_C(1) << 40;
  tare_level level;
  tare_level_init_rows(&level, big, big);
  cr_assert_eq(level.logits_strides.image, INT64_MAX);
  cr_assert_eq(level.labels_strides.image, big);
  cr_assert_eq(level.logits_strides.x, big);
  tare_level_init_nchw(&level, big, big, big, big);
  cr_assert_eq(level.logits_strides.image, INT64_MAX);
  cr_assert_eq(level.logits_strides.anchor, INT64_MAX);
  cr_assert_eq(level.logits_strides.cls, INT64_MAX);
  cr_assert_eq(level.labels_strides.y, INT64_MAX);
  tare_level_init_nhwc(&level, big, big, big, big);
  cr_assert_eq(level.logits_strides.image, INT64_MAX);
  cr_assert_eq(level.logits_strides.x, INT64_MAX);
  cr_assert_eq(level.logits_strides.anchor, big);
  tare_level_init_nhwc(&level, INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN);
  tare_level_init_nchw(&level, INT64_MIN, -1, 3, INT64_MAX);
}

typedef tare_status simple_call(tare_context *context, int64_t rows, int64_t classes);
static tare_status call_ce(tare_context *context, int64_t rows, int64_t classes) {
  static float x[4];
  static int32_t y[4];
  return tare_sigmoid_ce(context, rows, classes, TARE_DTYPE_F32, x, y, -1, TARE_NORMALIZER_SUM, NULL, NULL, NULL);
}
static tare_status call_focal(tare_context *context, int64_t rows, int64_t classes) {
  static float x[4];
  static int32_t y[4];
  return tare_sigmoid_focal(context, rows, classes, TARE_DTYPE_F32, x, y, 2, 0.25, TARE_NORMALIZER_SUM, NULL, NULL,
                            NULL);
}
static tare_status call_softmax(tare_context *context, int64_t rows, int64_t classes) {
  static float x[4];
  static int32_t y[4];
  return tare_softmax_ce(context, rows, classes, TARE_DTYPE_F32, x, y, TARE_NORMALIZER_SUM, NULL, NULL, NULL);
}
static tare_status call_softmax_focal(tare_context *context, int64_t rows, int64_t classes) {
  static float x[4];
  static int32_t y[4];
  return tare_softmax_focal(context, rows, classes, TARE_DTYPE_F32, x, y, 2, -1, TARE_NORMALIZER_SUM, NULL, NULL, NULL);
}
static tare_status call_ghm(tare_context *context, int64_t rows, int64_t classes) {
  static float x[4];
  static int32_t y[4];
  return tare_ghm_c(context, rows, classes, TARE_DTYPE_F32, x, y, 10, NULL, NULL, NULL);
}

Test(extremes, simple_calls_of_huge_sizes_are_refused) {
  static simple_call *const calls[] = {call_ce, call_focal, call_softmax, call_softmax_focal, call_ghm};
  static const struct {
    int64_t rows, classes;
    const char *name;
  } sizes[] = {{INT64_C(1) << 40, INT64_C(1) << 40, "classes"},
               {INT64_C(1) << 40, INT64_C(1) << 30, "2^58"},
               {INT64_MAX, 1, "2^58"},
               {INT64_MAX, INT32_MAX, "2^58"},
               {1, INT64_MAX, "classes"},
               {INT64_MAX, INT64_MAX, "classes"},
               {INT64_MIN, 3, "rows"},
               {3, INT64_MIN, "classes"},
               {0, INT64_MAX, "classes"},
               {(INT64_C(1) << 58) + 1, 1, "2^58"}};
  FOR_EACH_DEVICE(device) {
    for (size_t c = 0; c < sizeof calls / sizeof *calls; c++)
      for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        const tare_status status = calls[c](device->context, sizes[s].rows, sizes[s].classes);
        const char *text = tare_error_text(device->context);
        cr_assert_eq(status, TARE_STATUS_INVALID_ARGUMENT, "%d, %d: %s", (int)c, (int)s, tare_status_name(status));
        cr_assert_not_null(strstr(text, sizes[s].name), "%d, %d: %s", (int)c, (int)s, text);
      }
  }
}

/* Sixteen levels that are allowed each: the bytes that the exact density needs for all of them leave 64 bits. */
Test(extremes, the_workspace_of_huge_levels_does_not_wrap) {
  static const float zero;
  FOR_EACH_DEVICE(device) {
    tare_level levels[TARE_MAX_LEVELS];
    tare_batch batch;
    tare_loss_spec loss;
    uint64_t bytes = 0;
    tare_loss_spec_init(&loss, TARE_LOSS_GHM_C);
    loss.ghm.density = TARE_GHM_DENSITY_EXACT;
    tare_batch_init(&batch);
    batch.levels = levels, batch.level_count = TARE_MAX_LEVELS, batch.classes = 1 << 30;
    for (int l = 0; l < TARE_MAX_LEVELS; l++) {
      tare_level_init_rows(&levels[l], INT64_C(1) << 28, batch.classes);
      levels[l].logits = &zero, levels[l].logits_strides = (tare_strides){0, 0, 0, 0, 0};
      levels[l].labels = &zero, levels[l].labels_strides = (tare_strides){0, 0, 0, 0, 0};
    }
    const tare_status status = tare_workspace_size(device->context, &loss, &batch, NULL, &bytes);
    cr_assert_eq(status, TARE_STATUS_INVALID_ARGUMENT, "%s, %llu bytes", tare_status_name(status),
                 (unsigned long long)bytes);
    cr_assert_not_null(strstr(tare_error_text(device->context), "rows x classes"), "%s",
                       tare_error_text(device->context));
  }
}

/* ---- Steps of a GHM state -------------------------------------------------------------------------------------- */

/* The number of steps stays at its end. Below 0, which no call writes, no step has been taken. */
static void check_steps(const test_device *device, int64_t before, int64_t after, double sum) {
  enum { BINS = 4, WORDS = 2 + 3 * BINS };
  uint64_t words[WORDS] = {(uint64_t)before, 40, 10, 10, 10, 10};
  const double old = 100;
  for (int k = 0; k < BINS; k++) memcpy(&words[2 + BINS + k], &old, sizeof old);
  buffer *state = buffer_of(device, words, sizeof words);
  tare_loss_spec loss;
  tare_loss_spec_init(&loss, TARE_LOSS_GHM_C);
  loss.ghm.bins = BINS, loss.ghm.momentum = 0.75, loss.ghm.state = state->memory;
  cr_assert_eq(tare_ghm_density_update(device->context, &loss, NULL), TARE_STATUS_OK, "%s",
               tare_error_text(device->context));
  cr_assert_eq(tare_context_synchronize(device->context, NULL), TARE_STATUS_OK);
  buffer_download(state, "state");
  memcpy(words, state->now, sizeof words);
  cr_assert_eq((int64_t)words[0], after, "%lld steps after %lld", (long long)words[0], (long long)before);
  for (int k = 0; k < BINS; k++) {
    double s;
    memcpy(&s, &words[2 + BINS + k], sizeof s);
    CHECK_NEAR("S", s, sum, ((tolerance){0, 1e-15}));
  }
  buffer_free(state);
}

Test(extremes, steps_stay_at_their_end) {
  FOR_EACH_DEVICE(device) {
    check_steps(device, INT64_MAX, INT64_MAX, 77.5);
    check_steps(device, INT64_MAX - 1, INT64_MAX, 77.5);
    check_steps(device, 1, 2, 77.5);
    check_steps(device, 0, 1, 10);
    check_steps(device, -1, 1, 10);
    check_steps(device, INT64_MIN, 1, 10);
  }
}
