/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sigmoid CE and focal loss whose classes have weights of negatives or exponents of their own. One kernel for each type
 * of logits takes any strides, labels, scores and dense targets: a thread or a warp a row, whichever reads neighbours.
 */
#ifndef TARE_CUDA_SIGMOID_COLUMNS_CUH
#define TARE_CUDA_SIGMOID_COLUMNS_CUH

#include "sigmoid_rows.cuh"

namespace tare {
namespace sigmoid {

/** What the helpers for rows ask of a loss. */
struct column_pass {
  static constexpr bool scored = true;
};

/** Numbers of a class. CE is focal loss with an exponent of 0. */
struct column {
  exact::formula_parameters parameters;
  int power;
  float alpha_of_0, alpha_of_1, weight_of_0, weight_of_1;
};

__device__ __forceinline__ column make_column(const call &c, const setting &s, row_role r, int64_t cls) {
  column k = {s.parameters, s.power, s.at_0, s.at_1, 1.0f, 1.0f};
  if (c.gamma_per_class) {
    k.parameters.gamma_hi = __ldg(c.gamma_per_class + cls), k.parameters.gamma_lo = 0.0f;
    k.power = TARE_POWER_GENERAL;
  }
  if (c.alpha_per_class) k.alpha_of_1 = __ldg(c.alpha_per_class + cls), k.alpha_of_0 = 1.0f - k.alpha_of_1;
  const float *const of_0 = r.cls == row_background ? c.background_negative_weights : c.negative_weights;
  if (of_0) k.weight_of_0 = __ldg(of_0 + cls);
  if (c.positive_weights) k.weight_of_1 = __ldg(c.positive_weights + cls);
  return k;
}

/** Loss and derivative by x, without weights. */
__device__ __forceinline__ exact::pair column_value(const column &k, float x, float target) {
  if (target != 0.0f && target != 1.0f) return exact::sigmoid_focal_soft(x, target, 1.0f, 1.0f, &k.parameters, k.power);
  const bool hit = target == 1.0f;
  const exact::pair value = exact::sigmoid_focal(hit ? x : -x, 1.0f, 1.0f, &k.parameters, k.power);
  return {value.loss, hit ? -value.derivative : value.derivative};
}

/** Its value where the terms of targets 1 and 0 have weights of their own, with these. The target of a label (`hit`) or
 *  of a negative may be smoothed. */
__device__ __forceinline__ exact::pair value_of_terms(const call &c, const column &k, float x, float target, bool hit) {
  const bool smoothed = c.shape != TARE_SHAPE_NONE;
  const float one = !smoothed ? target : hit ? c.unsmoothed : c.smoothed;
  const float rest = !smoothed ? 1.0f - target : hit ? c.smoothed : c.unsmoothed;
  const float of_1 = k.weight_of_1 * one, of_0 = k.weight_of_0 * rest;
  return of_1 == 0.0f && of_0 == 0.0f ? exact::pair{0.0f, 0.0f} : exact::ce_of_terms(x, of_1, of_0);
}

/** An element. Many parameters: as element(). */
template <typename T>
__device__ __forceinline__ exact::pair column_element(const call &c, const level &l, const tile &t, const setting &s,
                                                      row_role r, int32_t row, int64_t cls, float x) {
  const float *const weights = static_cast<const float *>(l.view.array[TARE_ARRAY_ELEMENT_WEIGHTS].data);
  const bool hit = !c.soft && cls == r.cls;
  const float target = c.soft ? target_at(c, l, t, row, cls) : hit ? clamped_score(c, l, t, row) : 0.0f;
  const float of_kind = hit ? 1.0f : target; /* a label has its weights whatever its score is */
  const column k = make_column(c, s, r, cls);
  float weight = r.weight;
  if (weights) weight *= __ldg(weights + place(l, t, TARE_ARRAY_ELEMENT_WEIGHTS, row, cls));
  if (is_masked(l, t, row, cls)) return {0.0f, 0.0f};
  if (!c.weighs_terms) weight *= weight_between(of_kind, k.weight_of_0, k.weight_of_1);
  weight *= weight_between(of_kind, k.alpha_of_0, k.alpha_of_1);
  const exact::pair value = c.weighs_terms ? value_of_terms(c, k, x, target, hit) : column_value(k, x, target);
  return weighted<T>(c, s, value.loss, value.derivative, weight);
}

constexpr int32_t added_in_float = 32;

/** This thread's loss of a row: `lanes` threads take a class each, from `first` on. Many parameters: as element(). */
template <typename T>
__device__ __forceinline__ double column_row(const call &c, const level &l, const tile &t, const setting &s, row_role r,
                                             int32_t row, int32_t first, int32_t lanes) {
  const tare_array &gradient = l.view.array[TARE_ARRAY_GRADIENT];
  const T *const logits = static_cast<const T *>(l.view.array[TARE_ARRAY_LOGITS].data);
  loss_sum mine;
  double sum = 0.0;
  for (int64_t cls = first, added = 0; cls < c.classes; cls += lanes) {
    const float x = to_float(logits[place(l, t, TARE_ARRAY_LOGITS, row, cls)]);
    const exact::pair value = column_element<T>(c, l, t, s, r, row, cls, x);
    mine.add(value.loss);
    if (gradient.data)
      static_cast<T *>(gradient.data)[place(l, t, TARE_ARRAY_GRADIENT, row, cls)] = from_float<T>(value.derivative);
    store_element_loss(l, t, row, cls, value.loss);
    if (++added % added_in_float) continue;
    sum += mine.all();
    mine = loss_sum();
  }
  return sum + mine.all();
}

__device__ __forceinline__ void store_row_loss(const level &l, const tile &t, int32_t row, double sum) {
  const tare_array &row_loss = l.view.array[TARE_ARRAY_ROW_LOSS];
  if (row_loss.data) static_cast<float *>(row_loss.data)[place(l, t, TARE_ARRAY_ROW_LOSS, row, 0)] = float(sum);
}

template <typename T>
__device__ __forceinline__ double column_rows_of_threads(const call &c, const level &l, const tile &t,
                                                         const setting &s) {
  double sum = 0.0;
  for (int32_t row = int32_t(thread_rank()); row < t.rows; row += block_threads) {
    const row_role r = look_at_scored_row<column_pass>(c, l, t, row, true);
    report_if_invalid(c, l, t, row);
    const double of_row = column_row<T>(c, l, t, s, r, row, 0, 1);
    store_row_loss(l, t, row, of_row);
    sum += of_row;
  }
  return sum;
}

template <typename T>
__device__ __forceinline__ double column_rows_of_warps(const call &c, const level &l, const tile &t, const setting &s) {
  double sum = 0.0;
  for (int32_t row = int32_t(thread_rank() / warp_size); row < t.rows; row += block_threads / int32_t(warp_size)) {
    const row_role r = c.soft ? look_at_row_of_warp(c, l, t, row, true, true)
                              : look_at_scored_row<column_pass>(c, l, t, row, lane() == 0);
    if (lane() == 0) report_if_invalid(c, l, t, row);
    const double of_row = warp_sum(column_row<T>(c, l, t, s, r, row, int32_t(lane()), int32_t(warp_size)));
    if (lane() != 0) continue;
    store_row_loss(l, t, row, of_row);
    sum += of_row;
  }
  return sum;
}

/** Whether rows lie nearer to each other than classes do, or are too short for a warp. Dense targets are looked at by
 *  warps. */
__device__ __forceinline__ bool goes_by_threads(const call &c, const level &l) {
  const tare_array &logits = l.view.array[TARE_ARRAY_LOGITS];
  return !c.soft && (c.classes < 8 || llabs(logits.stride[TARE_AXES - 1]) < llabs(logits.cls));
}

template <typename T>
__global__ void __launch_bounds__(block_threads, 4) sigmoid_columns(const TARE_GRID_CONSTANT call c) {
  const setting s = make_common_setting(c);
  for_each_tile(c, c.tile_count, &level::tiles, [&](const level &l, const tile &t) {
    return goes_by_threads(c, l) ? column_rows_of_threads<T>(c, l, t, s) : column_rows_of_warps<T>(c, l, t, s);
  });
  finish_loss(c);
}

}  // namespace sigmoid

}  // namespace tare

#endif
