/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Softmax rows with contiguous classes, held in registers: one read of the logits, one write of the gradient.
 *
 * `lanes` lanes share a row. It is cut into 16-byte vectors at aligned addresses. The first vector may start before the
 * row, by `phase` elements, and the last may end after it. Vector v belongs to lane v % lanes. A vector that lies
 * inside the row is moved whole, the others element by element. Nothing outside the row is touched.
 *
 * Place k of a lane's vectors holds classes that are the same modulo lanes*size, in growing order, so adding them place
 * by place, turning the places by `phase` and only then adding those up gives a sum that does not depend on the phase.
 */
#ifndef TARE_CUDA_SOFTMAX_REGISTERS_CUH
#define TARE_CUDA_SOFTMAX_REGISTERS_CUH

#include "softmax.cuh"

namespace tare {
namespace softmax {

/** A row as one of its lanes sees it: the class of its vector j's element k is first + j*lanes*size + k. */
struct row_part {
  int32_t row, n; /* n: classes, 0 where the lane has no row */
  int32_t first, phase;
};

template <int lanes, typename T>
__device__ __forceinline__ row_part make_part(const call &c, const T *from, int32_t row, bool active) {
  constexpr int size = vector<T>::size;
  row_part p;
  p.row = row;
  p.n = active ? int32_t(c.classes) : 0;
  p.phase = int32_t(reinterpret_cast<uintptr_t>(from) / sizeof(T) % size);
  p.first = int32_t(lane() % lanes) * size - p.phase;
  return p;
}

__device__ __forceinline__ bool is_inside(const row_part &p, int cls, int length) {
  return cls >= 0 && cls + length <= p.n;
}

/** Vectors that no row of this length has are not looked at; the same for all lanes. */
template <int lanes, typename T>
__device__ __forceinline__ bool is_used(const call &c, int j) {
  constexpr int size = vector<T>::size;
  return j * lanes * size < int32_t(c.classes) + size - 1;
}

template <int lanes, int vectors, typename T>
__device__ __forceinline__ void load_row(const call &c, const row_part &p, const T *from, vector<T> (&raw)[vectors]) {
  constexpr int size = vector<T>::size;
#pragma unroll
  for (int j = 0; j < vectors; j++) {
    const int cls = p.first + j * lanes * size;
    if (!is_used<lanes, T>(c, j)) {
#pragma unroll
      for (int k = 0; k < size; k++) raw[j].at[k] = from_float<T>(-INFINITY);
    } else if (is_inside(p, cls, size)) {
      raw[j] = load_vector<cache::once>(from + cls);
    } else {
#pragma unroll
      for (int k = 0; k < size; k++) raw[j].at[k] = is_inside(p, cls + k, 1) ? from[cls + k] : from_float<T>(-INFINITY);
    }
  }
}

/** To float, the label's place as if it were not there. */
template <int lanes, int vectors, bool adjusts, typename T>
__device__ __forceinline__ float widen_row(const call &c, int32_t label, const row_part &p,
                                           const vector<T> (&raw)[vectors], float (&x)[vectors * vector<T>::size]) {
  constexpr int size = vector<T>::size;
  const int at = label < 0 ? -1 : label - p.first;
  float maximum = -INFINITY;
#pragma unroll
  for (int j = 0; j < vectors; j++)
#pragma unroll
    for (int k = 0; k < size; k++) {
      const int cls = p.first + j * lanes * size + k;
      float logit = to_float(raw[j].at[k]);
      if (adjusts && is_inside(p, cls, 1)) logit = adjust(c.adjusts, label, cls, logit);
      x[j * size + k] = at == j * lanes * size + k ? -INFINITY : logit;
      maximum = fmaxf(maximum, x[j * size + k]);
    }
  return warp_max<lanes>(maximum);
}

/** The places of a row's lanes as one ring, turned by `phase`. */
template <int lanes, int size>
__device__ __forceinline__ void turn(float (&place)[size], int phase) {
  const int next = int(lane() + 1) % lanes;
#pragma unroll
  for (int step = 1; step < size; step *= 2) {
    float ahead[size];
#pragma unroll
    for (int k = 0; k < size; k++)
      ahead[k] = k + step < size ? place[k + step] : __shfl_sync(full_mask, place[k + step - size], next, lanes);
#pragma unroll
    for (int k = 0; k < size; k++) place[k] = phase & step ? ahead[k] : place[k];
  }
}

/** x becomes exp(x - maximum); returns the sum. */
template <int lanes, int vectors, typename T>
__device__ __forceinline__ float exponentiate(const call &c, float maximum, const row_part &p,
                                              float (&x)[vectors * vector<T>::size]) {
  constexpr int size = vector<T>::size;
  if (maximum > FLT_MAX) {
#pragma unroll
    for (int i = 0; i < vectors * size; i++) x[i] = spare_infinity(x[i], maximum);
  }
  const float base = spare_infinity(maximum);
  float place[size];
#pragma unroll
  for (int k = 0; k < size; k++) place[k] = 0.0f;
#pragma unroll
  for (int j = 0; j < vectors; j++)
    if (is_used<lanes, T>(c, j)) {
#pragma unroll
      for (int k = 0; k < size; k++) {
        x[j * size + k] = exp_below<T>(x[j * size + k], base);
        place[k] += x[j * size + k];
      }
    }
  turn<lanes>(place, p.phase);
#pragma unroll
  for (int step = size / 2; step > 0; step /= 2)
#pragma unroll
    for (int k = 0; k < step; k++) place[k] += place[k + step];
  return warp_sum<lanes>(place[0]);
}

template <int lanes, int vectors, typename T>
__device__ __forceinline__ void store_row(const call &c, const row_part &p, const outcome &o, int32_t label, T *to,
                                          const float (&e)[vectors * vector<T>::size]) {
  constexpr int size = vector<T>::size;
  const int at = label < 0 ? -1 : label - p.first;
  const bool in_phase = int(reinterpret_cast<uintptr_t>(to) / sizeof(T) % size) == p.phase;
#pragma unroll
  for (int j = 0; j < vectors; j++) {
    if (!is_used<lanes, T>(c, j)) continue;
    const int cls = p.first + j * lanes * size;
    vector<T> v;
#pragma unroll
    for (int k = 0; k < size; k++)
      v.at[k] = from_float<T>(at == j * lanes * size + k ? -o.derivative : e[j * size + k] * o.of_e);
    if (in_phase && is_inside(p, cls, size)) {
      store_vector<cache::once>(to + cls, v);
    } else {
#pragma unroll
      for (int k = 0; k < size; k++)
        if (is_inside(p, cls + k, 1)) to[cls + k] = v.at[k];
    }
  }
}

/** Lanes without a row (active is false) take part with one of no classes. Returns the loss in the row's first lane. */
template <typename T, int lanes, int vectors>
__device__ __forceinline__ float row_in_registers(const call &c, const level &l, const tile &t, const setting &s,
                                                  int32_t row, bool active) {
  constexpr int size = vector<T>::size;
  const T *const from = logits_at<T>(l, t, row);
  const row_part p = make_part<lanes>(c, from, row, active);
  vector<T> raw[vectors];
  load_row<lanes>(c, p, from, raw);
  const row_role r = weigh_row(c, l, t, row);
  float label_x = active && r.cls >= 0 ? to_float(from[r.cls]) : 0.0f;
  if (is_adjusted(c) && active && r.cls >= 0) label_x = adjust(c.adjusts, r.cls, r.cls, label_x);
  float x[vectors * size];
  const float maximum = is_adjusted(c) ? widen_row<lanes, vectors, true>(c, r.cls, p, raw, x)
                                       : widen_row<lanes, vectors, false>(c, r.cls, p, raw, x);
  if (c.adjusts.is_ldam) {
#pragma unroll
    for (int i = 0; i < vectors * size; i++) x[i] = below_scaled(c.adjusts, x[i], maximum);
  }
  const float sum = exponentiate<lanes, vectors, T>(c, c.adjusts.is_ldam ? 0.0f : maximum, p, x);
  outcome o = finish_row(c, s, r.weight, label_x, maximum, sum, r.cls);
  if (r.weight == 0.0f) { /* zeros even over NaN */
#pragma unroll
    for (int i = 0; i < vectors * size; i++) x[i] = 0.0f;
  }
  __syncwarp(); /* all of the row has been read, should the gradient take its place */
  T *const to = gradient_at<T>(l, t, row);
  finish_derivatives<T>(c, &o, x);
  if (to) store_row<lanes, vectors>(c, p, o, r.cls, to, x);
  if (!active || lane() % lanes != 0) return 0.0f;
  store_row_loss(l, t, row, o.loss);
  report_if_invalid<true>(c, l, t, row);
  return o.loss;
}

/** Blocks of a multiprocessor that there are to be registers for; told nothing, the compiler rather spills than have
 *  one less than it likes. */
constexpr int blocks_for(int elements) { return elements > 32 ? 2 : elements > 16 ? 3 : 4; }

template <typename T, int lanes, int vectors>
__global__ void __launch_bounds__(block_threads, blocks_for(vectors *vector<T>::size))
    softmax_registers(const TARE_GRID_CONSTANT call c) {
  constexpr int together = block_threads / lanes;
  const setting s = make_setting(c);
  for_each_tile(c, c.tile_count, &level::tiles, [&](const level &l, const tile &t) {
    float sum = 0.0f;
    for (int32_t first = 0; first < t.rows; first += together) {
      const int32_t row = first + int32_t(thread_rank() / lanes);
      sum += row_in_registers<T, lanes, vectors>(c, l, t, s, row < t.rows ? row : first, row < t.rows);
    }
    return double(sum) * loss_unit;
  });
  finish_loss(c);
}

}  // namespace softmax
}  // namespace tare

#endif
