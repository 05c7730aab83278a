/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One softmax row of any length, strides and target, by a warp or a whole block, in three sweeps: the maximum, the
 * sums, the gradient.
 *
 * Dense targets t: loss sum(t_k*(log S - (x_k-m))), gradient sum(t)*p - t, with m and S over all classes; a row with
 * all its mass on one class takes the formula of that label, times the mass.
 */
#ifndef TARE_CUDA_SOFTMAX_ROWS_CUH
#define TARE_CUDA_SOFTMAX_ROWS_CUH

#include "softmax.cuh"

namespace tare {
namespace softmax {

/** Joins a value of each of `threads` threads; the same for all. In a block: two barriers. */
template <int threads, typename V, typename Join>
__device__ __forceinline__ V join_all(V mine, Join join) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) mine = join(mine, __shfl_xor_sync(full_mask, mine, step));
  if (threads == 32) return mine;
  TARE_SHARED(V[block_threads / 32], part);
  if (lane() == 0) part[thread_rank() / warp_size] = mine;
  __syncthreads();
  mine = part[0];
#pragma unroll
  for (int i = 1; i < block_threads / 32; i++) mine = join(mine, part[i]);
  __syncthreads();
  return mine;
}

template <int threads, typename V>
__device__ __forceinline__ V sum_all(V mine) {
  return join_all<threads>(mine, [](V x, V y) { return x + y; });
}
template <int threads, typename V>
__device__ __forceinline__ V max_all(V mine) {
  return join_all<threads>(mine, [](V x, V y) { return max(x, y); });
}

/** A row shared by `threads` threads. */
template <typename T, int threads, bool adjusts>
struct long_row {
  const T *from;
  T *to; /* NULL: no gradient wanted */
  int64_t from_step, to_step;
  const void *targets;
  int64_t target_at, target_step;
  int32_t target_dtype, n;
  adjustment by;

  __device__ __forceinline__ static int32_t thread() { return int32_t(thread_rank()) % threads; }
  __device__ __forceinline__ float x(int32_t label, int32_t cls) const {
    const float logit = to_float(from[cls * from_step]);
    return adjusts ? adjust(by, label, cls, logit) : logit;
  }
  __device__ __forceinline__ float e(int32_t label, int32_t cls, float maximum) const {
    return exp_adjusted<T, adjusts>(by, x(label, cls), maximum);
  }
  __device__ __forceinline__ float target(int32_t cls) const {
    return read_as<float>(targets, target_dtype, target_at + cls * target_step);
  }
};

template <typename T, int threads, bool adjusts>
__device__ __forceinline__ long_row<T, threads, adjusts> make_long_row(const call &c, const level &l, const tile &t,
                                                                       int32_t row) {
  const tare_array *const array = l.view.array;
  return {logits_at<T>(l, t, row),
          gradient_at<T>(l, t, row),
          array[TARE_ARRAY_LOGITS].cls,
          array[TARE_ARRAY_GRADIENT].cls,
          array[TARE_ARRAY_TARGETS].data,
          place(l, t, TARE_ARRAY_TARGETS, row, 0),
          array[TARE_ARRAY_TARGETS].cls,
          c.target_dtype,
          int32_t(c.classes),
          c.adjusts};
}

/** Where a row of targets has its mass, for its weight: on one class, which becomes its label; on none: it is skipped;
 *  on several: class row_background. A target that no formula takes makes it row_invalid. */
template <typename T, int threads, bool adjusts>
__device__ __forceinline__ row_role find_mass(const call &c, const long_row<T, threads, adjusts> &a, float weight) {
  int32_t label = -1, masses = 0, invalid = 0;
  for (int32_t cls = a.thread(); cls < a.n; cls += threads) {
    const float target = a.target(cls);
    invalid |= !(target >= c.target_least && target <= c.target_most);
    if (adjusts && target != 0.0f) invalid |= is_excluded(c, cls);
    if (target != 0.0f) label = cls, masses++;
  }
  if (max_all<threads>(invalid)) return {row_invalid, 0.0f};
  label = max_all<threads>(label);
  masses = sum_all<threads>(masses);
  if (masses > 1) return {row_background, weight};
  weight = masses == 1 ? weight * a.target(label) : 0.0f;
  return {weight == 0.0f ? row_skipped : label, weight};
}

