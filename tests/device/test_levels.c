/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the numbers lie makes no difference: NCHW and NHWC heads, one to sixteen levels, image-major labels, slices of
 * larger tensors, odd alignments, in-place gradients, broadcast and backward strides, and offsets beyond 2^32.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "support/numbers.h"
#include "support/problem.h"

static const level_shape pyramid[] = {{13, 17, 3}, {7, 9, 3}, {4, 5, 3}, {2, 3, 3}, {1, 1, 3}};

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};
enum { DTYPES = sizeof dtypes / sizeof *dtypes };

static void use_channels_first(problem *p) {
  static const int with_classes[] = {ARRAY_LOGITS, ARRAY_GRADIENT, ARRAY_TARGETS, ARRAY_ELEMENT_WEIGHTS,
                                     ARRAY_ELEMENT_LOSS};
  for (size_t i = 0; i < sizeof with_classes / sizeof *with_classes; i++) {
    p->place[with_classes[i]].channels_first = true;
  }
}

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
          check_levels(device, kind, dtypes[d], count, false, false);
          check_levels(device, kind, dtypes[d], count, true, false);
          check_levels(device, kind, dtypes[d], count, true, true);
        }
      }
    }
  }
}

/* Larger than a tile, at the class counts of real heads. */
Test(levels, large_heads) {
  static const level_shape head[] = {{100, 33, 9}, {50, 17, 9}, {25, 8, 9}};
  static const int64_t classes[] = {1, 3, 80, 91};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t c = 0; c < sizeof classes / sizeof *classes; c++) {
        problem *p =
            problem_new_levels(kind, TARE_DTYPE_F32, 1, test_size(classes[c], 2), 3, test_small() ? pyramid : head);
        use_channels_first(p);
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* Loss and gradient alone, which is what training asks for and for which a GPU has its fastest paths; planes wider than a
 * tile of theirs, and more classes than such a tile takes at a time. */
Test(levels, heads_of_loss_and_gradient_alone) {
  static const level_shape wide[] = {{20, 20, 2}, {9, 7, 1}};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t d = 0; d < DTYPES; d++) {
        for (int channels_first = 0; channels_first < 2; channels_first++) {
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

/* ---- Odd places ------------------------------------------------------------------------------------------------ */

/* A class count of a vector's width and one that is not. */
static problem *head_of(int32_t kind, int32_t dtype, int64_t classes) {
  problem *p = problem_new_levels(kind, dtype, 2, classes, 3, pyramid);
  problem_draw_row_weights(p);
  return p;
}

Test(levels, element_alignment_suffices) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t d = 0; d < DTYPES; d++) {
        for (int64_t phase = 1; phase < 8; phase += 2) {
          problem *p = problem_new(kind, dtypes[d], 57, phase < 4 ? 16 : 19);
          problem_draw_row_weights(p);
          for (int kind_of = 0; kind_of < ARRAY_KINDS; kind_of++) p->place[kind_of].phase = phase + kind_of % 3;
          CHECK_PROBLEM(p, device);
          problem_free(p);
        }
      }
    }
  }
}

Test(levels, logits_and_gradient_of_different_phase) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t d = 0; d < DTYPES; d++) {
        for (int64_t phase = 0; phase < 4; phase++) {
          problem *p = problem_new(kind, dtypes[d], 57, 19);
          p->place[ARRAY_LOGITS].phase = phase;
          p->place[ARRAY_GRADIENT].phase = 3 - phase;
          CHECK_PROBLEM(p, device);
          problem_free(p);
        }
      }
    }
  }
}

Test(levels, slices_of_larger_tensors) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (int order = 0; order < 2; order++) {
        problem *p = head_of(kind, TARE_DTYPE_F32, 6);
        if (kind != TARE_LOSS_GHM_R && !is_softmax(kind) && !is_ghm(kind)) problem_draw_element_weights(p);
        if (order == 1) use_channels_first(p);
        for (int a = 0; a < ARRAY_KINDS; a++) {
          for (int axis = 0; axis < AXES; axis++) p->place[a].pad[axis] = (a + axis) % 3;
          p->place[a].pad[AXIS_CLASS] += 1;
          if (is_row_array(a)) p->place[a].pad[AXIS_CLASS] = 0;
        }
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* A detection head that shares one tensor with box outputs: C logits in rows of C + 4. */
Test(levels, classes_beside_boxes_in_one_row) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      problem *p = problem_new(kind, TARE_DTYPE_F32, test_size(500, 50), 16);
      p->place[ARRAY_LOGITS].pad[AXIS_CLASS] = 4;
      p->place[ARRAY_GRADIENT].pad[AXIS_CLASS] = 4;
      CHECK_PROBLEM(p, device);
      p->in_place = true;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

Test(levels, in_place) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t d = 0; d < DTYPES; d++) {
        for (int order = 0; order < 2; order++) {
          problem *p = head_of(kind, dtypes[d], 9);
          if (order == 1) use_channels_first(p);
          outcome *apart = problem_run(p, device);
          p->in_place = true;
          outcome *together = problem_run(p, device);
          CHECK_SAME_OUTCOME(p, together, apart);
          CHECK_PROBLEM(p, device);
          outcome_free(apart);
          outcome_free(together);
          problem_free(p);
        }
      }
    }
  }
}

