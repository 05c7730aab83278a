/* SPDX-License-Identifier: Apache-2.0 */
/* tare_scale_gradients: its arguments. */
#include "scale_gradients.h"

#include "backend.h"

static int size_of(tare_dtype dtype) {
  switch (dtype) {
    case TARE_DTYPE_F32:
      return 4;
    case TARE_DTYPE_F16:
    case TARE_DTYPE_BF16:
      return 2;
    case TARE_DTYPE_F64:
      return 8;
    default:
      return 0;
  }
}

static tare_status check_array(const void *array, int64_t elements, int size, int i, tare_error *error) {
  if (elements < 0 || elements > INT64_MAX / 16)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "counts[%d] is %lld; it must be in [0,%lld]", i,
                     (long long)elements, (long long)(INT64_MAX / 16));
  if (elements && !array) return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "gradients[%d] is NULL", i);
  if ((uintptr_t)array % (uintptr_t)size)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "gradients[%d] is %p; it must be aligned to %d bytes", i,
                     array, size);
  return TARE_STATUS_OK;
}

tare_status tare_scale_gradients(tare_context *context, tare_dtype dtype, int32_t array_count, void *const *gradients,
                                 const int64_t *counts, const float *factor, tare_stream stream) {
  if (!context) return tare_fail(tare_thread_error(), TARE_STATUS_INVALID_ARGUMENT, "context is NULL");
  tare_error *error = &context->error;
  const int size = size_of(dtype);
  if (!size)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "dtype is %d; it must be TARE_DTYPE_F32 (0) to TARE_DTYPE_F64 (3)", (int)dtype);
  if (array_count < 1 || array_count > TARE_MAX_LEVELS)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "array_count is %d; it must be in [1,%d]", (int)array_count,
                     TARE_MAX_LEVELS);
  if (!gradients || !counts || !factor)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "%s is NULL",
                     !gradients ? "gradients"
                     : !counts  ? "counts"
                                : "factor");
  if ((uintptr_t)factor % sizeof *factor)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "factor is %p; it must be aligned to 4 bytes",
                     (const void *)factor);
  tare_scaling scaling = {.dtype = (int32_t)dtype, .factor = factor};
  for (int i = 0; i < array_count; i++) {
    const tare_status status = check_array(gradients[i], counts[i], size, i, error);
    if (status) return status;
    if (!counts[i]) continue;
    scaling.array[scaling.count] = gradients[i];
    scaling.elements[scaling.count++] = counts[i];
  }
  return context->backend->scale_gradients(context->backend, &scaling, stream, error);
}
