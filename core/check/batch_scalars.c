/* SPDX-License-Identifier: Apache-2.0 */
#include "batch.h"
#include "core/structs.h"

static tare_status check_enum(const char *name, int32_t value, int32_t last, const char *allowed, tare_error *error) {
  if (value >= 0 && value <= last) return TARE_STATUS_OK;
  return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "batch->%s is %d; it must be %s", name, value, allowed);
}

/** The amount of OHEM. Without it neither field is read, but each is in range. */
static tare_status check_hard_rows(const tare_batch *batch, tare_error *error) {
  if (batch->selection_count < 0)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "batch->selection_count is %lld; it must be >= 0",
                     (long long)batch->selection_count);
  if (!(batch->selection_fraction >= 0.0 && batch->selection_fraction <= 1.0))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "batch->selection_fraction is %g; it must be in [0,1]",
                     batch->selection_fraction);
  if (batch->selection == TARE_SELECTION_HARD_ROWS && (batch->selection_count > 0) == (batch->selection_fraction > 0.0))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "batch->selection_count is %lld and selection_fraction %g with TARE_SELECTION_HARD_ROWS; give one "
                     "of them, above 0",
                     (long long)batch->selection_count, batch->selection_fraction);
  return TARE_STATUS_OK;
}

static tare_status check_selection(const tare_batch *batch, tare_error *error) {
  const tare_status status = check_enum("selection", batch->selection, TARE_SELECTION_HARD_ROWS,
                                        "TARE_SELECTION_ALL (0), TARE_SELECTION_HARD_NEGATIVES (1) or "
                                        "TARE_SELECTION_HARD_ROWS (2)",
                                        error);
  if (status) return status;
  if (!(batch->selection_ratio >= 0.0 && batch->selection_ratio <= 1e9))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "batch->selection_ratio is %g; it must be in [0,1e9]",
                     batch->selection_ratio);
  if (batch->selection_minimum < 0)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "batch->selection_minimum is %lld; it must be >= 0",
                     (long long)batch->selection_minimum);
  return check_hard_rows(batch, error);
}

static tare_status check_level_array(const tare_batch *batch, tare_error *error) {
  if (batch->level_count < 1 || batch->level_count > TARE_MAX_LEVELS)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "batch->level_count is %d; it must be in 1..%d",
                     batch->level_count, TARE_MAX_LEVELS);
  if (!batch->levels) return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "batch->levels is NULL");
  if (batch->level_stride < tare_level_layout.minimum || batch->level_stride > 65536 || batch->level_stride % 8 ||
      !tare_ends_on_field(&tare_level_layout, batch->level_stride))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "batch->level_stride is %llu; it must be sizeof(tare_level), %llu in this version, or end after "
                     "an array and its strides: call tare_batch_init first",
                     (unsigned long long)batch->level_stride, (unsigned long long)sizeof(tare_level));
  return TARE_STATUS_OK;
}

static tare_status check_vectors(const tare_batch *batch, tare_error *error) {
  const struct {
    const char *name;
    const float *data;
  } vectors[] = {{"class_weights", batch->class_weights},
                 {"positive_weights", batch->positive_weights},
                 {"negative_weights", batch->negative_weights},
                 {"background_negative_weights", batch->background_negative_weights}};
  for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
    if ((uintptr_t)vectors[i].data % 4)
      return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "batch->%s is %p; it must be aligned to 4 bytes",
                       vectors[i].name, (const void *)vectors[i].data);
  return TARE_STATUS_OK;
}

/** A mask reaches from its first byte to its last. */
static tare_status check_class_mask(const tare_batch *batch, tare_error *error) {
  const int64_t strides[] = {batch->class_mask_image_stride, batch->class_mask_class_stride};
  const int64_t lengths[] = {batch->images, batch->classes}, most = (int64_t)1 << 57;
  for (int i = 0; i < 2; i++) {
    int64_t reach;
    if (!batch->class_mask || lengths[i] <= 1) continue;
    if (__builtin_mul_overflow(strides[i], lengths[i] - 1, &reach) || reach > most || reach < -most)
      return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                       "batch->class_mask_%s_stride is %lld with %lld %s; the mask must reach no further than 2^57 "
                       "bytes",
                       i ? "class" : "image", (long long)strides[i], (long long)lengths[i], i ? "classes" : "images");
  }
  return TARE_STATUS_OK;
}

tare_status tare_check_batch_scalars(const tare_batch *batch, tare_error *error) {
  const char *const dtypes = "TARE_DTYPE_F32 (0), TARE_DTYPE_F16 (1), TARE_DTYPE_BF16 (2) or TARE_DTYPE_F64 (3)";
  tare_status status = check_level_array(batch, error);
  if (!status) status = check_enum("dtype", batch->dtype, TARE_DTYPE_F64, dtypes, error);
  if (!status)
    status = check_enum("label_dtype", batch->label_dtype, TARE_LABEL_DTYPE_I64,
                        "TARE_LABEL_DTYPE_I32 (0) or TARE_LABEL_DTYPE_I64 (1)", error);
  if (!status) status = check_enum("target_dtype", batch->target_dtype, TARE_DTYPE_F64, dtypes, error);
  if (!status) status = check_enum("score_dtype", batch->score_dtype, TARE_DTYPE_F64, dtypes, error);
  if (status) return status;
  status = check_selection(batch, error);
  if (status) return status;
  if (batch->images < 0)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "batch->images is %lld; it must be >= 0",
                     (long long)batch->images);
  if (batch->classes < 1 || batch->classes > INT32_MAX)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "batch->classes is %lld; it must be in 1..2147483647",
                     (long long)batch->classes);
  if (batch->ignore_label == batch->background_label)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "batch->ignore_label is %lld; it must differ from background_label, "
                     "which has the same value",
                     (long long)batch->ignore_label);
  if (!(batch->background_weight >= 0.0 && batch->background_weight <= 1e30))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "batch->background_weight is %g; it must be in [0,1e30]",
                     batch->background_weight);
  const tare_status status_of_vectors = check_vectors(batch, error);
  return status_of_vectors ? status_of_vectors : check_class_mask(batch, error);
}