template <typename T, int threads, bool adjusts>
__device__ __forceinline__ float maximum_of(const long_row<T, threads, adjusts> &a, int32_t label) {
  float maximum = -INFINITY;
#pragma unroll 4
  for (int32_t cls = a.thread(); cls < a.n; cls += threads) {
    const float x = a.x(label, cls);
    if (cls != label) maximum = fmaxf(maximum, x);
  }
  return max_all<threads>(maximum);
}

/** V: the type in which the threads' sums are added. */
template <typename V, typename T, int threads, bool adjusts>
__device__ __forceinline__ V sum_of(const long_row<T, threads, adjusts> &a, int32_t label, float maximum) {
  running_sum sum = {0.0f, 0.0f};
#pragma unroll 4
  for (int32_t cls = a.thread(); cls < a.n; cls += threads) {
    const float e = a.e(label, cls, maximum);
    sum.add(cls == label ? 0.0f : e);
  }
  return sum_all<threads>(V(sum.sum) - V(sum.lost));
}

/* The sum of a row in the order in which the walk of its batch would add it up if it had labels: a row of dense targets
 * with all its mass on one class gives the bits of the label. Each warp, or each part of it, adds up the whole row. */

/** softmax_staged.cuh, `lanes` lanes a row. */
template <typename T, int threads, bool adjusts>
__device__ __forceinline__ float sum_of_lanes(const long_row<T, threads, adjusts> &a, int32_t label, float maximum,
                                              int lanes) {
  float place[chunk];
#pragma unroll
  for (int k = 0; k < chunk; k++) place[k] = 0.0f;
  for (int32_t first = int32_t(lane()) % lanes * chunk; first < a.n; first += lanes * chunk)
#pragma unroll
    for (int k = 0; k < chunk; k++)
      if (first + k < a.n && first + k != label) place[k] += a.e(label, first + k, maximum);
  return sum_of_places(place, lanes);
}

/** As in softmax_nchw.cuh: each of `parts` warps takes every `parts`-th class. Rounding of many is compensated. */
template <typename T, int threads, bool adjusts>
__device__ __forceinline__ float sum_of_warps(const long_row<T, threads, adjusts> &a, int32_t label, float maximum) {
  constexpr int parts = block_threads / int(warp_size);
  const bool carries = a.n > most_classes_of_nchw;
  running_sum sum = {0.0f, 0.0f};
  for (int32_t cls = int32_t(lane()) % parts; cls < a.n; cls += parts) {
    const float e = cls == label ? 0.0f : a.e(label, cls, maximum);
    if (carries)
      sum.add(e);
    else
      sum.sum += e;
  }
  float all = __shfl_sync(full_mask, sum.sum, 0);
  for (int i = 1; i < parts; i++) all += __shfl_sync(full_mask, sum.sum, i);
  return all;
}

template <bool soft, typename T, int threads, bool adjusts>
__device__ __forceinline__ float sum_of_label(const call &c, const long_row<T, threads, adjusts> &a, int32_t label,
                                              float maximum) {
  if (!soft || c.label_lanes == label_by_row) return sum_of<float>(a, label, maximum);
  if (c.label_lanes == label_by_warps) return sum_of_warps(a, label, maximum);
  return sum_of_lanes(a, label, maximum, c.label_lanes);
}

/** Gradient o.of_e*e_k - scale*t_k, or without targets -o.derivative at the label. */
template <bool has_targets, typename T, int threads, bool adjusts>
__device__ __forceinline__ void store_row(const call &c, const long_row<T, threads, adjusts> &a, int32_t label,
                                          float maximum, const outcome &o, float scale, bool skipped) {
#pragma unroll 4
  for (int32_t cls = a.thread(); cls < a.n; cls += threads) {
    const float e = a.e(label, cls, maximum);
    float value;
    if (has_targets)
      value = finished_derivative<T>(c, o, fmaf(-scale, a.target(cls), e * o.of_e));
    else
      value = cls == label ? finished_derivative<T>(c, o, -o.derivative) : scaled_exponential<T>(c, o, e);
    a.to[cls * a.to_step] = from_float<T>(skipped ? 0.0f : value);
  }
}

