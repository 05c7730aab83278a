/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Labels mean what the caller's convention says: mmcv's, apex's, Detectron's, and a background inside the range of the
 * classes, in both integer types. A label that is none of them is refused by row, before it is narrowed.
 */
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

static problem *in_convention(int32_t kind, convention c, int32_t label_dtype) {
  problem *p = problem_new(kind, TARE_DTYPE_F32, test_size(500, 80), CLASSES);
  p->first_label = c.first;
  p->background_label = c.background;
  p->ignore_label = c.ignore;
  p->label_dtype = label_dtype;
  problem_draw_labels(p, 0.4, 0.1);
  return p;
}

Test(labels, conventions) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t c = 0; c < sizeof conventions / sizeof *conventions; c++) {
        for (int32_t type = TARE_LABEL_DTYPE_I32; type <= TARE_LABEL_DTYPE_I64; type++) {
          problem *p = in_convention(kind, conventions[c], type);
          CHECK_PROBLEM(p, device);
          if (!is_ghm(kind)) {
            p->normalizer = TARE_NORMALIZER_POSITIVES;
            CHECK_PROBLEM(p, device);
            p->normalizer = TARE_NORMALIZER_ELEMENTS;
            CHECK_PROBLEM(p, device);
          }
          problem_free(p);
        }
      }
    }
  }
}

/* The sums that a background inside the range leaves, by hand: logits 0, so every element of a sigmoid loss is log 2
 * and a softmax row log C, and nothing but the meaning of the labels decides. */
Test(labels, background_inside_the_range_by_hand) {
  const double log2 = 0.69314718055994531, log7 = 1.9459101490553132;
  FOR_EACH_DEVICE(device) {
    problem *sigmoid = in_convention(TARE_LOSS_SIGMOID_CE, (convention){0, 3, -100}, TARE_LABEL_DTYPE_I32);
    problem *softmax = in_convention(TARE_LOSS_SOFTMAX_CE, (convention){0, 3, -100}, TARE_LABEL_DTYPE_I32);
    problem *both[2] = {sigmoid, softmax};
    for (int i = 0; i < 2; i++) {
      problem *p = both[i];
      memset(p->logits, 0, (size_t)(p->rows * p->classes) * sizeof *p->logits);
      memset(p->labels, 0, (size_t)p->rows * sizeof *p->labels);
      p->labels[0] = 3;
      p->labels[1] = -100;
      outcome *o = problem_run(p, device);
      cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
      const double counted = (double)(p->rows - 1);
      CHECK_NEAR("loss", o->loss, counted * (i == 0 ? CLASSES * log2 : log7), ((tolerance){0, 1e-6}));
      cr_assert_eq(o->counts.positives, p->rows - 2);
      cr_assert_eq(o->counts.background, 1);
      cr_assert_eq(o->counts.ignored, 1);
      cr_assert_eq(o->counts.counted, p->rows - 1);
      /* The background row: zeros everywhere for a sigmoid loss, class 3 for a softmax loss. */
      CHECK_NEAR("class 3 of row 0", o->gradient[3], i == 0 ? 0.5 : 1.0 / 7 - 1, ((tolerance){0, 1e-6}));
      CHECK_NEAR("class 0 of row 0", o->gradient[0], i == 0 ? 0.5 : 1.0 / 7, ((tolerance){0, 1e-6}));
      CHECK_NEAR("class 0 of row 1", o->gradient[CLASSES], 0, ((tolerance){0, 0}));
      outcome_free(o);
      problem_free(p);
    }
  }
}

/* A background that is no class: a softmax row of it does not count. */
Test(labels, softmax_background_outside_the_range_adds_nothing) {
  FOR_EACH_DEVICE(device) {
    problem *p = in_convention(TARE_LOSS_SOFTMAX_CE, (convention){0, CLASSES, -1}, TARE_LABEL_DTYPE_I32);
    p->labels[0] = CLASSES;
    outcome *o = problem_run(p, device);
    cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
    for (int c = 0; c < CLASSES; c++) CHECK_NEAR("background row", o->gradient[c], 0, ((tolerance){0, 0}));
    CHECK_NEAR("background row", o->row_loss[0], 0, ((tolerance){0, 0}));
    cr_assert_eq(o->counts.counted, o->counts.positives);
    cr_assert_gt(o->counts.background, 0);
    outcome_free(o);
    problem_free(p);
  }
}

/* ---- Labels that are none -------------------------------------------------------------------------------------- */

/* The columns of GHM-R are no classes: every label from first_label on is one. */
static bool is_a_class_of_a_regression(int32_t kind, int64_t label) { return kind == TARE_LOSS_GHM_R && label >= 0; }

/* Expects the refusal on a CPU context, with nothing written (problem_run checks that), or on a GPU the row left out
 * and the error from tare_context_synchronize, which knows the row but not what stood there. */
