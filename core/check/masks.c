/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of masks and their outputs. */
#include "masks.h"

#include <math.h>
#include <stdlib.h>

#include "overlap.h"

tare_status tare_check_mask_shape(const tare_masks *masks, tare_error *error) {
  if (masks->masks < 0 || masks->masks > INT32_MAX)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "masks->masks is %lld; it must be in [0,%d]",
                     (long long)masks->masks, INT32_MAX);
  if (masks->pixels < 0 || masks->pixels >= (int64_t)1 << 40)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "masks->pixels is %lld; it must be in [0,2^40)",
                     (long long)masks->pixels);
  return TARE_STATUS_OK;
}

/** An array of masks. `stride` and `element` are in bytes; a stride of INT64_MIN is one that has overflowed. */
typedef struct mask_array {
  const char *name;
  const void *data;
  int64_t element, pixels, stride;
  int32_t is_output; /* 2: one scalar */
} mask_array;

enum { ARRAYS = 10 };

static int64_t bytes_of_stride(int64_t stride, int64_t element) {
  const int64_t most = (int64_t)1 << 58;
  return stride > most || stride < -most ? INT64_MIN : stride * element;
}

static void list_arrays(const tare_masks *m, const tare_mask_output *o, mask_array *list) {
  const int64_t logit = tare_dtype_bytes(m->dtype), target = tare_mask_target_bytes(m->target_dtype);
  const int64_t loss = tare_dtype_bytes(o->loss_dtype), mask_loss = m->dtype == TARE_DTYPE_F64 ? 8 : 4;
  const mask_array arrays[ARRAYS] = {
      {"masks->logits", m->logits, logit, m->pixels, bytes_of_stride(m->logits_stride, logit), 0},
      {"output->gradient", o->gradient, logit, m->pixels, bytes_of_stride(o->gradient_stride, logit), 1},
      {"masks->targets", m->targets, target, m->pixels, bytes_of_stride(m->targets_stride, target), 0},
      {"masks->valid", m->valid, 1, m->pixels, bytes_of_stride(m->valid_stride, 1), 0},
      {"masks->mask_weights", m->mask_weights, 4, 1, 4, 0},
      {"output->loss", o->loss, loss, 1, 0, 2},
      {"output->overlap_loss", o->overlap_loss, loss, 1, 0, 2},
      {"output->focal_loss", o->focal_loss, loss, 1, 0, 2},
      {"output->mask_loss", o->mask_loss, mask_loss, 1, mask_loss, 1},
      {"output->sums", o->sums, 8, sizeof *o->sums / 8, sizeof *o->sums, 1}};
  for (int i = 0; i < ARRAYS; i++) list[i] = arrays[i];
}

static tare_status check_array(const tare_masks *masks, const mask_array *array, tare_error *error) {
  const int64_t needed = array->pixels * array->element;
  if ((uintptr_t)array->data % (uintptr_t)array->element)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "%s is %p; it must be aligned to %d bytes", array->name,
                     array->data, (int)array->element);
  if (array->stride == INT64_MIN || (masks->masks > 1 && llabs(array->stride) > ((int64_t)1 << 58) / masks->masks))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "%s_stride is too large: the array must span at most 2^58 bytes in each direction", array->name);
  if (array->is_output == 1 && array->pixels > 0 && masks->masks > 1 && llabs(array->stride) < needed)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "%s_stride is %lld; it must be at least masks->pixels, %lld, so that masks do not overlap",
                     array->name, (long long)(array->stride / array->element), (long long)array->pixels);
  return TARE_STATUS_OK;
}

static tare_footprint footprint_of(const tare_masks *masks, const mask_array *array) {
  const int has_masks = array->stride != 0 && masks->masks > 1;
  return (tare_footprint){(intptr_t)array->data,
                          array->element,
                          {array->pixels > 1 ? array->pixels : 1, has_masks ? masks->masks : 1, 1, 1, 1},
                          {array->element, array->stride, 0, 0, 0}};
}

