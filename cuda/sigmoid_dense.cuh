/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dense targets, four elements at a time: all 0, or any. What is neither 0 nor 1 takes the formula of soft targets; the
 * others take that of labels. A warp pays for a formula where one of its elements needs it. A vector of 16 bits is two
 * such pieces, one after the other: for eight elements together registers are too few.
 */
#ifndef TARE_CUDA_SIGMOID_DENSE_CUH
#define TARE_CUDA_SIGMOID_DENSE_CUH

#include "sigmoid_pieces.cuh"

namespace tare {
namespace sigmoid {

constexpr int dense_size = 4; /* elements of a piece: 16 bytes of f32, 8 of another type */

/** 8 bytes as floats. */
template <typename T>
__device__ __forceinline__ void widen(uint2 bits, float (&x)[dense_size]) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) { /* words whose halves are the upper halves of floats */
    x[0] = __uint_as_float(bits.x << 16), x[1] = __uint_as_float(bits.x & 0xffff0000u);
    x[2] = __uint_as_float(bits.y << 16), x[3] = __uint_as_float(bits.y & 0xffff0000u);
  } else {
    T of[dense_size];
    memcpy(static_cast<void *>(of), &bits, sizeof bits);
    for (int k = 0; k < dense_size; k++) x[k] = to_float(of[k]);
  }
}

template <typename T>
__device__ __forceinline__ uint2 narrow(const float (&x)[dense_size]) {
  T of[dense_size];
  for (int k = 0; k < dense_size; k++) of[k] = from_float<T>(x[k]);
  uint2 bits;
  memcpy(&bits, static_cast<const void *>(of), sizeof bits);
  return bits;
}

/** Four dense targets of a level of lean_zeros, as they stand, beside logits of T. Returns whether all are 0 or -0. */
template <typename T>
__device__ __forceinline__ bool load_targets(const call &c, const level &l, const tile &t, int32_t at,
                                             float (&target)[dense_size]) {
  if (sizeof(T) == 4 || c.target_dtype == TARE_DTYPE_F32) {
    const uint4 bits = __ldg(reinterpret_cast<const uint4 *>(static_cast<const float *>(t.targets) + at));
    target[0] = __uint_as_float(bits.x), target[1] = __uint_as_float(bits.y);
    target[2] = __uint_as_float(bits.z), target[3] = __uint_as_float(bits.w);
  } else {
    const uint2 bits = __ldg(reinterpret_cast<const uint2 *>(static_cast<const uint16_t *>(t.targets) + at));
    if (c.target_dtype == TARE_DTYPE_BF16)
      widen<__nv_bfloat16>(bits, target);
    else
      widen<__half>(bits, target);
  }
  uint32_t any = 0;
#pragma unroll
  for (int k = 0; k < dense_size; k++) any |= __float_as_uint(target[k]);
  return (any & 0x7fffffffu) == 0;
}

/** Whether all are in [0,1], and none is -0. */
__device__ __forceinline__ bool are_within(const float (&target)[dense_size]) {
  uint32_t most = 0;
#pragma unroll
  for (int k = 0; k < dense_size; k++) most = max(most, __float_as_uint(target[k]));
  return most <= 0x3f800000u;
}

/** Whether no target of a vector of a level of lean_zeros is one that no formula takes. False where that is not seen at
 *  once: outside of [0,1] by rounding, or -0. */
template <typename T>
__device__ __forceinline__ bool has_plain_targets(const call &c, const level &l, const tile &t, int32_t at) {
  bool plain = true;
#pragma unroll
  for (int first = 0; first < vector<T>::size; first += dense_size) {
    float target[dense_size];
    load_targets<T>(c, l, t, at + first, target);
    plain = plain && are_within(target);
  }
  return plain;
}

/** Loss of a piece with any targets, times `shrink`, as soft_element has it. Derivatives replace the logits, which are
 *  finite in rows without a weight. Long: two formulas with the same operands. */
