/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Softmax rows whose logits depend on the label, by kernels of their own: Seesaw loss. Its new logits depend on the
 * softmax of the row too, so that a row is swept five times: for the maximum and the sum of its logits, for those of
 * its new logits, and for the gradient. Three walks: a few lanes a row in shared memory; and two that sweep over memory
 * with one code, a warp a row, of any strides and length, and a lane a row where rows lie side by side.
 */
#ifndef TARE_CUDA_SOFTMAX_BY_LABEL_CUH
#define TARE_CUDA_SOFTMAX_BY_LABEL_CUH

#include "softmax_nchw.cuh"
#include "softmax_rows.cuh"
#include "softmax_staged.cuh"

namespace tare {
namespace softmax {

/** What the logits of a row are adjusted by. A class above the base is compensated. */
struct label_adjustment {
  float own, base; /* Seesaw loss: log n_y, and max(x_y, LSE + log epsilon) */
};

/** Nothing is above an infinite base, and nothing rarer than this label. */
__device__ __forceinline__ label_adjustment no_adjustment() { return {-INFINITY, INFINITY}; }

/** Whether the softmax of the logits must be known first. */
__device__ __forceinline__ bool looks_twice(const call &c) { return c.adjusts_by_label; }

/** The logit of a class that is not the label. A difference that is no number adds nothing. */
__device__ __forceinline__ float adjusted(const call &c, const label_adjustment &by, int32_t label, int32_t cls,
                                          float x) {
  if (cls == label) return x;
  const float above = x - by.base;
  float more = above > 0.0f ? c.seesaw.compensation * above : 0.0f;
  if (c.seesaw.log_counts) {
    const float rarer = __ldg(c.seesaw.log_counts + cls) - by.own;
    if (rarer < 0.0f) more += c.seesaw.mitigation * rarer;
  }
  return x + more;
}

/** From the maximum and the sum over the other classes. */
__device__ __forceinline__ label_adjustment adjust_by(const call &c, int32_t label, float label_x, float maximum,
                                                      float sum) {
  label_adjustment by = no_adjustment();
  if (c.seesaw.log_counts) by.own = __ldg(c.seesaw.log_counts + label);
  if (c.seesaw.compensation == 0.0f) return by;
  const double x = double(label_x), others = double(maximum) + log_of_sum(sum == 0.0f ? 1.0f : sum);
  const double lse = (x > others ? x : others) + double(exact::terms_of(float(x - others)).log1p_e);
  by.base = float(fmax(x, lse + double(c.seesaw.log_floor)));
  return by;
}

/* ---- A few lanes a row in shared memory -------------------------------------------------------------------------- */

/** The adjustment of a row whose label has been taken out. */
template <typename T>
__device__ __forceinline__ label_adjustment adjustment_of(const call &c, const staged_row &r, int32_t label,
                                                          float label_x) {
  const float maximum = maximum_of(c, r);
  float place[chunk];
#pragma unroll
  for (int k = 0; k < chunk; k++) place[k] = 0.0f;
  sweep<false>(r, [&](int k, int32_t, float &x) { place[k] += exp_of<T>(x, maximum); });
  const float sum = sum_of_places(place, c.label_lanes);
  return label < 0 ? no_adjustment() : adjust_by(c, label, label_x, maximum, sum);
}

/** Returns the loss in the row's first lane. */
template <typename T>
__device__ __forceinline__ float lanes_by_label(const call &c, const level &l, const tile &t, const setting &s,
                                                int32_t row, const staged_row &r, bool is_there) {
  const row_role role = weigh_row(c, l, t, row);
  const bool is_skipped = role.weight == 0.0f;
  const staged_row looked = looked_at(r, is_skipped);
  const float label_x = is_there && role.cls >= 0 ? r.at[role.cls] : 0.0f;
  take_label_out(looked, role.cls);
  const label_adjustment by = adjustment_of<T>(c, looked, role.cls, label_x);
  float maximum = -INFINITY;
  sweep<true>(looked, [&](int, int32_t cls, float &x) {
    x = adjusted(c, by, role.cls, cls, x);
    maximum = fmaxf(maximum, x);
  });
  maximum = max_of_lanes(maximum, c.label_lanes);
  const float sum = exponentiate<T>(c, looked, maximum);
  const outcome o = finish_row(c, s, role.weight, label_x, maximum, sum, -1);
  return conclude_row_of_lanes<false>(
      c, l, t, r, row, role.cls, o.loss, [&] { scale_row<T>(c, r, o, is_skipped); },
      [&] { return finished_derivative<T>(c, o, -o.derivative); });
}

template <typename T>
__global__ void __launch_bounds__(block_threads, staged_blocks(3))
    softmax_by_label_staged(const TARE_GRID_CONSTANT call c) {
  TARE_SHARED(warp_room[block_threads / 32], rooms);
  const setting s = make_setting(c);
  staged_pass<T>(c, rooms, [&](const level &l, const tile &t, int32_t row, const staged_row &r, bool is_there) {
    return lanes_by_label<T>(c, l, t, s, row, r, is_there);
  });
}

/* ---- The other walks --------------------------------------------------------------------------------------------- */

/** A thread's classes of a row: every `step`-th from `first`. */
template <typename T>
struct shared_row {
  const T *from;
  T *to; /* NULL: no gradient wanted */
  int64_t from_step, to_step;
  int32_t first, step, n; /* n: classes, 0 where the thread has no row */

