/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Softmax rows side by side, class after class (NCHW): lanes are rows, so that memory is read and written along them,
 * and the warps of a block take every eighth class each. What they find meets in shared memory. Up to 128 classes stay
 * in registers between the sweeps; with more, each sweep reads them again.
 */
#ifndef TARE_CUDA_SOFTMAX_NCHW_CUH
#define TARE_CUDA_SOFTMAX_NCHW_CUH

#include "softmax.cuh"

namespace tare {
namespace softmax {

constexpr int plane_warps = block_threads / 32;
static_assert(rows_of_nchw == 32, "a lane a row");

/** A lane's row of `from`, class after class. */
template <typename T, bool adjusts>
struct column {
  const T *from;
  T *to; /* NULL: no gradient wanted */
  int64_t from_step, to_step;
  int32_t n; /* classes, 0 where the lane has no row */
  adjustment by;

  __device__ __forceinline__ float x(int32_t label, int32_t cls) const {
    const float logit = to_float(from[cls * from_step]);
    return adjusts ? adjust(by, label, cls, logit) : logit;
  }
};

/** Over the warps, of values each lane has for its own row. One barrier; `meeting` is not to be written again before
 *  another. */
template <typename Join>
__device__ __forceinline__ float meet(float (&meeting)[block_threads], float mine, Join join) {
  meeting[thread_rank()] = mine;
  __syncthreads();
  float all = meeting[lane()];
#pragma unroll
  for (int i = 1; i < plane_warps; i++) all = join(all, meeting[i * 32 + lane()]);
  return all;
}

/** A warp's classes held in registers. */
template <typename T, bool adjusts>
struct held {
  static constexpr int count = int(most_classes_of_nchw) / plane_warps;
  static constexpr int blocks = 2; /* of a multiprocessor, that there are to be registers for */
  float x[count];

  __device__ __forceinline__ float start(const column<T, adjusts> &a, int32_t label) {
    float maximum = -INFINITY;
#pragma unroll
    for (int i = 0; i < count; i++) {
      const int32_t cls = int32_t(thread_rank() / 32) + i * plane_warps;
      x[i] = cls < a.n ? a.x(label, cls) : -INFINITY;
    }
#pragma unroll
    for (int i = 0; i < count; i++) {
      if (int32_t(thread_rank() / 32) + i * plane_warps == label) x[i] = -INFINITY;
      maximum = fmaxf(maximum, x[i]);
    }
    return maximum;
  }
  __device__ __forceinline__ float exponentiate(const column<T, adjusts> &a, int32_t, float maximum) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < count; i++) {
      const bool there = int32_t(thread_rank() / 32) + i * plane_warps < a.n;
      x[i] = there ? exp_adjusted<T, adjusts>(a.by, x[i], maximum) : 0.0f;
      sum += x[i];
    }
    return sum;
  }
  __device__ __forceinline__ void store(const call &c, const column<T, adjusts> &a, int32_t label, float, outcome o,
                                        bool skipped) {
    finish_derivatives<T>(c, &o, x);
#pragma unroll
    for (int i = 0; i < count; i++) {
      const int32_t cls = int32_t(thread_rank() / 32) + i * plane_warps;
      const float value = skipped ? 0.0f : cls == label ? -o.derivative : x[i] * o.of_e;
      if (cls < a.n) a.to[cls * a.to_step] = from_float<T>(value);
    }
  }
};

