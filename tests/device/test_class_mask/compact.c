/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mask of the batch is the batch without the masked classes. Their columns are left out, and a row whose class is
 * left out is a row of zeros. Gradients of what is left are the same bit for bit, on all paths. So are selections.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/buffers.h"
#include "support/head.h"
#include "support/parameters.h"
#include "support/problem.h"
#include "support/random.h"

#define FOR_EACH_MASKED_LOSS(kind) FOR_EACH_LOSS(kind) if (describe_loss(kind).family == TARE_LOSS_FAMILY_SIGMOID)

/* Which classes are left, as detectron2's federated loss has it: those that the batch shows, and some others. */
static int64_t *classes_left(const problem *p, int64_t *count) {
  int64_t *left = malloc(((size_t)p->classes + 1) * sizeof *left);
  *count = 0;
  for (int64_t c = 0; c < p->classes; c++)
    if (p->class_mask[c]) left[(*count)++] = c;
  return left;
}

/* Of the problem's first mask, which is that of all. The labels are plain class numbers. */
static problem *compacted(const problem *p, const int64_t *left, int64_t count) {
  problem *small = problem_new_levels(p->loss.kind, p->dtype, p->images, count, p->level_count, p->levels);
  for (int64_t row = 0; row < p->rows; row++) {
    small->labels[row] = p->labels[row] < 0 ? p->labels[row] : -1;
    for (int64_t k = 0; k < count; k++) {
      small->logits[row * count + k] = p->logits[row * p->classes + left[k]];
      if (p->labels[row] == left[k]) small->labels[row] = k;
    }
  }
  memcpy(small->place, p->place, sizeof small->place);
  small->want = p->want;
  small->normalizer = p->normalizer;
  small->call = p->call;
  small->user = p->user;
  return small;
}

static void expect_same_gradients(const problem *p, const outcome *all, const outcome *part, const int64_t *left,
                                  int64_t count) {
  for (int64_t row = 0; row < p->rows; row++) {
    int64_t k = 0;
    for (int64_t c = 0; c < p->classes; c++) {
      const double got = all->gradient[row * p->classes + c];
      const double want = k < count && left[k] == c ? part->gradient[row * count + k++] : 0;
      cr_assert(memcmp(&got, &want, sizeof got) == 0, "%s: row %lld class %lld: %.9g, not %.9g", problem_text(p),
                (long long)row, (long long)c, got, want);
    }
  }
}

/* Frees the problem. */
static void check_compacted(problem *p, const test_device *device) {
  int64_t count;
  int64_t *left = classes_left(p, &count);
  problem *small = compacted(p, left, count);
  outcome *all = problem_run(p, device), *part = problem_run(small, device);
  cr_assert_eq(all->status, TARE_STATUS_OK, "%s", all->text);
  cr_assert_eq(part->status, TARE_STATUS_OK, "%s", part->text);
  CHECK_NEAR(problem_text(p), all->loss, part->loss, ((tolerance){1e-12, 2e-6}));
  expect_same_gradients(p, all, part, left, count);
  outcome_free(all);
  outcome_free(part);
  problem_free(small);
  problem_free(p);
  free(left);
}

static problem *federated(int32_t kind, int32_t dtype, int64_t classes, int32_t level_count,
                          const level_shape *levels) {
  problem *p = problem_new_levels(kind, dtype, 2, classes, level_count, levels);
  random_source source = random_from((uint64_t)classes + 5);
  p->class_mask = calloc((size_t)(2 * classes), 1);
  p->mask_place.is_one = true;
  for (int64_t row = 0; row < p->rows; row++)
    if (p->labels[row] >= 0 && row % 3) p->class_mask[p->labels[row]] = 1; /* some labels are masked, too */
  for (int64_t c = 0; c < classes; c++)
    if (random_below(&source, 4) == 0) p->class_mask[c] = 1;
  p->class_mask[classes / 2] = 1;
  p->want = WANT_LOSS | WANT_GRADIENT;
  p->normalizer = is_ghm(kind) ? TARE_NORMALIZER_SUM : TARE_NORMALIZER_ELEMENTS;
  return p;
}

