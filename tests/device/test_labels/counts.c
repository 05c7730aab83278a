/* SPDX-License-Identifier: Apache-2.0 */
/* tare_label_counts. */
#include "labels.h"

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
  oracle_problem_init(&question, &ORACLE_SIGMOID_CE, p->rows, p->classes);
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