  __device__ __forceinline__ float x(int32_t cls) const { return to_float(from[cls * from_step]); }
};

template <typename T>
__device__ __forceinline__ shared_row<T> make_shared_row(const call &c, const level &l, const tile &t, int32_t row) {
  return {logits_at<T>(l, t, row),
          gradient_at<T>(l, t, row),
          l.view.array[TARE_ARRAY_LOGITS].cls,
          l.view.array[TARE_ARRAY_GRADIENT].cls,
          int32_t(lane()),
          int32_t(warp_size),
          int32_t(c.classes)};
}

template <typename T>
__device__ __forceinline__ float maximum_of(const call &c, const shared_row<T> &a, const label_adjustment &by,
                                            int32_t label) {
  float maximum = -INFINITY;
#pragma unroll 2
  for (int32_t cls = a.first; cls < a.n; cls += a.step)
    if (cls != label) maximum = fmaxf(maximum, adjusted(c, by, label, cls, a.x(cls)));
  return maximum;
}

template <typename T>
__device__ __forceinline__ float sum_of(const call &c, const shared_row<T> &a, const label_adjustment &by,
                                        int32_t label, float maximum) {
  running_sum sum = {0.0f, 0.0f};
#pragma unroll 2
  for (int32_t cls = a.first; cls < a.n; cls += a.step) {
    const float e = exp_of<T>(adjusted(c, by, label, cls, a.x(cls)), maximum);
    sum.add(cls == label ? 0.0f : e);
  }
  return sum.sum - sum.lost;
}

template <typename T>
__device__ __forceinline__ void store_gradient(const call &c, const shared_row<T> &a, const label_adjustment &by,
                                               int32_t label, float maximum, const outcome &o) {
#pragma unroll 2
  for (int32_t cls = a.first; cls < a.n; cls += a.step) {
    const float e = label < 0 ? 0.0f : exp_of<T>(adjusted(c, by, label, cls, a.x(cls)), maximum);
    const float value = cls == label ? finished_derivative<T>(c, o, -o.derivative) : scaled_exponential<T>(c, o, e);
    a.to[cls * a.to_step] = from_float<T>(label < 0 ? 0.0f : value);
  }
}

/** Loss and gradient of a row. join_maximum and join_sum join what its threads have; the last join comes after every
 *  thread has read the label's logit. */
template <typename T, typename Maximum, typename Sum>
__device__ __forceinline__ float row_by_label(const call &c, const setting &s, const shared_row<T> &a, row_role r,
                                              Maximum &&join_maximum, Sum &&join_sum) {
  label_adjustment by = no_adjustment();
  shared_row<T> looked_at = a;
  if (r.cls < 0) looked_at.n = 0;
  const float label_x = looked_at.n ? a.x(r.cls) : 0.0f;
  float maximum = join_maximum(maximum_of(c, looked_at, by, r.cls));
  float sum = join_sum(sum_of(c, looked_at, by, r.cls, maximum));
  if (r.cls >= 0) by = adjust_by(c, r.cls, label_x, maximum, sum);
  maximum = join_maximum(maximum_of(c, looked_at, by, r.cls));
  sum = join_sum(sum_of(c, looked_at, by, r.cls, maximum));
  const outcome o = finish_row(c, s, r.weight, label_x, maximum, sum, -1);
  if (a.to) store_gradient(c, a, by, r.cls, maximum, o);
  return o.loss;
}

template <typename T>
__global__ void __launch_bounds__(block_threads, 3) softmax_by_label_rows(const TARE_GRID_CONSTANT call c) {
  const setting s = make_setting(c);
  for_each_tile(c, c.tile_count, &level::tiles, [&](const level &l, const tile &t) {
    float sum = 0.0f;
    for (int32_t row = int32_t(thread_rank() / warp_size); row < t.rows; row += block_threads / int32_t(warp_size)) {
      const float loss = row_by_label(
          c, s, make_shared_row<T>(c, l, t, row), weigh_row(c, l, t, row),
          [](float x) { return max_all<int(warp_size)>(x); }, [](float x) { return sum_all<int(warp_size)>(x); });
      if (lane() != 0) continue;
      sum += loss;
      store_row_loss(l, t, row, loss);
      report_if_invalid(c, l, t, row);
    }
    return double(sum) * loss_unit;
  });
  finish_loss(c);
}

/** A row for each lane, or none (active is false). By all threads. Returns the loss in the first warp. */
template <typename T>
__device__ __forceinline__ float lane_by_label(const call &c, const level &l, const tile &t, const setting &s,
                                               int32_t row, bool active, float (&meeting)[2][block_threads]) {
  shared_row<T> a = make_shared_row<T>(c, l, t, row);
  a.first = int32_t(thread_rank() / warp_size);
  a.step = plane_warps;
  if (!active) a.n = 0;
  const float loss = row_by_label(
      c, s, a, weigh_row(c, l, t, row),
      [&](float mine) { return meet(meeting[0], mine, [](float x, float y) { return fmaxf(x, y); }); },
      [&](float mine) { return meet(meeting[1], mine, [](float x, float y) { return x + y; }); });
  if (!active || thread_rank() >= warp_size) return 0.0f;
  store_row_loss(l, t, row, loss);
  report_if_invalid(c, l, t, row);
  return loss;
}

template <typename T>
__global__ void __launch_bounds__(block_threads, 3) softmax_by_label_nchw(const TARE_GRID_CONSTANT call c) {
  TARE_SHARED(float[2][block_threads], meeting);
  const setting s = make_setting(c);
  for_each_tile(c, c.tile_count, &level::tiles, [&](const level &l, const tile &t) {
    float sum = 0.0f;
    for (int32_t first = 0; first < t.rows; first += rows_of_nchw) {
      const int32_t row = first + int32_t(lane());
      const bool active = row < t.rows;
      sum += lane_by_label<T>(c, l, t, s, active ? row : first, active, meeting);
    }
    return double(sum) * loss_unit;
  });
  finish_loss(c);
}

}  // namespace softmax
}  // namespace tare

#endif
