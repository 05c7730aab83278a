/* SPDX-License-Identifier: Apache-2.0 */
/* A label that is none is refused, and its row named. */
#include "labels.h"

/* ---- Labels that are none -------------------------------------------------------------------------------------- */

/* The columns of GHM-R are no classes: every label from first_label on is one. */
static bool is_a_class_of_a_regression(int32_t kind, int64_t label) { return kind == TARE_LOSS_GHM_R && label >= 0; }

Test(labels, invalid_ones_are_refused_by_row) {
  static const int64_t bad[] = {CLASSES, CLASSES + 1, -3, -100, 2147483647, -2147483647 - 1};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t b = 0; b < sizeof bad / sizeof *bad; b++) {
        if (is_a_class_of_a_regression(kind, bad[b])) continue;
        for (int32_t type = TARE_LABEL_DTYPE_I32; type <= TARE_LABEL_DTYPE_I64; type++) {
          problem *p = in_convention(kind, conventions[0], type);
          p->labels[61] = bad[b];
          expect_refused(p, device, 61);
          problem_free(p);
        }
      }
    }
  }
}

/* 2^32 + 1 is not class 1, 2^63 - 1 not class -1. */
Test(labels, wide_ones_are_checked_before_narrowing) {
  static const int64_t bad[] = {INT64_C(4294967297), INT64_C(4294967295), -INT64_C(4294967297), INT64_C(8589934592),
                                INT64_MAX,           INT64_MIN,           INT64_C(4294967294),  -INT64_C(4294967295)};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t b = 0; b < sizeof bad / sizeof *bad; b++) {
        if (is_a_class_of_a_regression(kind, bad[b])) continue;
        problem *p = in_convention(kind, conventions[0], TARE_LABEL_DTYPE_I64);
        p->labels[17] = bad[b];
        expect_refused(p, device, 17);
        problem_free(p);
      }
    }
  }
}

/* No int32 label equals a special label beyond int32: 2^32-1 is not -1. Class 0 may lie beyond all labels. */
Test(labels, special_ones_may_be_wider_than_labels) {
  static const convention wide[] = {{0, INT64_C(4294967295), INT64_C(4294967294)},
                                    {0, -1, INT64_C(4294967294)},
                                    {0, INT64_C(4294967295), -2},
                                    {-INT64_C(4294967295), -1, -2}};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t c = 0; c < sizeof wide / sizeof *wide; c++) {
        problem *p = in_convention(kind, conventions[0], TARE_LABEL_DTYPE_I32);
        for (int64_t i = 0; i < p->rows; i++) p->labels[i] = wide[c].first ? -1 : i % CLASSES;
        p->first_label = wide[c].first;
        p->background_label = wide[c].background;
        p->ignore_label = wide[c].ignore;
        CHECK_PROBLEM(p, device);
        if (!wide[c].first && wide[c].background != -1) p->labels[33] = -1;
        if (!wide[c].first && wide[c].background == -1) p->labels[33] = -2;
        if (wide[c].first) p->labels[33] = 1; /* class 0, were the difference to wrap */
        if (!is_a_class_of_a_regression(kind, p->labels[33])) expect_refused(p, device, 33);
        problem_free(p);
      }
    }
  }
}

/* Boxes have 4 columns and 80 classes: the label of a regressed row is any class, however wide. */
Test(labels, regression_takes_any_class) {
  static const int64_t classes[] = {4, 79, 1202, INT64_C(4294967297), INT64_MAX};
  FOR_EACH_DEVICE(device) {
    problem *p = problem_new(TARE_LOSS_GHM_R, TARE_DTYPE_F32, 60, 4);
    p->label_dtype = TARE_LABEL_DTYPE_I64;
    for (int i = 0; i < 5; i++) p->labels[3 * i] = classes[i];
    CHECK_PROBLEM(p, device);
    p->first_label = 5;
    for (int i = 0; i < 60; i++) p->labels[i] = i % 2 == 0 ? 5 + i : -1;
    CHECK_PROBLEM(p, device);
    p->labels[7] = 4;
    expect_refused(p, device, 7);
    problem_free(p);
  }
}

/* class = label - first_label must not wrap either. */
Test(labels, first_label_does_not_wrap) {
  FOR_EACH_DEVICE(device) {
    problem *p = problem_new(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 20, CLASSES);
    p->label_dtype = TARE_LABEL_DTYPE_I64;
    p->first_label = INT64_MAX - 3;
    for (int64_t i = 0; i < p->rows; i++) p->labels[i] = -1;
    p->labels[0] = INT64_MAX; /* class 3 */
    CHECK_PROBLEM(p, device);
    p->labels[5] = INT64_MIN; /* class 4, were the difference to wrap */
    expect_refused(p, device, 5);
    problem_free(p);
  }
}

