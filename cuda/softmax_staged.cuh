/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Softmax rows with contiguous classes in shared memory: one read of the logits, one write of the gradient. A few lanes
 * take a row, as few as there is room for, so that what is done once a row is done for many rows at a time. The label's
 * logit is taken out before the sweeps, and its gradient put in after them: the sweeps do not ask for the label.
 *
 * Place k of a lane's chunks holds classes that are the same modulo lanes*chunk, in growing order. The sum adds them up
 * place by place, then the places, then the lanes. So it depends on nothing but the logits.
 */
#ifndef TARE_CUDA_SOFTMAX_STAGED_CUH
#define TARE_CUDA_SOFTMAX_STAGED_CUH

#include "softmax_room.cuh"

namespace tare {
namespace softmax {

/** Takes the label's logit out, after all lanes have read it; from now on the row has no such class. By a warp. */
__device__ __forceinline__ void take_label_out(const staged_row &r, int32_t label) {
  __syncwarp();
  if (r.n && r.first == 0 && label >= 0) r.at[label] = -INFINITY;
  __syncwarp();
}

/** A row that adds nothing is not looked at. */
__device__ __forceinline__ staged_row looked_at(staged_row r, bool is_skipped) {
  if (is_skipped) r.n = 0;
  return r;
}

__device__ __forceinline__ float maximum_of(const call &c, const staged_row &r) {
  float maximum = -INFINITY;
  sweep<false>(r, [&](int, int32_t, float &x) { maximum = fmaxf(maximum, x); });
  return max_of_lanes(maximum, c.label_lanes);
}

/** x becomes exp(x - maximum); returns the sum. */
template <typename T>
__device__ __forceinline__ float exponentiate(const call &c, const staged_row &r, float maximum) {
  __syncwarp(); /* a lane has other classes in a sweep of few rows */
  if (is_infinite(maximum)) sweep_rarely(r, [&](int32_t, float &x) { x = below_maximum(x, maximum); });
  __syncwarp();
  const float base = spare_infinity(maximum);
  float place[chunk];
#pragma unroll
  for (int k = 0; k < chunk; k++) place[k] = 0.0f;
  sweep<true>(r, [&](int k, int32_t, float &x) {
    x = exp_below<T>(x, base);
    place[k] += x;
  });
  return sum_of_places(place, c.label_lanes);
}

/** The gradient of the classes other than the label, and zeros even over NaN where a row is skipped. */
template <typename T>
__device__ __forceinline__ void scale_row(const call &c, const staged_row &r, const outcome &o, bool is_skipped) {
  if (is_skipped)
    sweep<true>(r, [](int, int32_t, float &x) { x = 0.0f; });
  else if (!o.after)
    sweep<true>(r, [&](int, int32_t, float &x) { x *= o.of_e; });
  else
    sweep_rarely(r, [&](int32_t, float &x) { x = scaled_exponential<T>(c, o, x); });
}

/** The end of a row: scale() leaves the gradient of the other classes, of_label() is the label's. Returns the loss in
 *  the row's first lane. By a warp. Many parameters: what a row is, its loss, and what differs between the kernels.
 *  `excludes`: as in report_if_invalid. */
template <bool excludes, typename Scale, typename OfLabel>
__device__ __forceinline__ float conclude_row_of_lanes(const call &c, const level &l, const tile &t,
                                                       const staged_row &r, int32_t row, int32_t label, float loss,
                                                       Scale &&scale, OfLabel &&of_label) {
  const bool is_first = r.n && r.first == 0;
  __syncwarp(); /* a row that is scaled another way has other lanes */
  if (l.view.array[TARE_ARRAY_GRADIENT].data) {
    scale();
    __syncwarp(); /* another lane may have scaled the label's place */
    if (is_first && label >= 0) r.at[label] = of_label();
  }
  if (!is_first) return 0.0f;
  store_row_loss(l, t, row, loss);
  report_if_invalid<excludes>(c, l, t, row);
  return loss;
}

/** Adds what the loss adds to the logits. By a warp. */
__device__ __forceinline__ void adjust_row(const call &c, const staged_row &r) {
  if (c.adjusts.of_class == nullptr) return;
  sweep<true>(r, [&](int, int32_t cls, float &x) { x = adjust(c.adjusts, -1, cls, x); });
  __syncwarp();
}

/** Returns the loss in the row's first lane. */
template <typename T>
__device__ __forceinline__ float row_of_lanes(const call &c, const level &l, const tile &t, const setting &s,
                                              int32_t row, const staged_row &r, bool is_there) {
  const row_role role = weigh_row(c, l, t, row);
  const bool is_skipped = role.weight == 0.0f;
  const staged_row looked = looked_at(r, is_skipped);
  adjust_row(c, looked);
  const float label_x = is_there && role.cls >= 0 ? r.at[role.cls] : 0.0f;
  take_label_out(looked, role.cls);
  const float maximum = maximum_of(c, looked);
  if (c.adjusts.is_ldam) sweep<true>(looked, [&](int, int32_t, float &x) { x = below_scaled(c.adjusts, x, maximum); });
  const float sum = exponentiate<T>(c, looked, c.adjusts.is_ldam ? 0.0f : maximum);
  const outcome o = finish_row(c, s, role.weight, label_x, maximum, sum, role.cls);
  return conclude_row_of_lanes<true>(
      c, l, t, r, row, role.cls, o.loss, [&] { scale_row<T>(c, r, o, is_skipped); },
      [&] { return finished_derivative<T>(c, o, -o.derivative); });
}

/** Blocks of a multiprocessor, if so many are wanted. From sm_120 on its shared memory is enough for two, whose
 *  registers do not spill. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
constexpr int staged_blocks(int) { return 2; }
#else
constexpr int staged_blocks(int wanted) { return wanted; }
#endif

template <typename T>
__global__ void __launch_bounds__(block_threads, staged_blocks(4)) softmax_staged(const TARE_GRID_CONSTANT call c) {
  TARE_SHARED(warp_room[block_threads / 32], rooms);
  const setting s = make_setting(c);
  staged_pass<T>(c, rooms, [&](const level &l, const tile &t, int32_t row, const staged_row &r, bool is_there) {
    return row_of_lanes<T>(c, l, t, s, row, r, is_there);
  });
}

}  // namespace softmax
}  // namespace tare

#endif
