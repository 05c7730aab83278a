/* SPDX-License-Identifier: Apache-2.0 */
/* The sigmoid family with a warp for each row: any strides, and row losses. */
#ifndef TARE_CUDA_SIGMOID_ROWS_CUH
#define TARE_CUDA_SIGMOID_ROWS_CUH

#include "sigmoid_row_losses.cuh"

namespace tare {
namespace sigmoid {

/** How rows are swept: by a warp each, or by a thread each that only looks at the row and its label. */
struct sweep {
  bool soft, labels;
};

/** A row of a sweep. Returns its loss in lane 0. In a sweep of labels, whose losses stay behind the `roles`, returns 1
 *  if the row cannot be taken together with others: for its weight, or its label's large loss. Many parameters: as
 *  element(). */
template <typename T, typename Loss>
__device__ __forceinline__ double sweep_row(const call_of<Loss> &c, const level &l, const tile &t,
                                            const setting_of<Loss> &s, int32_t row, sweep how, row_role *roles) {
  const tare_array &logits = l.view.array[TARE_ARRAY_LOGITS], &gradient = l.view.array[TARE_ARRAY_GRADIENT],
                   &row_loss = l.view.array[TARE_ARRAY_ROW_LOSS];
  const bool reports = how.labels || l.allows_lean_way != lean_together; /* once */
  const bool speaks = how.labels || (reports && lane() == 0);
  const row_role r = Loss::scored && !how.soft ? look_at_scored_row<Loss>(c, l, t, row, speaks)
                                               : look_at_row_of_warp(c, l, t, row, how.soft, reports);
  if (speaks) report_if_invalid(c, l, t, row);
  const bool lean = !how.soft && l.allows_lean_way == lean_plain && is_lean<Loss>(s, r.weight);
  int64_t cls = lane();
  if (how.labels) cls = r.cls >= 0 ? r.cls : c.classes;
  const T *from = static_cast<const T *>(logits.data) + place(l, t, TARE_ARRAY_LOGITS, row, cls);
  T *to = gradient.data ? static_cast<T *>(gradient.data) + place(l, t, TARE_ARRAY_GRADIENT, row, cls) : nullptr;
  const int64_t from_step = logits.cls * warp_size, to_step = to ? gradient.cls * warp_size : 0;
  loss_sum mine;
  for (; cls < c.classes; cls += warp_size, from += from_step, to += to_step) {
    exact::pair value = {0.0f, 0.0f};
    if (!is_masked(l, t, row, cls)) {
      const float x = to_float(*from);
      value = lean && cls != r.cls ? negative_of_row<T, Loss>(s, r, x)
                                   : element<T, Loss>(c, l, t, s, r, row, cls, x, how.soft);
    }
    mine.add(value.loss);
    if (how.labels) {
      label_of_row(roles, row) = {__float_as_int(value.loss), value.derivative};
      break;
    }
    if (to) *to = from_float<T>(value.derivative);
    store_element_loss(l, t, row, cls, value.loss);
  }
  if (how.labels) {
    roles[row] = r;
    return is_lean<Loss>(s, r.weight) && mine.large == 0.0f ? 0.0 : 1.0; /* a NaN is large */
  }
  const double sum = sum_over_warp(mine);
  if (lane() == 0 && row_loss.data)
    static_cast<float *>(row_loss.data)[place(l, t, TARE_ARRAY_ROW_LOSS, row, 0)] = float(sum);
  return lane() == 0 ? sum : 0.0;
}

template <typename T, typename Loss>
__device__ __forceinline__ double sweep_rows(const call_of<Loss> &c, const level &l, const tile &t,
                                             const setting_of<Loss> &s, sweep how, row_role *roles) {
  const int32_t first = int32_t(how.labels ? thread_rank() : thread_rank() / warp_size);
  const int32_t step = int32_t(how.labels ? block_threads : block_threads / warp_size);
  TARE_SHARED(double[block_threads / warp_size], of_warp); /* registers are short */
  double &sum = of_warp[thread_rank() / warp_size];
  bool forbidden = false;
  if (lane() == 0) sum = 0.0;
  for (int32_t row = first; row < t.rows; row += step) {
    const double of_row = sweep_row<T, Loss>(c, l, t, s, row, how, roles);
    if (how.labels)
      forbidden = forbidden || of_row != 0.0;
    else if (lane() == 0)
      sum += of_row;
  }
  return how.labels ? double(forbidden) : lane() == 0 ? sum : 0.0;
}

/** Evaluates all tiles, by labels or by dense targets (`soft`). */
template <typename T, typename Loss>
__device__ __forceinline__ void rows_pass(const call_of<Loss> &c, const setting_of<Loss> &s, bool soft) {
  for_each_tile<Loss::backwards>(c, c.tile_count, &level::tiles, [&](const level &l, const tile &t) {
    return sweep_rows<T, Loss>(c, l, t, s, {soft, false}, nullptr);
  });
}

/** The same, where rows may be taken together. That ends after a look at the rows if a weight forbids it. */
template <typename T, typename Loss>
__device__ __forceinline__ void rows_pass(const call_of<Loss> &c, const setting_of<Loss> &s, bool soft, row_role *roles,
                                          float *losses) {
  for_each_tile<Loss::backwards>(c, c.tile_count, &level::tiles, [&](const level &l, const tile &t) {
    sweep how = {soft, l.allows_lean_way == lean_together};
#pragma unroll 1
    for (;; how.labels = false) { /* once or twice, by the same code */
      const double sum = sweep_rows<T, Loss>(c, l, t, s, how, roles);
      if (!how.labels) return sum;
      if (__syncthreads_or(sum != 0.0)) continue;
      const rows_with_losses<T> rows(c, l, t, roles, losses);
      const bool large = lose_elements<T, Loss>(s, t, rows, l.magic);
      return __syncthreads_or(large) ? add_large_rows(t, rows) : add_rows(t, rows);
    }
  });
}

template <typename T, typename Loss, bool soft>
__global__ void __launch_bounds__(block_threads, 4) sigmoid_rows(const TARE_GRID_CONSTANT call_of<Loss> c) {
  const setting_of<Loss> s = Loss::make(c);
  rows_pass<T, Loss>(c, s, soft);
  finish_loss(c);
}

}  // namespace sigmoid

}  // namespace tare

#endif