static const level_shape maps[] = {{8, 8, 1}, {3, 5, 2}};
static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};

Test(class_mask_compact, losses) {
  FOR_EACH_DEVICE(device) {
    int turn = 0;
    FOR_EACH_MASKED_LOSS(kind) {
      for (int d = 0; d < 4; d++, turn++) {
        if (!device_computes(device, kind, dtypes[d])) continue;
        problem *p = federated(kind, dtypes[d], turn % 3 ? 31 : 80, 2, maps);
        p->place[ARRAY_LOGITS].channels_first = p->place[ARRAY_GRADIENT].channels_first = turn / 2 % 2;
        check_compacted(p, device);
      }
    }
  }
}

/* LVIS: 1,203 classes, of which a federated loss takes 50 beside those of the batch. */
Test(class_mask_compact, many_classes) {
  static const level_shape rows = {1, 24, 1};
  FOR_EACH_DEVICE(device) {
    problem *p = federated(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 1203, 1, &rows);
    check_compacted(p, device);
    p = federated(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, 1203, 1, &rows);
    check_compacted(p, device);
  }
}

/* A mask of ones is no mask. */
Test(class_mask_compact, ones_change_nothing) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_MASKED_LOSS(kind) {
      problem *p = federated(kind, TARE_DTYPE_F32, 20, 2, maps);
      memset(p->class_mask, 255, 40);
      check_compacted(p, device);
    }
  }
}

/* ---- Selections and the histogram -------------------------------------------------------------------------------- */

typedef struct request {
  const test_device *device;
  int32_t selection;
  buffer *counts; /* of the histogram, or NULL */
} request;

static tare_status evaluate_with(tare_context *context, const tare_loss_spec *loss, const tare_batch *given,
                                 const tare_output *without, void *user) {
  const request *r = user;
  tare_batch batch = *given;
  tare_output output = *without;
  uint64_t bytes = 0;
  batch.selection = r->selection;
  batch.selection_ratio = 1;
  batch.selection_minimum = 3;
  batch.selection_fraction = r->selection == TARE_SELECTION_HARD_ROWS ? 0.3 : 0;
  output.norm_bins = r->counts ? 16 : 0;
  output.norm_histogram = buffer_memory(r->counts);
  tare_status status = tare_workspace_size(context, loss, &batch, &output, &bytes);
  void *const workspace = status == TARE_STATUS_OK && bytes ? r->device->allocate(bytes) : NULL;
  if (workspace) tare_context_set_workspace(context, workspace, bytes);
  if (!status) status = tare_evaluate(context, loss, &batch, &output, NULL);
  tare_context_synchronize(context, NULL);
  if (workspace) tare_context_set_workspace(context, NULL, 0);
  if (workspace) r->device->release(workspace);
  return status;
}

/* A label that is masked keeps its row a positive, which the smaller batch cannot say. */
static void unmask_labels(problem *p) {
  for (int64_t row = 0; row < p->rows; row++)
    if (p->labels[row] >= 0) p->labels[row] = p->class_mask[p->labels[row]] ? p->labels[row] : -1;
}

Test(class_mask_compact, selections) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_MASKED_LOSS(kind) {
      if (is_ghm(kind)) continue;
      for (int32_t selection = TARE_SELECTION_HARD_NEGATIVES; selection <= TARE_SELECTION_HARD_ROWS; selection++) {
        problem *p = federated(kind, TARE_DTYPE_F32, 20, 2, maps);
        request r = {.device = device, .selection = selection};
        unmask_labels(p);
        p->call = evaluate_with;
        p->user = &r;
        check_compacted(p, device);
      }
    }
  }
}

static void download(buffer *b, int64_t *to) {
  buffer_download(b, "norm_histogram");
  memcpy(to, b->now, 16 * sizeof *to);
}