Test(levels, in_place_rows_wider_than_a_tile) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      problem *p = problem_new(kind, TARE_DTYPE_F32, 5, test_size(20011, 2003));
      p->in_place = true;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* The gradient lies as it likes. */
Test(levels, gradient_in_another_order) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (int order = 0; order < 2; order++) {
        problem *p = head_of(kind, TARE_DTYPE_F32, 8);
        p->place[ARRAY_LOGITS].channels_first = order == 0;
        p->place[ARRAY_GRADIENT].channels_first = order == 1;
        p->place[ARRAY_GRADIENT].phase = 3;
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

Test(levels, strides_below_zero) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (unsigned flip = 1; flip < 1u << AXES; flip++) {
        problem *p = problem_new_levels(kind, TARE_DTYPE_F32, 2, 5, 2, pyramid + 2);
        problem_draw_row_weights(p);
        p->place[ARRAY_LOGITS].flip = flip;
        p->place[ARRAY_LABELS].flip = flip & ~(1u << AXIS_CLASS);
        p->place[ARRAY_GRADIENT].flip = flip >> 1;
        p->place[ARRAY_ROW_WEIGHTS].flip = flip & 3u;
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* ---- Broadcast ------------------------------------------------------------------------------------------------- */

Test(levels, one_row_weight_an_image) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      problem *p = problem_new_levels(kind, TARE_DTYPE_F32, 3, 5, 1, pyramid);
      p->row_weights = calloc((size_t)p->rows, sizeof *p->row_weights);
      for (int64_t i = 0; i < p->rows; i++) p->row_weights[i] = 0.5 + (double)(i / (p->rows / 3));
      p->place[ARRAY_ROW_WEIGHTS].broadcast = 1u << AXIS_Y | 1u << AXIS_X | 1u << AXIS_ANCHOR;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

Test(levels, one_element_weight_a_class) {
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_SIGMOID_CE; kind <= TARE_LOSS_SIGMOID_POLY1; kind++) {
      problem *p = head_of(kind, TARE_DTYPE_F32, 5);
      p->element_weights = calloc((size_t)(p->rows * 5), sizeof *p->element_weights);
      for (int64_t i = 0; i < p->rows * 5; i++) p->element_weights[i] = (double)(i % 5);
      p->place[ARRAY_ELEMENT_WEIGHTS].broadcast = (1u << AXES) - 1 - (1u << AXIS_CLASS);
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* One label, one target and one logit for all: inputs of no extent at all. */
Test(levels, everything_broadcast) {
  const unsigned all = (1u << AXES) - 1;
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      problem *p = problem_new_levels(kind, TARE_DTYPE_F32, 2, 4, 2, pyramid);
      for (int64_t i = 0; i < p->rows * 4; i++) p->logits[i] = 0.75;
      for (int64_t i = 0; i < p->rows; i++) p->labels[i] = 2;
      if (p->targets != NULL) {
        for (int64_t i = 0; i < p->rows * 4; i++) p->targets[i] = 0.5;
        p->place[ARRAY_TARGETS].broadcast = all;
      }
      p->place[ARRAY_LOGITS].broadcast = all;
      p->place[ARRAY_LABELS].broadcast = all;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* All anchors share one row of logits (a shared head), and each has a label of its own. */
Test(levels, logits_shared_by_anchors) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      problem *p = problem_new_levels(kind, TARE_DTYPE_F32, 1, 4, 1, pyramid);
      for (int64_t row = 0; row < p->rows; row++) {
        memcpy(p->logits + row * 4, p->logits + row / 3 * 3 * 4, 4 * sizeof *p->logits);
      }
      p->place[ARRAY_LOGITS].broadcast = 1u << AXIS_ANCHOR;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* ---- Beyond 2^32 ----------------------------------------------------------------------------------------------- */

/* Address space without memory: a page exists once it is touched. */
static void *reserve(size_t bytes) {
  void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) cr_skip_test("no %zu bytes of address space", bytes);
  return memory;
}

typedef struct sparse_arrays {
  float *logits, *gradient, *row_loss;
  int32_t *labels;
  tare_strides strides; /* of all of them, in elements; rows are x, anchors 1 */
} sparse_arrays;

enum { SPARSE_IMAGES = 2, SPARSE_ROWS = 3, SPARSE_CLASSES = 5 };

static int64_t sparse_place(const sparse_arrays *a, int64_t row, int64_t c) {
  return row / SPARSE_ROWS * a->strides.image + row % SPARSE_ROWS * a->strides.x + c * a->strides.cls;
}

static void check_sparse(const test_device *device, int32_t kind, tare_strides strides) {
  const size_t span = (size_t)((SPARSE_IMAGES - 1) * strides.image + (SPARSE_ROWS - 1) * strides.x +
                               (SPARSE_CLASSES - 1) * strides.cls + 1);
  sparse_arrays a = {.logits = reserve(span * 4),
                     .gradient = reserve(span * 4),
                     .row_loss = reserve(span * 4),
                     .labels = reserve(span * 4),
                     .strides = strides};
  problem *p = problem_new(kind, TARE_DTYPE_F32, SPARSE_IMAGES * SPARSE_ROWS, SPARSE_CLASSES);
  for (int64_t i = 0; i < p->rows * SPARSE_CLASSES; i++) {
    a.logits[sparse_place(&a, i / SPARSE_CLASSES, i % SPARSE_CLASSES)] = (float)p->logits[i];
  }
  for (int64_t row = 0; row < p->rows; row++) a.labels[sparse_place(&a, row, 0)] = (int32_t)p->labels[row];

  const tare_level level = {.height = 1,
                            .width = SPARSE_ROWS,
                            .anchors = 1,
                            .logits = a.logits,
                            .logits_strides = strides,
                            .gradient = a.gradient,
                            .gradient_strides = strides,
                            .labels = a.labels,
                            .labels_strides = strides,
                            .row_loss = a.row_loss,
                            .row_loss_strides = strides};
  tare_batch batch;
  tare_output output;
  float loss = 0;
  tare_batch_init(&batch);
  tare_output_init(&output);
  batch.levels = &level;
  batch.level_count = 1;
  batch.images = SPARSE_IMAGES;
  batch.classes = SPARSE_CLASSES;
  output.loss = &loss;
  tare_loss_spec loss_spec = p->loss;
  float offset[SPARSE_CLASSES];
  for (int c = 0; p->class_offset != NULL && c < SPARSE_CLASSES; c++) offset[c] = (float)p->class_offset[c];
  if (p->class_offset != NULL) loss_spec.logit_adjusted.offset = offset;
  const tare_status status = tare_evaluate(device->context, &loss_spec, &batch, &output, NULL);
  cr_assert_eq(status, TARE_STATUS_OK, "%s: %s", problem_text(p), tare_error_text(device->context));
  cr_assert_eq(tare_context_synchronize(device->context, NULL), TARE_STATUS_OK);

  outcome *want = problem_expect(p);
  outcome got = {.status = TARE_STATUS_OK,
                 .rows = p->rows,
                 .elements = p->rows * SPARSE_CLASSES,
                 .loss = (double)loss,
                 .gradient = calloc((size_t)(p->rows * SPARSE_CLASSES), sizeof(double)),
                 .row_loss = calloc((size_t)p->rows, sizeof(double))};
  for (int64_t i = 0; i < got.elements; i++) {
    got.gradient[i] = (double)a.gradient[sparse_place(&a, i / SPARSE_CLASSES, i % SPARSE_CLASSES)];
  }
  for (int64_t row = 0; row < p->rows; row++) got.row_loss[row] = (double)a.row_loss[sparse_place(&a, row, 0)];
  p->want = WANT_LOSS | WANT_GRADIENT | WANT_ROW_LOSS;
  free(want->element_loss);
  want->element_loss = NULL;
  CHECK_OUTCOME(p, &got, want);
  free(got.gradient);
  free(got.row_loss);
  outcome_free(want);
  problem_free(p);
  munmap(a.logits, span * 4);
  munmap(a.gradient, span * 4);
  munmap(a.row_loss, span * 4);
  munmap(a.labels, span * 4);
}

Test(levels, strides_beyond_32_bits) {
  const int64_t huge = (INT64_C(1) << 32) + 24;
  FOR_EACH_DEVICE(device) {
    if (!device->host_memory) continue;
    FOR_EACH_LOSS(kind) {
      if (kind == TARE_LOSS_GHM_R) continue; /* it needs a fifth array; its places are counted by the same code */
      check_sparse(device, kind, (tare_strides){.image = huge, .x = SPARSE_CLASSES, .cls = 1});
      check_sparse(device, kind, (tare_strides){.image = 64, .x = huge, .cls = 1});
      check_sparse(device, kind, (tare_strides){.image = 64, .x = 16, .cls = huge});
      check_sparse(device, kind, (tare_strides){.image = huge, .x = 1, .cls = huge + 7 * 24});
    }
  }
}