template <typename T, typename Loss>
__device__ __forceinline__ float lose_at_targets(const call_of<Loss> &c, const setting_of<Loss> &s,
                                                 const float (&weight)[2], int32_t left,
                                                 const float (&target)[dense_size], float (&x)[dense_size]) {
  bool any_soft = false, any_hard = false;
#pragma unroll
  for (int k = 0; k < dense_size; k++) {
    const bool is_hard = target[k] == 0.0f || target[k] == 1.0f;
    any_soft = any_soft || !is_hard;
    any_hard = any_hard || is_hard;
  }
  float loss[dense_size] = {}, derivative[dense_size];
  if (any_soft) {
#pragma unroll
    for (int k = 0; k < dense_size; k++) {
      const weights w =
          make_weights_of<Loss>(k < left ? weight[0] : weight[1], fmaf(target[k], s.at_1, (1.0f - target[k]) * s.at_0));
      const exact::pair value = Loss::soft(c, s, x[k], target[k], w.inside);
      loss[k] = value.loss * w.outside;
      derivative[k] = value.derivative * (w.outside * s.factor);
    }
  }
  if (any_hard) {
#pragma unroll
    for (int k = 0; k < dense_size; k++) {
      if (target[k] != 0.0f && target[k] != 1.0f) continue;
      const bool hit = target[k] == 1.0f;
      const weights w = make_weights_of<Loss>(k < left ? weight[0] : weight[1], hit ? s.at_1 : s.at_0);
      const exact::pair value = Loss::template hard<sizeof(T) == 2>(s, x[k], hit, w.inside);
      loss[k] = value.loss * w.outside;
      derivative[k] = (hit ? -value.derivative : value.derivative) * (w.outside * s.factor);
    }
  }
  if (weight[0] == 0.0f || weight[1] == 0.0f) {
#pragma unroll
    for (int k = 0; k < dense_size; k++) {
      if ((k < left ? weight[0] : weight[1]) == 0.0f) derivative[k] = 0.0f; /* and not -0 */
    }
  }
  float all = 0.0f;
#pragma unroll
  for (int k = 0; k < dense_size; k++) {
    all = fmaf(loss[k], shrink, all);
    x[k] = derivative[k];
  }
  return all;
}

/** Loss of a whole piece, times `shrink`, of one row or two. Derivatives replace the logits. The level allows it, and
 *  so do the weights of its rows: has_soft_factor. Many parameters: as flat_piece. */
template <typename T, typename Loss>
__device__ __forceinline__ float dense_loss(const call_of<Loss> &c, const level &l, const tile &t,
                                            const setting_of<Loss> &s, shared_place role, int32_t at, int32_t left,
                                            float (&x)[dense_size]) {
  const row_role r[2] = {load_role(role), load_role(role + sizeof(row_role))};
  float target[dense_size];
  const bool zeros = load_targets<T>(c, l, t, at, target);
  if (r[0].weight == 0.0f || r[1].weight == 0.0f) { /* nothing, even of a NaN */
#pragma unroll
    for (int k = 0; k < dense_size; k++)
      if ((k < left ? r[0].weight : r[1].weight) == 0.0f) x[k] = zeros ? Loss::nothing() : 0.0f;
  }
  if (zeros) return weighed_negatives<Loss, sizeof(T) == 2>(s, weights_of_pair<Loss, sizeof(T) == 4>(s, r, left), x);
  if (!are_within(target)) { /* as target_at */
#pragma unroll
    for (int k = 0; k < dense_size; k++) target[k] = fminf(fmaxf(target[k], 0.0f), 1.0f);
  }
  const float weight[2] = {r[0].weight, r[1].weight};
  return lose_at_targets<T, Loss>(c, s, weight, left, target, x);
}

/** Adds the loss of a whole vector. Many parameters: as flat_piece. */
template <typename T, typename Loss>
__device__ __forceinline__ void dense_piece(const call_of<Loss> &c, const level &l, const tile &t,
                                            const setting_of<Loss> &s, shared_place role, int32_t at, int32_t left,
                                            const flat_queue<cache::once, T> &queue, T *to, int32_t wants_gradient,
                                            loss_sum &sum) {
  if constexpr (sizeof(T) == 4) {
    vector<T> v = queue.vector_of_turn();
    sum.add_shrunk(dense_loss<T, Loss>(c, l, t, s, role, at, left, v.at));
    if (wants_gradient) store_vector<cache::once>(to, v);
  } else {
#pragma unroll 1
    for (int32_t first = 0; first < vector<T>::size; first += dense_size) {
      const shared_place half = queue.now + first * int32_t(sizeof(T));
      float x[dense_size];
      widen<T>(load_8_bytes(half), x);
      sum.add_shrunk(dense_loss<T, Loss>(c, l, t, s, role, at + first, left - first, x));
      store_8_bytes(half, narrow<T>(x));
    }
    if (wants_gradient) store_vector<cache::once>(to, queue.vector_of_turn());
  }
}

/** Whether weights between those of targets 0 and 1 are factors (see has_factor), and 0 only where the row's is. */
__device__ __forceinline__ bool has_soft_factor(const setting &s, float of_row) {
  const float at_0 = fabsf(of_row * s.at_0), at_1 = fabsf(of_row * s.at_1);
  return has_factor(s, 2.0f * fmaxf(at_0, at_1)) && (of_row == 0.0f || fminf(at_0, at_1) >= FLT_MIN);
}

}  // namespace sigmoid

}  // namespace tare

#endif
