/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Softmax rows with label smoothing or z-loss, by kernels of their own: the others have no registers left for it. The
 * formulas are those of losses/softmax_smoothed.h and softmax_z_loss.h. Beside m and S a row with label smoothing needs
 * its *spread*, the sum of m - x_j over the classes other than the label. Three walks: a few lanes a row in shared
 * memory; a warp a row, of any strides and length; and a lane a row where rows lie side by side.
 */
#ifndef TARE_CUDA_SOFTMAX_SMOOTHED_CUH
#define TARE_CUDA_SOFTMAX_SMOOTHED_CUH

#include "softmax_nchw.cuh"
#include "softmax_rows.cuh"
#include "softmax_staged.cuh"

namespace tare {
namespace softmax {

/** Sums of differences of logits are kept in units of 2^40: none exceeds a float. */
constexpr float spread_unit = 0x1p40f;

/** Numbers that all rows share. */
struct smoothing_setting {
  exact::row_smoothing by;
  float factor; /* of the gradient */
};

__device__ __forceinline__ smoothing_setting make_smoothing_setting(const call &c) {
  smoothing_setting s = {};
  s.by.parameters = {c.gamma_hi, c.gamma_lo, c.epsilon};
  s.by.parameters.smoothed = c.smoothed, s.by.parameters.unsmoothed = c.unsmoothed;
  s.by.share = c.smoothed_share, s.by.unshared = c.unshared;
  s.by.distance = c.smoothed_distance;
  s.factor = gradient_factor_of(c);
  return s;
}

/** The gradient is finished(e_j*of_e) - taken, and at the label of_label. */
struct smoothed_outcome {
  outcome row;
  float taken, of_label;
};

/** Sums over the classes other than the label. */
struct smoothed_sums {
  float sum, spread;
};

/** The spread of a thread's classes. Rounding is carried along until the sum is infinite. */
struct spread_sum {
  float sum, lost;
  __device__ __forceinline__ void add(float x, float maximum) {
    const float unit = 1.0f / spread_unit, more = x == maximum ? 0.0f : fmaf(x, -unit, maximum * unit);
    const float rest = more - lost, next = sum + rest;
    lost = fabsf(next) <= FLT_MAX ? (next - sum) - rest : 0.0f;
    sum = next;
  }
};

/** What z-loss adds: to the loss; 1 + slope is a factor of the gradient off the label; slope*p more at the label. */
struct z_terms {
  double loss, slope;
  float p;
};

/** `others`: LSE of the classes off the label. near + rest: the margin. */
__device__ __forceinline__ z_terms z_terms_of(const call &c, float label_x, double others, float near, float rest) {
  if (!(c.z_loss > 0.0)) return {0.0, 0.0, 0.0f};
  const exact::terms t = exact::terms_of(near);
  const exact::z_loss_part part = exact::z_loss_of(double(label_x), others, double(near), double(t.log1p_e), c.z_loss);
  return {part.loss, part.slope, fabsf(near) < FLT_MAX ? fmaf(t.p * rest, t.q, t.p) : t.p};
}

/** Without label smoothing the largest float will do for a margin beyond it: 0 times an infinity would be NaN. */
__device__ __forceinline__ double margin_of(const smoothing_setting &s, double z) {
  return s.by.share == 0.0f && z > double(FLT_MAX) ? double(FLT_MAX) : z;
}

/** From the formula's value for a weight, which is 1 if `after`. What is 0 of a class stays 0, also if z-loss has an
 *  infinite slope. */
__device__ __forceinline__ smoothed_outcome finish_derivatives(const call &c, const smoothing_setting &s, outcome row,
                                                               const exact::smoothed_row &value, const z_terms &z,
                                                               float sum) {
  const float scale = row.after ? 1.0f : s.factor, modulator = value.modulator * scale;
  row.derivative = value.derivative * scale;
  float of_label = fmaf(s.by.parameters.smoothed, modulator, -row.derivative);
  if (c.z_loss > 0.0) {
    const double unit = row.after ? 1.0 : double(row.weight) * double(scale);
    if (z.p != 0.0f) of_label += float(unit * double(z.p) * z.slope);
    if (row.derivative != 0.0f) row.derivative = float(double(row.derivative) * (1.0 + z.slope));
  }
  row.of_e = row.derivative / sum;
  return {row, s.by.share * modulator, of_label};
}

/** Of a row with maximum -inf the other classes are infinitely far below the label. What exceeds a float in the
 *  cross-entropy, though not in the loss's unit, is formed in double. */
__device__ __forceinline__ smoothed_outcome finish_smoothed_row(const call &c, const smoothing_setting &s, float weight,
                                                                float label_x, float maximum, smoothed_sums of) {
  if (weight == 0.0f) return {{0.0f, 0.0f, 0.0f, 0.0f, false}, 0.0f, 0.0f};
  if (of.sum == 0.0f) of.sum = 1.0f, of.spread = INFINITY;
  if (maximum > FLT_MAX && of.sum > 1.5f) of.sum = NAN;
  const double log_sum = log_of_sum(of.sum);
  const double z = margin_of(s, (double(label_x) - double(maximum)) - log_sum), share = double(s.by.share);
  const double spread = double(of.spread) * double(spread_unit) + double(c.classes - 1) * log_sum;
  const double more = share > 0.0 ? share * spread : 0.0;
  const float near = float(z), rest = float(z - double(near));
  const z_terms of_z = z_terms_of(c, label_x, double(maximum) + log_sum, near, rest);
  exact::smoothed_row value = exact::softmax_smoothed(near, rest, float(more), weight, &s.by, c.smooths_all);
  const double line = z < 0 ? -z * double(s.by.parameters.unsmoothed) : z * double(s.by.parameters.smoothed);
  outcome row = {value.loss / loss_unit, 0.0f, 0.0f, weight, false};
  if (fabsf(value.loss) > FLT_MAX && is_finite(more + line))
    row.loss = value.modulator * float((more + line) * (1.0 / loss_unit));
  if (c.z_loss > 0.0) row.loss += float(double(weight) * of_z.loss * (1.0 / loss_unit));
  row.after = !is_ordinary(s.factor) || !(fabsf(weight) <= FLT_MAX) ||
              !(fabsf(value.derivative * s.factor) <= FLT_MAX) ||
              !(fabs(double(weight) * of_z.slope * double(s.factor)) <= double(FLT_MAX) / 4);
  if (row.after) value = exact::softmax_smoothed(near, rest, float(more), 1.0f, &s.by, c.smooths_all);
  return finish_derivatives(c, s, row, value, of_z, of.sum);
}

/** Of a class other than the label, if it needs no finish. An exponential of 0 leaves nothing of an infinite loss. */
__device__ __forceinline__ float moved_gradient(const smoothed_outcome &o, float e) {
  const float moved = e == 0.0f && !isnan(o.row.of_e) ? 0.0f : e * o.row.of_e;
  return moved - o.taken;
}

/** A class's gradient, as it is before it is rounded. */
template <typename T>
__device__ __forceinline__ float smoothed_gradient(const call &c, const smoothed_outcome &o, bool is_label, float e) {
  return finished_derivative<T>(c, o.row, is_label ? o.of_label : moved_gradient(o, e));
}

/* ---- A few lanes a row in shared memory -------------------------------------------------------------------------- */

/** The spread of a row, which nothing asks for without label smoothing. The label has been taken out. */
__device__ __forceinline__ float spread_of(const call &c, const smoothing_setting &s, const staged_row &r,
                                           int32_t label, float maximum) {
  if (s.by.share == 0.0f) return 0.0f;
  spread_sum spread = {0.0f, 0.0f};
  sweep<false>(r, [&](int, int32_t cls, float &x) { spread.add(cls == label ? maximum : x, maximum); });
  return sum_of_lanes(spread.sum - spread.lost, c.label_lanes);
}

template <typename T>
__device__ __forceinline__ void scale_smoothed_row(const call &c, const staged_row &r, const smoothed_outcome &o,
                                                   bool is_skipped) {
  if (is_skipped)
    sweep<true>(r, [](int, int32_t, float &x) { x = 0.0f; });
  else if (!o.row.after)
    sweep<true>(r, [&](int, int32_t, float &x) { x = moved_gradient(o, x); });
  else
    sweep_rarely(r, [&](int32_t, float &x) { x = smoothed_gradient<T>(c, o, false, x); });
}

/** Returns the loss in the row's first lane. */
template <typename T>
__device__ __forceinline__ float smoothed_row_of_lanes(const call &c, const level &l, const tile &t,
                                                       const smoothing_setting &s, int32_t row, const staged_row &r,
                                                       bool is_there) {
  const row_role role = weigh_row(c, l, t, row);
  const bool is_skipped = role.weight == 0.0f;
  const staged_row looked = looked_at(r, is_skipped);
  adjust_row(c, looked);
  const float label_x = is_there && role.cls >= 0 ? r.at[role.cls] : 0.0f;
  take_label_out(looked, role.cls);
  const float maximum = maximum_of(c, looked), spread = spread_of(c, s, looked, role.cls, maximum);
  const float sum = exponentiate<T>(c, looked, maximum);
  const smoothed_outcome o = finish_smoothed_row(c, s, role.weight, label_x, maximum, {sum, spread});
  return conclude_row_of_lanes<true>(
      c, l, t, r, row, role.cls, o.row.loss, [&] { scale_smoothed_row<T>(c, r, o, is_skipped); },
      [&] { return smoothed_gradient<T>(c, o, true, 0.0f); });
}

template <typename T>
__global__ void __launch_bounds__(block_threads, staged_blocks(3))
    softmax_smoothed_staged(const TARE_GRID_CONSTANT call c) {
  TARE_SHARED(warp_room[block_threads / 32], rooms);
  const smoothing_setting s = make_smoothing_setting(c);
  staged_pass<T>(c, rooms, [&](const level &l, const tile &t, int32_t row, const staged_row &r, bool is_there) {
    return smoothed_row_of_lanes<T>(c, l, t, s, row, r, is_there);
  });
}

/* ---- A warp a row ------------------------------------------------------------------------------------------------ */

/** Whether there are offsets is looked up for each logit: code for both ways would be twice as long. */
template <typename T>
using warp_row = long_row<T, int(warp_size), true>;

template <typename T>
__device__ __forceinline__ smoothed_sums sums_of(const warp_row<T> &a, int32_t label, float maximum) {
  running_sum sum = {0.0f, 0.0f};
  spread_sum spread = {0.0f, 0.0f};
#pragma unroll 2
  for (int32_t cls = a.thread(); cls < a.n; cls += int32_t(warp_size)) {
    const float x = a.x(label, cls);
    sum.add(cls == label ? 0.0f : exp_of<T>(x, maximum));
    spread.add(cls == label ? maximum : x, maximum);
  }
  return {sum_all<int(warp_size)>(sum.sum - sum.lost), sum_all<int(warp_size)>(spread.sum - spread.lost)};
}

/** Returns the loss in the row's first thread. */
template <typename T>
__device__ __forceinline__ float smoothed_row_of_warp(const call &c, const level &l, const tile &t,
                                                      const smoothing_setting &s, int32_t row) {
  warp_row<T> a = make_long_row<T, int(warp_size), true>(c, l, t, row);
  a.by = offsets_alone(c.adjusts.of_class); /* LDAM has no such rows */
  const row_role r = weigh_row(c, l, t, row);
  float label_x = 0.0f, maximum = 0.0f;
  smoothed_sums sums = {1.0f, 0.0f};
  if (r.weight != 0.0f) {
    label_x = a.x(r.cls, r.cls);
    maximum = maximum_of(a, r.cls);
    sums = sums_of(a, r.cls, maximum);
  }
  const smoothed_outcome o = finish_smoothed_row(c, s, r.weight, label_x, maximum, sums);
  __syncwarp(); /* the label's logit has been read, should the gradient take its place */
#pragma unroll 2
  for (int32_t cls = a.to ? a.thread() : a.n; cls < a.n; cls += int32_t(warp_size)) {
    const float e = exp_of<T>(a.x(r.cls, cls), maximum), value = smoothed_gradient<T>(c, o, cls == r.cls, e);
    a.to[cls * a.to_step] = from_float<T>(r.weight == 0.0f ? 0.0f : value);
  }
  if (a.thread() != 0) return 0.0f;
  store_row_loss(l, t, row, o.row.loss);
  report_if_invalid<true>(c, l, t, row);
  return o.row.loss;
}

template <typename T>
__global__ void __launch_bounds__(block_threads, 3) softmax_smoothed_rows(const TARE_GRID_CONSTANT call c) {
  const smoothing_setting s = make_smoothing_setting(c);
  for_each_tile(c, c.tile_count, &level::tiles, [&](const level &l, const tile &t) {
    float sum = 0.0f;
    for (int32_t row = int32_t(thread_rank() / warp_size); row < t.rows; row += block_threads / int32_t(warp_size))
      sum += smoothed_row_of_warp<T>(c, l, t, s, row);
    return double(sum) * loss_unit;
  });
  finish_loss(c);
}

/* ---- A lane a row ------------------------------------------------------------------------------------------------ */

/** What the warps of a block find meets here. */
struct meeting_places {
  float maxima[block_threads], sums[block_threads], spreads[block_threads];
};

template <typename T>
__device__ __forceinline__ float smoothed_row_of_lane(const call &c, const level &l, const tile &t,
                                                      const smoothing_setting &s, int32_t row, bool active,
                                                      meeting_places &meeting) {
  const column<T, true> a = {logits_at<T>(l, t, row),
                             gradient_at<T>(l, t, row),
                             l.view.array[TARE_ARRAY_LOGITS].cls,
                             l.view.array[TARE_ARRAY_GRADIENT].cls,
                             active ? int32_t(c.classes) : 0,
                             offsets_alone(c.adjusts.of_class)};
  const row_role r = weigh_row(c, l, t, row);
  const auto plus = [](float x, float y) { return x + y; };
  const float label_x = active && r.cls >= 0 ? a.x(r.cls, r.cls) : 0.0f;
  reread<T, true> classes;
  const float maximum = meet(meeting.maxima, classes.start(a, r.cls), [](float x, float y) { return fmaxf(x, y); });
  spread_sum spread = {0.0f, 0.0f};
#pragma unroll 2
  for (int32_t cls = int32_t(thread_rank() / warp_size); cls < a.n; cls += plane_warps)
    spread.add(cls == r.cls ? maximum : a.x(r.cls, cls), maximum);
  const float sum = meet(meeting.sums, classes.exponentiate(a, r.cls, maximum), plus);
  const smoothed_outcome o = finish_smoothed_row(c, s, r.weight, label_x, maximum,
                                                 {sum, meet(meeting.spreads, spread.sum - spread.lost, plus)});
#pragma unroll 2
  for (int32_t cls = a.to ? int32_t(thread_rank() / warp_size) : a.n; cls < a.n; cls += plane_warps) {
    const float value = smoothed_gradient<T>(c, o, cls == r.cls, classes.e_of(a, r.cls, cls, maximum));
    a.to[cls * a.to_step] = from_float<T>(r.weight == 0.0f ? 0.0f : value);
  }
  if (!active || thread_rank() >= warp_size) return 0.0f;
  store_row_loss(l, t, row, o.row.loss);
  report_if_invalid<true>(c, l, t, row);
  return o.row.loss;
}

template <typename T>
__global__ void __launch_bounds__(block_threads, 3) softmax_smoothed_nchw(const TARE_GRID_CONSTANT call c) {
  TARE_SHARED(meeting_places, meeting);
  const smoothing_setting s = make_smoothing_setting(c);
  for_each_tile(c, c.tile_count, &level::tiles, [&](const level &l, const tile &t) {
    float sum = 0.0f;
    for (int32_t first = 0; first < t.rows; first += rows_of_nchw) {
      const int32_t row = first + int32_t(lane());
      const bool active = row < t.rows;
      sum += smoothed_row_of_lane<T>(c, l, t, s, active ? row : first, active, meeting);
    }
    return double(sum) * loss_unit;
  });
  finish_loss(c);
}

}  // namespace softmax
}  // namespace tare

#endif