static tare_status check_overlaps(const tare_masks *masks, const mask_array *list, tare_error *error) {
  for (int i = 0; i < ARRAYS; i++)
    for (int j = 0; j < ARRAYS; j++) {
      const mask_array *a = &list[i], *b = &list[j];
      if (i == j || !a->data || !b->data || !a->is_output || (b->is_output && j < i)) continue;
      if (i == 1 && j == 0 && a->data == b->data && (a->stride == b->stride || masks->masks < 2)) continue;
      if (!a->pixels || !b->pixels) continue;
      const tare_footprint left = footprint_of(masks, a), right = footprint_of(masks, b);
      if (tare_footprints_overlap(&left, &right))
        return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "%s (%p) overlaps %s (%p); give it memory of its own%s",
                         a->name, a->data, b->name, b->data,
                         i == 1 && j == 0 ? ", or the logits' own pointer and stride" : "");
    }
  return TARE_STATUS_OK;
}

static tare_status check_types(const tare_masks *m, const tare_mask_output *o, tare_error *error) {
  if (m->dtype < TARE_DTYPE_F32 || m->dtype > TARE_DTYPE_F64)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "masks->dtype is %d; it must be TARE_DTYPE_F32 (0) to TARE_DTYPE_F64 (3)", m->dtype);
  if (m->target_dtype < TARE_MASK_TARGET_F32 || m->target_dtype > TARE_MASK_TARGET_U8)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "masks->target_dtype is %d; it must be TARE_MASK_TARGET_F32 (0) to TARE_MASK_TARGET_U8 (4)",
                     m->target_dtype);
  if (m->ignore_target != -1 && (m->ignore_target < 2 || m->ignore_target > 255))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "masks->ignore_target is %d; it must be in [2,255], or -1 for none", m->ignore_target);
  if (m->ignore_target != -1 && m->target_dtype != TARE_MASK_TARGET_U8)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "masks->ignore_target is %d with masks->target_dtype %d; only targets of u8 have it: use "
                     "masks->valid",
                     m->ignore_target, m->target_dtype);
  if (o->loss_dtype != TARE_DTYPE_F32 && o->loss_dtype != TARE_DTYPE_F64)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "output->loss_dtype is %d; it must be TARE_DTYPE_F32 (0) or TARE_DTYPE_F64 (3)", o->loss_dtype);
  if (m->reserved)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "masks->reserved is %d; it must be 0", m->reserved);
  return TARE_STATUS_OK;
}

static tare_status check_divisor(const tare_mask_output *o, tare_error *error) {
  if (o->normalizer < TARE_NORMALIZER_SUM || o->normalizer > TARE_NORMALIZER_ONES)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "output->normalizer is %d; it must be TARE_NORMALIZER_SUM (0), TARE_NORMALIZER_ROWS (2) or "
                     "TARE_NORMALIZER_VALUE (5)",
                     o->normalizer);
  if (o->normalizer != TARE_NORMALIZER_SUM && o->normalizer != TARE_NORMALIZER_ROWS &&
      o->normalizer != TARE_NORMALIZER_VALUE)
    return tare_fail(
        error, TARE_STATUS_UNSUPPORTED,
        "output->normalizer is %d; for masks it must be TARE_NORMALIZER_SUM (0), TARE_NORMALIZER_ROWS (2) or "
        "TARE_NORMALIZER_VALUE (5)",
        o->normalizer);
  if (!isfinite(o->normalizer_value) || o->normalizer_value == 0 || !isfinite(1 / o->normalizer_value))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "output->normalizer_value is %g; it must be finite and not 0, and so must its reciprocal",
                     o->normalizer_value);
  if (!isfinite((float)o->gradient_scale))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "output->gradient_scale is %g; it must be finite in f32",
                     o->gradient_scale);
  if ((uintptr_t)o->normalizer_pointer % 4 || (uintptr_t)o->gradient_scale_pointer % 4)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "output->normalizer_pointer is %p and gradient_scale_pointer %p; they must be aligned to 4 bytes",
                     (const void *)o->normalizer_pointer, (const void *)o->gradient_scale_pointer);
  return TARE_STATUS_OK;
}

tare_status tare_check_masks(const tare_masks *masks, const tare_mask_output *output, tare_error *error) {
  mask_array list[ARRAYS];
  tare_status status = check_types(masks, output, error);
  if (!status) status = check_divisor(output, error);
  if (status) return status;
  if (masks->masks && masks->pixels && (!masks->logits || !masks->targets))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "masks->%s is NULL", masks->logits ? "targets" : "logits");
  list_arrays(masks, output, list);
  for (int i = 0; i < ARRAYS && !status; i++)
    if (list[i].data) status = check_array(masks, &list[i], error);
  return status || !masks->masks ? status : check_overlaps(masks, list, error);
}