Test(class_mask_compact, norm_histogram) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_MASKED_LOSS(kind) {
      if (is_ghm(kind)) continue;
      int64_t counts[2][16], count;
      problem *p = federated(kind, TARE_DTYPE_F32, 20, 2, maps);
      request r = {.device = device, .counts = buffer_new(device, 16 * sizeof(int64_t), 8)};
      int64_t *left = classes_left(p, &count);
      p->call = evaluate_with;
      p->user = &r;
      problem *small = compacted(p, left, count);
      outcome_free(problem_run(p, device));
      download(r.counts, counts[0]);
      outcome_free(problem_run(small, device));
      download(r.counts, counts[1]);
      for (int k = 0; k < 16; k++) cr_assert_eq(counts[0][k], counts[1][k], "%s: bin %d", problem_text(p), k);
      buffer_free(r.counts);
      problem_free(p);
      problem_free(small);
      free(left);
    }
  }
}

/* ---- The fused head ---------------------------------------------------------------------------------------------- */

Test(class_mask_compact, fused_head) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    FOR_EACH_MASKED_LOSS(kind) {
      problem *p = head_problem(kind, TARE_DTYPE_F32, 40, 9, 8);
      problem_draw_class_mask(p, 0.5);
      if (!is_ghm(kind)) p->normalizer = TARE_NORMALIZER_ELEMENTS;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* ---- Refusals ---------------------------------------------------------------------------------------------------- */

Test(class_mask_compact, other_losses) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      if (describe_loss(kind).family == TARE_LOSS_FAMILY_SIGMOID) continue;
      problem *p = problem_new(kind, TARE_DTYPE_F32, 6, 3);
      problem_draw_class_mask(p, 0.5);
      CHECK_REFUSED(p, device, TARE_STATUS_UNSUPPORTED, "batch->class_mask");
    }
  }
}

static tare_status evaluate_with_strides(tare_context *context, const tare_loss_spec *loss, const tare_batch *given,
                                         const tare_output *output, void *user) {
  const int64_t *strides = user;
  tare_batch batch = *given;
  batch.class_mask_image_stride = strides[0];
  batch.class_mask_class_stride = strides[1];
  if (strides[2]) batch.class_mask = given->levels[0].gradient;
  return tare_evaluate(context, loss, &batch, output, NULL);
}

Test(class_mask_compact, strides_and_overlaps) {
  static int64_t given[][3] = {{INT64_MAX, 1, 0}, {INT64_MIN, 1, 0}, {20, INT64_MAX / 2, 0}, {20, 1, 1}, {0, 1, 1}};
  static const char *const words[] = {"class_mask_image_stride", "class_mask_image_stride", "class_mask_class_stride",
                                      "overlaps batch->class_mask", "overlaps batch->class_mask"};
  FOR_EACH_DEVICE(device) {
    for (int i = 0; i < 5; i++) {
      problem *p = federated(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 20, 2, maps);
      p->call = evaluate_with_strides;
      p->user = given[i];
      CHECK_REFUSED(p, device, TARE_STATUS_INVALID_ARGUMENT, words[i]);
    }
  }
}

/* The rows of a fused head have one stride in a mask as well: none, or from row to row. */
static tare_status evaluate_images(tare_context *context, const tare_loss_spec *loss, const tare_batch *given,
                                   const tare_linear *linear, const tare_output *output, void *user) {
  const int64_t *images = user;
  tare_batch batch = *given;
  tare_level level;
  memcpy(&level, given->levels, sizeof level);
  level.width /= images[0];
  batch.levels = &level;
  batch.images = images[0];
  level.labels_strides.image = level.width;
  level.row_loss_strides.image = level.width;
  batch.class_mask_image_stride = images[1];
  return tare_linear_evaluate(context, loss, &batch, linear, output, NULL);
}

Test(class_mask_compact, images_of_a_fused_head) {
  static int64_t images[] = {4, 1}, rows[] = {8, 0};
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    for (int manner = 0; manner < 2; manner++) {
      problem *p = head_problem(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 8, 5, 4);
      problem_draw_class_mask(p, 0.5);
      p->want = WANT_LOSS | WANT_COUNTS;
      p->head->call = evaluate_images;
      p->head->user = manner ? rows : images;
      if (manner == 0) {
        CHECK_REFUSED(p, device, TARE_STATUS_UNSUPPORTED, "class mask");
        continue;
      }
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}
