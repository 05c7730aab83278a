/* SPDX-License-Identifier: Apache-2.0 */
/* The same numbers in every layout and for any number of levels. */
#define _GNU_SOURCE
#include "levels.h"

/* ---- The helpers that fill strides ----------------------------------------------------------------------------- */

static void expect_strides(const char *what, tare_strides got, tare_strides want) {
  cr_assert(
      got.image == want.image && got.y == want.y && got.x == want.x && got.anchor == want.anchor && got.cls == want.cls,
      "%s: %lld %lld %lld %lld %lld", what, (long long)got.image, (long long)got.y, (long long)got.x,
      (long long)got.anchor, (long long)got.cls);
}

/* `with_classes` for the arrays that have a class axis; the others are [image, y, x, anchor], and their cls is free. */
static void expect_level(tare_level level, tare_strides with_classes, int64_t height, int64_t width, int64_t anchors) {
  tare_strides rows[] = {level.labels_strides, level.row_weights_strides, level.row_loss_strides, level.scores_strides};
  const tare_strides elements[] = {level.logits_strides, level.gradient_strides, level.targets_strides,
                                   level.element_weights_strides, level.element_loss_strides};
  cr_assert(level.height == height && level.width == width && level.anchors == anchors);
  for (size_t i = 0; i < sizeof elements / sizeof *elements; i++) expect_strides("element", elements[i], with_classes);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    rows[i].cls = 0;
    expect_strides("row", rows[i], (tare_strides){height * width * anchors, width * anchors, anchors, 1, 0});
  }
  cr_assert(level.logits == NULL && level.gradient == NULL && level.labels == NULL && level.targets == NULL &&
            level.row_weights == NULL && level.element_weights == NULL && level.row_loss == NULL &&
            level.element_loss == NULL && level.scores == NULL);
}

Test(levels, nchw_strides) {
  tare_level level;
  memset(&level, 0xFF, sizeof level);
  tare_level_init_nchw(&level, 3, 80, 13, 17);
  expect_level(level, (tare_strides){3 * 80 * 13 * 17, 17, 1, 80 * 13 * 17, 13 * 17}, 13, 17, 3);
}

Test(levels, nhwc_strides) {
  tare_level level;
  memset(&level, 0xFF, sizeof level);
  tare_level_init_nhwc(&level, 3, 80, 13, 17);
  expect_level(level, (tare_strides){13 * 17 * 3 * 80, 17 * 3 * 80, 3 * 80, 80, 1}, 13, 17, 3);
}

/* [images, rows, classes]: which of y, x and anchor the rows are is free, as the other two have length 1. */
Test(levels, rows_strides) {
  tare_level level;
  memset(&level, 0xFF, sizeof level);
  tare_level_init_rows(&level, 29, 7);
  cr_assert_eq(level.height * level.width * level.anchors, 29);
  const int64_t step = level.height == 29  ? level.logits_strides.y
                       : level.width == 29 ? level.logits_strides.x
                                           : level.logits_strides.anchor;
  cr_assert_eq(step, 7);
  cr_assert_eq(level.logits_strides.cls, 1);
  cr_assert_eq(level.logits_strides.image, 29 * 7);
  cr_assert_eq(level.labels_strides.image, 29);
}

/* ---- The same numbers in every layout -------------------------------------------------------------------------- */

static void check_levels(const test_device *device, int32_t kind, int32_t dtype, int32_t count, bool channels_first,
                         bool image_major) {
  problem *p = problem_new_levels(kind, dtype, 2, 5, count, pyramid);
  problem_draw_row_weights(p);
  if (channels_first) use_channels_first(p);
  p->image_major = image_major;
  CHECK_PROBLEM(p, device);
  problem_free(p);
}

Test(levels, heads_of_one_to_five_levels) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t d = 0; d < DTYPES; d++) {
        for (int32_t count = 1; count <= 5; count++) {
          if (!test_is_due(kind, count + (int)d)) continue;
          check_levels(device, kind, dtypes[d], count, false, false);
          check_levels(device, kind, dtypes[d], count, true, false);
          check_levels(device, kind, dtypes[d], count, true, true);
        }
      }
    }
  }
}

/* Larger than a tile, at the class counts of real heads: two of them for each loss. */
Test(levels, large_heads) {
  static const level_shape head[] = {{50, 33, 9}, {25, 17, 9}, {13, 8, 9}};
  static const int64_t classes[] = {1, 3, 80, 91};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t c = (size_t)kind % 2; c < sizeof classes / sizeof *classes; c += 2) {
        problem *p =
            problem_new_levels(kind, TARE_DTYPE_F32, 1, test_size(classes[c], 2), 3, test_small() ? pyramid : head);
        use_channels_first(p);
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* Loss and gradient alone, which is what training asks for and for which a GPU has its fastest paths; planes wider than
 * a tile of theirs, and more classes than such a tile takes at a time. */
Test(levels, heads_of_loss_and_gradient_alone) {
  static const level_shape wide[] = {{20, 20, 2}, {9, 7, 1}};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t d = 0; d < DTYPES; d++) {
        for (int channels_first = 0; channels_first < 2; channels_first++) {
          if (!test_is_due(kind, channels_first + 2 * (int)d)) continue;
          problem *p = problem_new_levels(kind, dtypes[d], 1, 37, 2, wide);
          if (channels_first) use_channels_first(p);
          p->want &= ~(unsigned)(WANT_ROW_LOSS | WANT_ELEMENT_LOSS);
          CHECK_PROBLEM(p, device);
          problem_free(p);
        }
      }
    }
  }
}

/* Levels and flat rows hold the same rows: not only near, the elements are computed by the same formula. */
Test(levels, levels_are_flat_rows) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      problem *head = problem_new_levels(kind, TARE_DTYPE_F32, 2, 7, 5, pyramid);
      problem *flat = problem_new(kind, TARE_DTYPE_F32, head->rows, 7);
      const size_t bytes = (size_t)(head->rows * 7) * sizeof(double);
      memcpy(flat->logits, head->logits, bytes);
      memcpy(flat->labels, head->labels, (size_t)head->rows * sizeof *head->labels);
      if (head->targets != NULL) memcpy(flat->targets, head->targets, bytes);
      use_channels_first(head);
      outcome *a = problem_run(head, device);
      outcome *b = problem_run(flat, device);
      CHECK_OUTCOME(head, a, b);
      outcome_free(a);
      outcome_free(b);
      problem_free(head);
      problem_free(flat);
    }
  }
}

Test(levels, sixteen_levels) {
  level_shape many[TARE_MAX_LEVELS];
  for (int l = 0; l < TARE_MAX_LEVELS; l++) many[l] = (level_shape){1 + l % 3, 1 + l % 5, 1 + l % 2};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      problem *p = problem_new_levels(kind, TARE_DTYPE_F32, 3, 4, TARE_MAX_LEVELS, many);
      use_channels_first(p);
      CHECK_PROBLEM(p, device);
      p->image_major = true;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

Test(levels, empty_levels) {
  static const level_shape some[] = {{0, 5, 3}, {4, 5, 3}, {3, 0, 3}, {2, 2, 0}, {2, 3, 3}};
  static const level_shape none[] = {{0, 5, 3}, {3, 0, 3}};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      problem *p = problem_new_levels(kind, TARE_DTYPE_F32, 2, 6, 5, some);
      use_channels_first(p);
      CHECK_PROBLEM(p, device);
      problem_free(p);
      problem *empty = problem_new_levels(kind, TARE_DTYPE_F32, 2, 6, 2, none);
      CHECK_PROBLEM(empty, device);
      problem_free(empty);
    }
  }
}