template <bool soft, typename T, int threads, bool adjusts>
__device__ __forceinline__ float hard_row(const call &c, const setting &s, const long_row<T, threads, adjusts> &a,
                                          int32_t label, float weight) {
  float label_x = 0.0f, maximum = 0.0f, sum = 1.0f;
  if (weight != 0.0f) {
    label_x = a.x(label, label);
    maximum = maximum_of(a, label);
    sum = sum_of_label<soft>(c, a, label, maximum);
  }
  const outcome o = finish_row(c, s, weight, label_x, maximum, sum, soft ? -1 : label);
  if (soft && threads > 32) /* a warp that has added up the row does not wait for the others */
    __syncthreads();
  else
    __syncwarp(); /* the row's logits have been read, should the gradient take their place */
  if (a.to) store_row<false>(c, a, label, maximum, o, 0.0f, weight == 0.0f);
  return o.loss;
}

/** With targets of several classes. */
template <typename T, int threads, bool adjusts>
__device__ __forceinline__ float soft_row(const call &c, const setting &s, const long_row<T, threads, adjusts> &a,
                                          float weight) {
  const float maximum = maximum_of(a, -1);
  double sum = sum_of<double>(a, -1, maximum);
  double targets = 0, dot = 0;
  for (int32_t cls = a.thread(); cls < a.n; cls += threads) {
    const float target = a.target(cls);
    targets += double(target);
    const float x = a.x(-1, cls);
    if (target != 0.0f && x != maximum) dot += double(target) * (double(maximum) - double(x));
  }
  targets = sum_all<threads>(targets);
  dot = sum_all<threads>(dot);
  if (!(maximum > -INFINITY) || (maximum > FLT_MAX && sum > 1.5)) sum = NAN;
  const float near = float(sum);
  const double log_s = log_of_sum(near) + (sum - double(near)) / double(near);
  const float all = weight * s.factor;
  const bool after = !is_ordinary(s.factor) || !(fabsf(all) <= FLT_MAX);
  const float scale = after ? 1.0f : all;
  const outcome o = {float(weight * (dot + targets * log_s) / loss_unit), 0.0f, scale * float(targets) / near, weight,
                     after};
  if (a.to) store_row<true>(c, a, -1, maximum, o, scale, false);
  return o.loss;
}

/** Returns the loss in the row's first thread. */
template <typename T, int threads, bool soft, bool adjusts>
__device__ __forceinline__ float one_row(const call &c, const level &l, const tile &t, const setting &s, int32_t row) {
  long_row<T, threads, adjusts> a = make_long_row<T, threads, adjusts>(c, l, t, row);
  /* LDAM has no dense targets: told so, the compiler saves registers. */
  if (soft) a.by = offsets_alone(c.adjusts.of_class);
  row_role r = weigh_row(c, l, t, row);
  if (soft && r.weight != 0.0f) r = find_mass(c, a, r.weight);
  float loss;
  if (soft && r.cls == row_background)
    loss = soft_row(c, s, a, r.weight);
  else
    loss = hard_row<soft>(c, s, a, r.cls, r.weight);
  if (a.thread() != 0) return 0.0f;
  store_row_loss(l, t, row, loss);
  report_if_invalid<true>(c, l, t, row);
  if (soft && r.cls == row_invalid) report_target(c, l, t, row);
  return loss;
}

/** With labels, whether logits are adjusted is looked up once a row. Dense rows that are adjusted have instances of
 *  their own (`adjusts`): both in one would take more registers, and a block less on a multiprocessor. */
template <typename T, int threads, bool soft, bool adjusts>
__global__ void __launch_bounds__(block_threads, soft ? 2 : 3) softmax_rows(const TARE_GRID_CONSTANT call c) {
  const setting s = make_setting(c);
  for_each_tile(c, c.tile_count, &level::tiles, [&](const level &l, const tile &t) {
    float sum = 0.0f;
    for (int32_t row = int32_t(thread_rank() / threads); row < t.rows; row += block_threads / threads)
      sum += adjusts || (!soft && is_adjusted(c)) ? one_row<T, threads, soft, true>(c, l, t, s, row)
                                                  : one_row<T, threads, soft, false>(c, l, t, s, row);
    return double(sum) * loss_unit;
  });
  finish_loss(c);
}

}  // namespace softmax
}  // namespace tare

#endif