Test(labels, labels_may_be_all_of_int64) {
  FOR_EACH_DEVICE(device) {
    problem *p = in_convention(TARE_LOSS_SIGMOID_FOCAL, (convention){INT64_C(1) << 40, INT64_MIN, INT64_MAX},
                               TARE_LABEL_DTYPE_I64);
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}

/* The first of several bad rows is named, whatever thread met which. */
Test(labels, the_first_bad_row_is_named) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      problem *p = problem_new(kind, TARE_DTYPE_F32, test_size(40000, 4000), 5);
      const int64_t rows[] = {p->rows - 1, p->rows / 2, 977, p->rows - 7};
      for (size_t i = 0; i < 4; i++) p->labels[rows[i]] = -88 - (int64_t)i;
      expect_refused(p, device, 977);
      problem_free(p);
    }
  }
}

/* Rows are numbered image, y, x, anchor within a level, level after level, however the labels lie. */
Test(labels, rows_are_numbered_level_after_level) {
  static const level_shape shapes[] = {{4, 5, 3}, {2, 3, 3}, {1, 2, 3}};
  FOR_EACH_DEVICE(device) {
    for (int image_major = 0; image_major < 2; image_major++) {
      problem *p = problem_new_levels(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, 2, 4, 3, shapes);
      p->image_major = image_major == 1;
      p->place[ARRAY_LOGITS].channels_first = true;
      const int64_t row = 2 * 60 + 18 + (1 * 3 + 2) * 3 + 1; /* level 1, image 1, y 1, x 2, anchor 1 */
      p->labels[row] = 6543;
      expect_refused(p, device, row);
      p->labels[2 * 60 + 2 * 18 + 6] = 77; /* level 2, image 1: later in row order */
      expect_refused(p, device, row);
      problem_free(p);
    }
  }
}

/* A label is told as it stands, where labels are not next to each other. */
Test(labels, a_bad_label_is_read_at_its_stride) {
  FOR_EACH_DEVICE(device) {
    for (int32_t dtype = TARE_LABEL_DTYPE_I32; dtype <= TARE_LABEL_DTYPE_I64; dtype++) {
      problem *p = in_convention(TARE_LOSS_SIGMOID_FOCAL, conventions[0], dtype);
      p->place[ARRAY_LABELS].pad[AXIS_ANCHOR] = 2;
      p->labels[17] = 5077;
      expect_refused(p, device, 17);
      outcome *o = problem_run(p, device);
      if (o->device->kind == TARE_DEVICE_CPU) cr_assert_not_null(strstr(o->text, "is 5077 "), "%s", o->text);
      outcome_free(o);
      problem_free(p);
    }
  }
}

/* One class, anchor after anchor: the rows are contiguous in every array, but not in row order. */
Test(labels, rows_are_numbered_where_all_arrays_are_one_run) {
  static const level_shape shape = {4, 5, 3};
  FOR_EACH_DEVICE(device) {
    problem *p = problem_new_levels(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, 1, 1, 1, &shape);
    for (int array = 0; array < ARRAY_KINDS; array++) p->place[array].channels_first = true;
    p->labels[17] = 6543;
    p->labels[18] = 6544; /* lies before it */
    expect_refused(p, device, 17);
    problem_free(p);
  }
}

/* Beside dense targets labels only mark ignored rows, but they are still checked. */
Test(labels, invalid_beside_targets) {
  FOR_EACH_DEVICE(device) {
    problem *p = problem_new(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 60, 5);
    problem_draw_targets(p, TARE_DTYPE_F32);
    p->slack = 2e-6; /* p - t cancels, as in test_soft_targets.c */
    p->labels[31] = 5;
    expect_refused(p, device, 31);
    problem_free(p);
  }
}

/* After a refusal the context works, and its text is that of the last call. */
Test(labels, a_refusal_leaves_the_context_working) {
  FOR_EACH_DEVICE(device) {
    problem *p = in_convention(TARE_LOSS_SIGMOID_FOCAL, conventions[0], TARE_LABEL_DTYPE_I32);
    p->labels[3] = 99;
    expect_refused(p, device, 3);
    p->labels[3] = 0;
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}