static void expect_refused(problem *p, const test_device *device, int64_t row) {
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

/* A special label that no int32 can be is met by none: 2^32-1 is not -1, and class 0 may lie beyond what labels reach. */
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

/* ---- tare_label_counts ----------------------------------------------------------------------------------------- */

static tare_batch flat_batch(const problem *p, tare_level *level, const buffer *labels) {
  tare_batch batch;
  tare_batch_init(&batch);
  tare_level_init_rows(level, p->rows, p->classes);
  level->labels = labels->memory;
  batch.levels = level;
  batch.level_count = 1;
  batch.classes = p->classes;
  batch.label_dtype = TARE_LABEL_DTYPE_I64;
  batch.first_label = p->first_label;
  batch.background_label = p->background_label;
  batch.ignore_label = p->ignore_label;
  return batch;
}

static struct oracle_counts expected_counts(const problem *p, int64_t *per_class) {
  struct oracle_problem question;
  oracle_problem_init(&question, ORACLE_SIGMOID_CE, p->rows, p->classes);
  question.labels = p->labels;
  question.first_label = p->first_label;
  question.background_label = p->background_label;
  question.ignore_label = p->ignore_label;
  return oracle_label_counts(&question, per_class);
}

static void check_label_counts(const problem *p, const test_device *device) {
  tare_level level;
  buffer *labels = buffer_of(device, p->labels, (size_t)p->rows * sizeof *p->labels);
  buffer *counts = buffer_new(device, sizeof(tare_counts), 0);
  buffer *per_class = buffer_new(device, (size_t)p->classes * sizeof(int64_t), 0);
  const tare_batch batch = flat_batch(p, &level, labels);
  const tare_status status = tare_label_counts(device->context, &batch, counts->memory, per_class->memory, NULL);
  cr_assert_eq(status, TARE_STATUS_OK, "%s", tare_error_text(device->context));
  cr_assert_eq(tare_context_synchronize(device->context, NULL), TARE_STATUS_OK);
  buffer_download(counts, "counts");
  buffer_download(per_class, "per_class");
  buffer_expect_unchanged(labels, "labels");

  int64_t *want_classes = calloc((size_t)p->classes, sizeof *want_classes);
  const struct oracle_counts want = expected_counts(p, want_classes);
  tare_counts got;
  memcpy(&got, counts->now, sizeof got);
  cr_assert(got.rows == want.rows && got.counted == want.counted && got.positives == want.positives &&
                got.background == want.background && got.ignored == want.ignored && got.invalid == 0,
            "counts of first %" PRId64 " background %" PRId64, p->first_label, p->background_label);
  cr_assert_arr_eq(per_class->now, want_classes, (size_t)p->classes * sizeof *want_classes);
  free(want_classes);
  buffer_free(labels);
  buffer_free(counts);
  buffer_free(per_class);
}

Test(labels, counts_per_class) {
  FOR_EACH_DEVICE(device) {
    for (size_t c = 0; c < sizeof conventions / sizeof *conventions; c++) {
      problem *p = in_convention(TARE_LOSS_SIGMOID_CE, conventions[c], TARE_LABEL_DTYPE_I64);
      check_label_counts(p, device);
      problem_free(p);
    }
    problem *wide = problem_new(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 5000, 1203);
    check_label_counts(wide, device);
    problem_free(wide);
  }
}

Test(labels, counts_either_output_alone) {
  FOR_EACH_DEVICE(device) {
    problem *p = in_convention(TARE_LOSS_SIGMOID_CE, conventions[0], TARE_LABEL_DTYPE_I64);
    tare_level level;
    buffer *labels = buffer_of(device, p->labels, (size_t)p->rows * sizeof *p->labels);
    const tare_batch batch = flat_batch(p, &level, labels);
    buffer *counts = buffer_new(device, sizeof(tare_counts), 0);
    buffer *per_class = buffer_new(device, CLASSES * sizeof(int64_t), 0);
    cr_assert_eq(tare_label_counts(device->context, &batch, counts->memory, NULL, NULL), TARE_STATUS_OK);
    cr_assert_eq(tare_label_counts(device->context, &batch, NULL, per_class->memory, NULL), TARE_STATUS_OK);
    cr_assert_eq(tare_label_counts(device->context, &batch, NULL, NULL, NULL), TARE_STATUS_OK);
    buffer_download(counts, "counts");
    buffer_download(per_class, "per_class");
    int64_t sum = 0, each[CLASSES];
    tare_counts got;
    memcpy(each, per_class->now, sizeof each);
    memcpy(&got, counts->now, sizeof got);
    for (int i = 0; i < CLASSES; i++) sum += each[i];
    cr_assert_gt(sum, 0);
    cr_assert_eq(sum, got.positives);
    buffer_free(labels);
    buffer_free(counts);
    buffer_free(per_class);
    problem_free(p);
  }
}

Test(labels, counts_refuse_invalid_labels) {
  FOR_EACH_DEVICE(device) {
    if (device->kind != TARE_DEVICE_CPU) continue;
    problem *p = in_convention(TARE_LOSS_SIGMOID_CE, conventions[0], TARE_LABEL_DTYPE_I64);
    p->labels[23] = INT64_C(4294967297);
    tare_level level;
    buffer *labels = buffer_of(device, p->labels, (size_t)p->rows * sizeof *p->labels);
    buffer *counts = buffer_new(device, sizeof(tare_counts), 0);
    buffer *per_class = buffer_new(device, CLASSES * sizeof(int64_t), 0);
    const tare_batch batch = flat_batch(p, &level, labels);
    cr_assert_eq(tare_label_counts(device->context, &batch, counts->memory, per_class->memory, NULL),
                 TARE_STATUS_INVALID_LABEL);
    cr_assert_not_null(strstr(tare_error_text(device->context), "23"), "%s", tare_error_text(device->context));
    buffer_expect_unchanged(counts, "counts");
    buffer_expect_unchanged(per_class, "per_class");
    buffer_free(labels);
    buffer_free(counts);
    buffer_free(per_class);
    problem_free(p);
  }
}
