/* SPDX-License-Identifier: Apache-2.0 */
/* Rows with a target between two bins: what their scores say. */
#ifndef TARE_CUDA_TWO_HOT_CUH
#define TARE_CUDA_TWO_HOT_CUH

#include "row_roles.cuh"

namespace tare {

/** The left bin, the shares of it and of the next one, and what they are shares of. */
struct two_hot {
  int32_t bin;
  float left, right, total;
  bool is_valid;
};

/** y is clamped, so that the right bin exists where it has a share. */
__device__ __forceinline__ two_hot split_target(const call &c, float y) {
  const float target = fminf(fmaxf(y, 0.0f), c.last_target);
  const int32_t top = int32_t(c.classes) - 1, bin = int32_t(target);
  const bool is_valid = y >= c.score_least && y <= c.score_most;
  if (bin >= top) return {top, 1.0f, 0.0f, 1.0f, is_valid};
  return {bin, float(bin + 1) - target, target - float(bin), 1.0f, is_valid};
}

__device__ __forceinline__ two_hot split_weights(const call &c, int32_t label, float left, float right) {
  const float total = left + right;
  const bool fits = right == 0.0f || label + 1 < int32_t(c.classes);
  const bool is_valid =
      left >= c.score_least && left <= c.score_most && right >= c.score_least && right <= c.score_most && fits;
  if (!is_valid || total == 0.0f) return {label, 1.0f, 0.0f, total, is_valid};
  return {label, left / total, right / total, total, true};
}

/** Of a row with a class. */
__device__ __forceinline__ two_hot bins_of(const call &c, const level &l, const tile &t, int32_t label, int32_t row) {
  const void *const scores = l.view.array[TARE_ARRAY_SCORES].data;
  const float first = read_as<float>(scores, c.score_dtype, place(l, t, TARE_ARRAY_SCORES, row, 0));
  if (c.bin_numbers == 1) return split_target(c, first);
  return split_weights(c, label, first, read_as<float>(scores, c.score_dtype, place(l, t, TARE_ARRAY_SCORES, row, 1)));
}

/** Whether a row's scores are some that no formula takes. */
__device__ __forceinline__ bool has_invalid_bins(const call &c, const level &l, const tile &t, row_role r,
                                                 int32_t row) {
  return r.cls >= 0 && !bins_of(c, l, t, r.cls, row).is_valid;
}

}  // namespace tare

#endif
