/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Softmax rows with a target between two bins, by kernels of their own. One of the bins becomes the row's label: the
 * one with the larger share, and of equal shares the one with the larger logit (cpu/two_hot.h says why). The loss is
 * that of the label, and the other's share times its distance below. The gradient is that of the label, and the other's
 * share moves from the label to the other bin. Three walks: a few lanes a row in shared memory; a warp a row, of any
 * strides and length; a lane a row where rows lie side by side.
 */
#ifndef TARE_CUDA_SOFTMAX_TWO_HOT_CUH
#define TARE_CUDA_SOFTMAX_TWO_HOT_CUH

#include "softmax_nchw.cuh"
#include "softmax_rows.cuh"
#include "softmax_staged.cuh"
#include "two_hot.cuh"

namespace tare {
namespace softmax {

/** A row whose label is chosen. `other` is below 0 where the label has all; of_other: its share. */
struct two_hot_row {
  int32_t label, other;
  float weight, of_other, label_x, distance; /* how far the other's logit is below, in units of the loss */
  bool is_refused;
};

/** How far x is below the label's logit, in units of the loss. Infinitely far on either side, the loss is +inf. */
__device__ __forceinline__ float distance_below(float label_x, float x) {
  const float distance = x == label_x ? 0.0f : label_x / loss_unit - x / loss_unit;
  return isinf(distance) ? fabsf(distance) : distance;
}

/** Reads at most two logits of the row. `step`: between neighbouring classes. */
template <typename T>
__device__ __forceinline__ two_hot_row choose_label(const call &c, const level &l, const tile &t, const T *from,
                                                    int64_t step, int32_t row) {
  const row_role r = weigh_row(c, l, t, row);
  if (r.weight == 0.0f) return {row_skipped, -1, 0.0f, 0.0f, 0.0f, 0.0f, false};
  const two_hot hot = bins_of(c, l, t, r.cls, row);
  const float weight = hot.is_valid ? r.weight * hot.total : 0.0f;
  if (weight == 0.0f) return {row_skipped, -1, 0.0f, 0.0f, 0.0f, 0.0f, !hot.is_valid};
  const int32_t only = hot.bin + (hot.right != 0.0f);
  if (hot.left == 0.0f || hot.right == 0.0f) return {only, -1, weight, 0.0f, to_float(from[only * step]), 0.0f, false};
  const float left = to_float(from[hot.bin * step]), right = to_float(from[(hot.bin + 1) * step]);
  const bool is_right = hot.right == hot.left ? right > left : hot.right > hot.left;
  if (is_right) return {hot.bin + 1, hot.bin, weight, hot.left, right, distance_below(right, left), false};
  return {hot.bin, hot.bin + 1, weight, hot.right, left, distance_below(left, right), false};
}

/** What an outcome's gradient has more at the label, and less at the other bin; and the loss that the other adds. */
__device__ __forceinline__ float share_label(const setting &s, const two_hot_row &r, outcome *o) {
  if (r.other < 0) return 0.0f;
  o->loss += r.weight * (r.of_other * r.distance);
  return o->after ? r.of_other : r.weight * r.of_other * s.factor;
}

/** A class's gradient. `e`: its exponential. */
template <typename T>
__device__ __forceinline__ float shared_gradient(const call &c, const two_hot_row &r, const outcome &o, float moved,
                                                 int32_t cls, float e) {
  float value = cls == r.label ? moved - o.derivative : e * o.of_e;
  if (cls == r.other) value -= moved;
  return r.weight == 0.0f ? 0.0f : finished_derivative<T>(c, o, value);
}

/** By one thread of a row. Returns the loss. */
__device__ __forceinline__ float conclude_row(const call &c, const level &l, const tile &t, const two_hot_row &r,
                                              const outcome &o, int32_t row) {
  store_row_loss(l, t, row, o.loss);
  report_if_invalid(c, l, t, row);
  if (r.is_refused) report_target(c, l, t, row);
  return o.loss;
}

/* ---- A few lanes a row in shared memory -------------------------------------------------------------------------- */

/** Returns the loss in the row's first lane. */
template <typename T>
__device__ __forceinline__ float two_hot_of_lanes(const call &c, const level &l, const tile &t, const setting &s,
                                                  int32_t row, const staged_row &place, bool is_there) {
  const two_hot_row r = choose_label(c, l, t, place.at, 1, row);
  const bool is_skipped = r.weight == 0.0f;
  const staged_row looked = looked_at(place, is_skipped);
  take_label_out(looked, r.label);
  const float maximum = maximum_of(c, looked), sum = exponentiate<T>(c, looked, maximum);
  outcome o = finish_row(c, s, r.weight, r.label_x, maximum, sum, -1);
  const float moved = share_label(s, r, &o);
  __syncwarp(); /* all lanes have left their exponentials */
  if (l.view.array[TARE_ARRAY_GRADIENT].data) {
    const bool puts = place.n && place.first == 0 && !is_skipped;
    const float e = puts && r.other >= 0 ? place.at[r.other] : 0.0f;
    __syncwarp();
    scale_row<T>(c, place, o, is_skipped);
    __syncwarp();
    if (puts && r.other >= 0) place.at[r.other] = shared_gradient<T>(c, r, o, moved, r.other, e);
    if (puts) place.at[r.label] = shared_gradient<T>(c, r, o, moved, r.label, 0.0f);
  }
  return is_there && place.first == 0 ? conclude_row(c, l, t, r, o, row) : 0.0f;
}

template <typename T>
__global__ void __launch_bounds__(block_threads, staged_blocks(3)) two_hot_staged(const TARE_GRID_CONSTANT call c) {
  TARE_SHARED(warp_room[block_threads / 32], rooms);
  const setting s = make_setting(c);
  staged_pass<T>(c, rooms, [&](const level &l, const tile &t, int32_t row, const staged_row &r, bool is_there) {
    return two_hot_of_lanes<T>(c, l, t, s, row, r, is_there);
  });
}

/* ---- A warp a row ------------------------------------------------------------------------------------------------ */

/** Returns the loss in the row's first thread. */
template <typename T>
__device__ __forceinline__ float two_hot_of_warp(const call &c, const level &l, const tile &t, const setting &s,
                                                 int32_t row) {
  const long_row<T, int(warp_size), false> a = make_long_row<T, int(warp_size), false>(c, l, t, row);
  const two_hot_row r = choose_label(c, l, t, a.from, a.from_step, row);
  const float maximum = maximum_of(a, r.label);
  outcome o = finish_row(c, s, r.weight, r.label_x, maximum, sum_of<float>(a, r.label, maximum), -1);
  const float moved = share_label(s, r, &o);
  __syncwarp(); /* the bins' logits have been read, should the gradient take their place */
#pragma unroll 2
  for (int32_t cls = a.to ? a.thread() : a.n; cls < a.n; cls += int32_t(warp_size)) {
    const float e = exp_of<T>(a.x(r.label, cls), maximum);
    a.to[cls * a.to_step] = from_float<T>(shared_gradient<T>(c, r, o, moved, cls, e));
  }
  return a.thread() == 0 ? conclude_row(c, l, t, r, o, row) : 0.0f;
}

template <typename T>
__global__ void __launch_bounds__(block_threads, 3) two_hot_rows(const TARE_GRID_CONSTANT call c) {
  const setting s = make_setting(c);
  for_each_tile(c, c.tile_count, &level::tiles, [&](const level &l, const tile &t) {
    float sum = 0.0f;
    for (int32_t row = int32_t(thread_rank() / warp_size); row < t.rows; row += block_threads / int32_t(warp_size))
      sum += two_hot_of_warp<T>(c, l, t, s, row);
    return double(sum) * loss_unit;
  });
  finish_loss(c);
}

/* ---- A lane a row ------------------------------------------------------------------------------------------------ */

/** What the warps of a block find meets here. */
struct two_hot_meeting {
  float maxima[block_threads], sums[block_threads];
};

template <typename T>
__device__ __forceinline__ float two_hot_of_lane(const call &c, const level &l, const tile &t, const setting &s,
                                                 int32_t row, bool active, two_hot_meeting &meeting) {
  const column<T, false> a = {logits_at<T>(l, t, row),
                              gradient_at<T>(l, t, row),
                              l.view.array[TARE_ARRAY_LOGITS].cls,
                              l.view.array[TARE_ARRAY_GRADIENT].cls,
                              active ? int32_t(c.classes) : 0,
                              c.adjusts};
  const two_hot_row r = choose_label(c, l, t, a.from, a.from_step, row);
  reread<T, false> classes;
  const float maximum = meet(meeting.maxima, classes.start(a, r.label), [](float x, float y) { return fmaxf(x, y); });
  const float sum =
      meet(meeting.sums, classes.exponentiate(a, r.label, maximum), [](float x, float y) { return x + y; });
  outcome o = finish_row(c, s, r.weight, r.label_x, maximum, sum, -1);
  const float moved = share_label(s, r, &o);
#pragma unroll 2
  for (int32_t cls = a.to ? int32_t(thread_rank() / warp_size) : a.n; cls < a.n; cls += plane_warps) {
    const float e = classes.e_of(a, r.label, cls, maximum);
    a.to[cls * a.to_step] = from_float<T>(shared_gradient<T>(c, r, o, moved, cls, e));
  }
  return active && thread_rank() < warp_size ? conclude_row(c, l, t, r, o, row) : 0.0f;
}

template <typename T>
__global__ void __launch_bounds__(block_threads, 3) two_hot_nchw(const TARE_GRID_CONSTANT call c) {
  TARE_SHARED(two_hot_meeting, meeting);
  const setting s = make_setting(c);
  for_each_tile(c, c.tile_count, &level::tiles, [&](const level &l, const tile &t) {
    float sum = 0.0f;
    for (int32_t first = 0; first < t.rows; first += rows_of_nchw) {
      const int32_t row = first + int32_t(lane());
      const bool active = row < t.rows;
      sum += two_hot_of_lane<T>(c, l, t, s, active ? row : first, active, meeting);
    }
    return double(sum) * loss_unit;
  });
  finish_loss(c);
}

}  // namespace softmax
}  // namespace tare

#endif
