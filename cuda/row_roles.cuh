/* SPDX-License-Identifier: Apache-2.0 */
/* The role of a row in a loss, from its label, weight, targets and score. Invalid rows are reported. */
#ifndef TARE_CUDA_ROW_ROLES_CUH
#define TARE_CUDA_ROW_ROLES_CUH

#include "places.cuh"

namespace tare {

/** A row's class where it has none. */
constexpr int32_t row_background = TARE_ROW_BACKGROUND, row_skipped = TARE_ROW_SKIPPED, row_invalid = TARE_ROW_INVALID,
                  row_ignored = TARE_ROW_IGNORED;

__device__ __forceinline__ int64_t label_at(const call &c, const level &l, const tile &t, int32_t row) {
  const tare_array &labels = l.view.array[TARE_ARRAY_LABELS];
  const int64_t at = t.offset[TARE_ARRAY_LABELS] + row * labels.stride[TARE_AXES - 1];
  return c.label_dtype == TARE_LABEL_DTYPE_I64 ? __ldg(static_cast<const long long *>(labels.data) + at)
                                               : __ldg(static_cast<const int *>(labels.data) + at);
}

/** Class, row_background, row_ignored or row_invalid; range-checked in 64 bits before it is narrowed. */
__device__ __forceinline__ int32_t classify(const call &c, int64_t label) {
  if (label == c.ignore_label) return row_ignored;
  if (label == c.background_label) return row_background;
  if (label < c.first_label) return row_invalid;
  if (c.labels_are_flags) return 0;
  const uint64_t cls = uint64_t(label) - uint64_t(c.first_label);
  return cls < uint64_t(c.classes) ? int32_t(cls) : row_invalid;
}

__device__ __forceinline__ int32_t find_class(const call &c, const level &l, const tile &t, int32_t row) {
  if (l.view.array[TARE_ARRAY_LABELS].data) return classify(c, label_at(c, l, t, row));
  return c.labels_are_flags ? 0 : row_background;
}

/** Whether a softmax loss excludes a class. */
__device__ __forceinline__ bool is_excluded(const call &c, int64_t cls) {
  return c.adjusts.of_class != nullptr && __ldg(c.adjusts.of_class + cls) == c.adjusts.excluded;
}

/** find_class() in a softmax loss, which may exclude classes. Their labels are invalid, background's too where it is a
 *  class. Beside targets no label names a class. */
__device__ __forceinline__ int32_t find_taken_class(const call &c, const level &l, const tile &t, int32_t row) {
  const int32_t found = find_class(c, l, t, row);
  if (c.adjusts.of_class == nullptr || c.soft) return found;
  const int32_t cls = found == row_background ? c.background_role : found;
  return cls >= 0 && is_excluded(c, cls) ? row_invalid : found;
}

/** The role of the row in the loss: its class, row_background or row_skipped. */
__device__ __forceinline__ int32_t role_of(const call &c, int32_t found) {
  if (found == row_ignored || found == row_invalid) return row_skipped;
  if (c.soft && c.family != TARE_LOSS_FAMILY_REGRESSION) return row_background;
  return found == row_background ? c.background_role : found;
}

__device__ __forceinline__ float row_weight_at(const level &l, const tile &t, int32_t row) {
  const tare_array &weights = l.view.array[TARE_ARRAY_ROW_WEIGHTS];
  if (!weights.data) return 1.0f;
  return __ldg(static_cast<const float *>(weights.data) + t.offset[TARE_ARRAY_ROW_WEIGHTS] +
               row * weights.stride[TARE_AXES - 1]);
}

__device__ __forceinline__ float class_weight_of(const call &c, int32_t cls) {
  if (c.soft) return 1.0f;
  if (cls < 0) return c.background_weight;
  return c.class_weights ? __ldg(c.class_weights + cls) : 1.0f;
}

/** A row of a loss: its class or row_background or row_skipped, and row weight x class weight (0 where skipped). */
struct row_role {
  int32_t cls;
  float weight;
};

__device__ __forceinline__ row_role look_at_row(const call &c, const level &l, const tile &t, int32_t row) {
  row_role r;
  r.cls = role_of(c, find_class(c, l, t, row));
  r.weight = row_weight_at(l, t, row);
  if (c.is_mask) r.weight = r.weight > 0.0f ? 1.0f : 0.0f;
  r.weight *= class_weight_of(c, r.cls);
  if (r.weight == 0.0f) r.cls = row_skipped;
  if (r.cls == row_skipped) r.weight = 0.0f;
  return r;
}

/** A row's number in row order. */
__device__ __forceinline__ int64_t row_number(const level &l, const tile &t, int32_t row) {
  return l.view.first_row + t.offset[TARE_ARRAY_ROW_INDEX] +
         row * l.view.array[TARE_ARRAY_ROW_INDEX].stride[TARE_AXES - 1];
}

/** A row whose label is none is remembered for tare_context_synchronize; called for one element of each row.
 *  `excludes`: of a loss that may exclude classes. */
template <bool excludes = false>
__device__ __forceinline__ void report_if_invalid(const call &c, const level &l, const tile &t, int32_t row) {
  if (!l.view.array[TARE_ARRAY_LABELS].data) return;
  if ((excludes ? find_taken_class(c, l, t, row) : find_class(c, l, t, row)) != row_invalid) return;
  atomic_add(&c.record->invalid_rows, uint64_t(1));
  atomic_min(&c.record->first_invalid, uint64_t(row_number(l, t, row)));
}

/** Whether a dense target is one that no formula takes, of an element that has a weight. `excludes`: of a loss that may
 *  exclude classes, which take no target but 0. */
template <bool excludes = false>
__device__ __forceinline__ bool is_invalid_target(const call &c, const level &l, const tile &t, int32_t row,
                                                  int64_t cls) {
  const float target =
      read_as<float>(l.view.array[TARE_ARRAY_TARGETS].data, c.target_dtype, place(l, t, TARE_ARRAY_TARGETS, row, cls));
  if (excludes && target != 0.0f && is_excluded(c, cls)) return true;
  if ((target >= c.target_least && target <= c.target_most) || is_masked(l, t, row, cls)) return false;
  const float *const weights = static_cast<const float *>(l.view.array[TARE_ARRAY_ELEMENT_WEIGHTS].data);
  return !weights || __ldg(weights + place(l, t, TARE_ARRAY_ELEMENT_WEIGHTS, row, cls)) != 0.0f;
}

/** Whether a row has one; by a whole warp. */
template <bool excludes = false>
__device__ __forceinline__ bool has_invalid_target(const call &c, const level &l, const tile &t, int32_t row) {
  bool any = false;
  for (int64_t cls = lane(); cls < c.classes; cls += warp_size)
    any = any || is_invalid_target<excludes>(c, l, t, row, cls);
  return __any_sync(full_mask, any);
}

/** Remembers such a row for tare_context_synchronize; called once for each. */
__device__ __forceinline__ void report_target(const call &c, const level &l, const tile &t, int32_t row) {
  atomic_add(&c.record->invalid_targets, uint64_t(1));
  atomic_min(&c.record->first_target, uint64_t(row_number(l, t, row)));
}

/** A dense target of a loss that takes none outside [0,1]; by rounding, or without a weight, it may be. */
__device__ __forceinline__ float target_at(const call &c, const level &l, const tile &t, int32_t row, int64_t cls) {
  const float target =
      read_as<float>(l.view.array[TARE_ARRAY_TARGETS].data, c.target_dtype, place(l, t, TARE_ARRAY_TARGETS, row, cls));
  return fminf(fmaxf(target, 0.0f), 1.0f); /* NaN becomes 0 */
}

/** The score of a row with a class, as it stands; 1 in a level without scores. */
__device__ __forceinline__ float score_at(const call &c, const level &l, const tile &t, int32_t row) {
  const tare_array &scores = l.view.array[TARE_ARRAY_SCORES];
  return scores.data ? read_as<float>(scores.data, c.score_dtype, place(l, t, TARE_ARRAY_SCORES, row, 0)) : 1.0f;
}

/** Whether a row's score is one that no formula takes, of a label whose element has a weight. */
__device__ __forceinline__ bool has_invalid_score(const call &c, const level &l, const tile &t, row_role r,
                                                  int32_t row) {
  if (r.cls < 0) return false;
  const float score = score_at(c, l, t, row);
  if ((score >= c.score_least && score <= c.score_most) || is_masked(l, t, row, r.cls)) return false;
  const float *const weights = static_cast<const float *>(l.view.array[TARE_ARRAY_ELEMENT_WEIGHTS].data);
  return !weights || __ldg(weights + place(l, t, TARE_ARRAY_ELEMENT_WEIGHTS, row, r.cls)) != 0.0f;
}

}  // namespace tare

#endif
