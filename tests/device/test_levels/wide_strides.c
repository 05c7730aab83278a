/* SPDX-License-Identifier: Apache-2.0 */
/* Strides beyond 2^32. */
#define _GNU_SOURCE
#include "levels.h"

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
                            .row_loss_strides = strides,
                            .loss_weight = 1};
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
  float of_classes[SPARSE_CLASSES];
  const double *given = p->offset != NULL ? p->offset : p->margins != NULL ? p->margins : p->log_counts;
  for (int c = 0; given != NULL && c < SPARSE_CLASSES; c++) of_classes[c] = (float)given[c];
  if (p->offset != NULL) loss_spec.logit_adjusted.offset = of_classes;
  if (p->log_counts != NULL) loss_spec.seesaw.log_counts = of_classes;
  if (p->margins != NULL) loss_spec.ldam.margins = of_classes;
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
  if (test_under_qemu()) cr_skip_test("qemu-user would take tens of gigabytes for these mappings");
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
