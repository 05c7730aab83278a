/* SPDX-License-Identifier: Apache-2.0 */
/* The sigmoid family with a warp for each row: any strides, and row losses. */
#ifndef TARE_CUDA_SIGMOID_ROWS_CUH
#define TARE_CUDA_SIGMOID_ROWS_CUH

#include "sigmoid_negatives.cuh"

namespace tare {
namespace sigmoid {

/** Over a warp, in float where that is enough. */
__device__ __forceinline__ double sum_over_warp(const loss_sum &mine) {
  if (__any_sync(full_mask, mine.large != 0.0f)) return warp_sum(mine.all());
  return double(warp_sum(mine.small));
}

template <typename T, typename Loss>
__device__ __forceinline__ double row_of_warp(const call_of<Loss> &c, const level &l, const tile &t,
                                              const setting_of<Loss> &s, int32_t row, bool soft) {
  const tare_array &logits = l.view.array[TARE_ARRAY_LOGITS], &gradient = l.view.array[TARE_ARRAY_GRADIENT],
                   &row_loss = l.view.array[TARE_ARRAY_ROW_LOSS];
  const row_role r = Loss::scored && !soft ? look_at_scored_row<Loss>(c, l, t, row, lane() == 0)
                                           : look_at_row_of_warp(c, l, t, row, soft, true);
  if (lane() == 0) report_if_invalid(c, l, t, row);
  const bool lean = !soft && l.allows_lean_way == lean_plain && is_lean<Loss>(s, r.weight);
  const T *from = static_cast<const T *>(logits.data) + place(l, t, TARE_ARRAY_LOGITS, row, lane());
  T *to = gradient.data ? static_cast<T *>(gradient.data) + place(l, t, TARE_ARRAY_GRADIENT, row, lane()) : nullptr;
  const int64_t from_step = logits.cls * warp_size, to_step = to ? gradient.cls * warp_size : 0;
  loss_sum mine;
  for (int64_t cls = lane(); cls < c.classes; cls += warp_size, from += from_step, to += to_step) {
    exact::pair value = {0.0f, 0.0f};
    if (!is_masked(l, t, row, cls)) {
      const float x = to_float(*from);
      value =
          lean && cls != r.cls ? negative_of_row<T, Loss>(s, r, x) : element<T, Loss>(c, l, t, s, r, row, cls, x, soft);
    }
    mine.add(value.loss);
    if (to) *to = from_float<T>(value.derivative);
    store_element_loss(l, t, row, cls, value.loss);
  }
  const double sum = sum_over_warp(mine);
  if (lane() == 0 && row_loss.data)
    static_cast<float *>(row_loss.data)[place(l, t, TARE_ARRAY_ROW_LOSS, row, 0)] = float(sum);
  return lane() == 0 ? sum : 0.0;
}

/** Evaluates all tiles, by labels or by dense targets (`soft`). */
template <typename T, typename Loss>
__device__ __forceinline__ void rows_pass(const call_of<Loss> &c, const setting_of<Loss> &s, bool soft) {
  for_each_tile<Loss::backwards>(c, c.tile_count, &level::tiles, [&](const level &l, const tile &t) {
    double sum = 0.0;
    for (int32_t row = int32_t(thread_rank() / warp_size); row < t.rows; row += block_threads / warp_size)
      sum += row_of_warp<T, Loss>(c, l, t, s, row, soft);
    return sum;
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