/** The same, read anew by each sweep. */
template <typename T, bool adjusts>
struct reread {
  static constexpr int blocks = 4;
  __device__ __forceinline__ static float e_of(const column<T, adjusts> &a, int32_t label, int32_t cls, float maximum) {
    return exp_adjusted<T, adjusts>(a.by, a.x(label, cls), maximum);
  }
  __device__ __forceinline__ float start(const column<T, adjusts> &a, int32_t label) {
    float maximum = -INFINITY;
#pragma unroll 4
    for (int32_t cls = int32_t(thread_rank() / 32); cls < a.n; cls += plane_warps) {
      const float x = a.x(label, cls);
      if (cls != label) maximum = fmaxf(maximum, x);
    }
    return maximum;
  }
  __device__ __forceinline__ float exponentiate(const column<T, adjusts> &a, int32_t label, float maximum) {
    running_sum sum = {0.0f, 0.0f};
#pragma unroll 4
    for (int32_t cls = int32_t(thread_rank() / 32); cls < a.n; cls += plane_warps) {
      const float e = e_of(a, label, cls, maximum);
      sum.add(cls == label ? 0.0f : e);
    }
    return sum.sum;
  }
  __device__ __forceinline__ void store(const call &c, const column<T, adjusts> &a, int32_t label, float maximum,
                                        const outcome &o, bool skipped) {
#pragma unroll 4
    for (int32_t cls = int32_t(thread_rank() / 32); cls < a.n; cls += plane_warps) {
      const float e = e_of(a, label, cls, maximum);
      const float value = cls == label ? finished_derivative<T>(c, o, -o.derivative) : scaled_exponential<T>(c, o, e);
      a.to[cls * a.to_step] = from_float<T>(skipped ? 0.0f : value);
    }
  }
};

/** A row for each lane, or none (active is false). By all threads: two barriers. Returns the loss in the first warp.
 *  Many parameters: the two arrays are in shared memory, which only a kernel declares. */
template <typename T, template <typename, bool> class Classes, bool adjusts>
__device__ __forceinline__ float row_of_lane(const call &c, const level &l, const tile &t, const setting &s,
                                             int32_t row, bool active, float (&maxima)[block_threads],
                                             float (&sums)[block_threads]) {
  const column<T, adjusts> a = {logits_at<T>(l, t, row),
                                gradient_at<T>(l, t, row),
                                l.view.array[TARE_ARRAY_LOGITS].cls,
                                l.view.array[TARE_ARRAY_GRADIENT].cls,
                                active ? int32_t(c.classes) : 0,
                                c.adjusts};
  const row_role r = weigh_row(c, l, t, row);
  const float label_x = active && r.cls >= 0 ? a.x(r.cls, r.cls) : 0.0f;
  Classes<T, adjusts> classes;
  const float mine = classes.start(a, r.cls);
  const float maximum = meet(maxima, mine, [](float x, float y) { return fmaxf(x, y); });
  const float part = classes.exponentiate(a, r.cls, maximum);
  const float sum = meet(sums, part, [](float x, float y) { return x + y; });
  const outcome o = finish_row(c, s, r.weight, label_x, maximum, sum, r.cls);
  if (a.to) classes.store(c, a, r.cls, maximum, o, r.weight == 0.0f);
  if (!active || thread_rank() >= warp_size) return 0.0f;
  store_row_loss(l, t, row, o.loss);
  report_if_invalid<true>(c, l, t, row);
  return o.loss;
}

template <typename T, template <typename, bool> class Classes>
__global__ void __launch_bounds__(block_threads, Classes<T, false>::blocks)
    softmax_nchw(const TARE_GRID_CONSTANT call c) {
  TARE_SHARED(float[block_threads], maxima);
  TARE_SHARED(float[block_threads], sums);
  const setting s = make_setting(c);
  for_each_tile(c, c.tile_count, &level::tiles, [&](const level &l, const tile &t) {
    float sum = 0.0f;
    for (int32_t first = 0; first < t.rows; first += rows_of_nchw) {
      const int32_t row = first + int32_t(lane());
      const bool active = row < t.rows;
      const int32_t at = active ? row : first;
      sum += is_adjusted(c) ? row_of_lane<T, Classes, true>(c, l, t, s, at, active, maxima, sums)
                            : row_of_lane<T, Classes, false>(c, l, t, s, at, active, maxima, sums);
    }
    return double(sum) * loss_unit;
  });
  finish_loss(c);
}

}  // namespace softmax
}  // namespace tare

#endif
