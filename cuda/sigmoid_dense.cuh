/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dense targets four elements at a time: all 0, or any. What is neither 0 nor 1
 * takes the formula of soft targets; the others take that of labels. A warp
 * pays for a formula where one of its elements needs it.
 */
#ifndef TARE_CUDA_SIGMOID_DENSE_CUH
#define TARE_CUDA_SIGMOID_DENSE_CUH

#include "sigmoid_pieces.cuh"

namespace tare {
namespace sigmoid {

constexpr int dense_size = 4; /* elements of a piece; a vector of 16 bits has two */

/** Four dense targets of a level of lean_zeros, as they stand. Returns whether
 * all are 0 or -0. */
__device__ __forceinline__ bool load_targets(const call &c, const level &l, const tile &t, int32_t at,
                                             float (&target)[dense_size]) {
  const bool is_wide = c.target_dtype == TARE_DTYPE_F32, is_half = c.target_dtype == TARE_DTYPE_F16;
  const char *const from = static_cast<const char *>(l.view.array[TARE_ARRAY_TARGETS].data) +
                           (t.offset[TARE_ARRAY_TARGETS] + at) * (is_wide ? 4 : 2);
  if (is_wide) {
    const uint4 bits = __ldg(reinterpret_cast<const uint4 *>(from));
    target[0] = __uint_as_float(bits.x), target[1] = __uint_as_float(bits.y);
    target[2] = __uint_as_float(bits.z), target[3] = __uint_as_float(bits.w);
    return ((bits.x | bits.y | bits.z | bits.w) & 0x7fffffffu) == 0;
  }
  const uint2 bits = __ldg(reinterpret_cast<const uint2 *>(from));
  const uint32_t half[dense_size] = {bits.x & 0xffffu, bits.x >> 16, bits.y & 0xffffu, bits.y >> 16};
#pragma unroll
  for (int k = 0; k < dense_size; k++)
    target[k] = is_half ? __half2float(__ushort_as_half(uint16_t(half[k]))) : __uint_as_float(half[k] << 16);
  return ((bits.x | bits.y) & 0x7fff7fffu) == 0;
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
  bool within = true;
#pragma unroll 1
  for (int piece = 0; piece < vector<T>::size / dense_size; piece++) {
    float target[dense_size];
    load_targets(c, l, t, at + piece * dense_size, target);
    within = within && are_within(target);
  }
  return within;
}

/** The logits of a piece of this turn's vector. */
template <typename T>
__device__ __forceinline__ void load_logits(const flat_queue<cache::once, T> &queue, int piece,
                                            float (&x)[dense_size]) {
  T at[dense_size];
  if constexpr (sizeof(T) == 4) {
    const uint4 bits = load_16_bytes(queue.now);
    memcpy(static_cast<void *>(at), &bits, sizeof at);
  } else {
    const uint2 bits = load_8_bytes(queue.now + piece * 8);
    memcpy(static_cast<void *>(at), &bits, sizeof at);
  }
#pragma unroll
  for (int k = 0; k < dense_size; k++) x[k] = to_float(at[k]);
}

template <typename T>
__device__ __forceinline__ void store_gradients(T *to, const float (&x)[dense_size]) {
  T at[dense_size];
#pragma unroll
  for (int k = 0; k < dense_size; k++) at[k] = from_float<T>(x[k]);
  std::conditional_t<sizeof(T) == 4, uint4, uint2> bits;
  memcpy(&bits, static_cast<const void *>(at), sizeof bits);
  __stcs(reinterpret_cast<decltype(bits) *>(to), bits);
}

/** The losses of a piece: each by itself, so that a later one may replace it;
 * or, to save registers, their sum, which takes none that will be replaced. */
template <bool apart>
struct piece_losses {
  float at[apart ? dense_size : 1];

  __device__ __forceinline__ piece_losses() : at() {}
  __device__ __forceinline__ void put(int k, float loss, bool is_last) {
    if (apart)
      at[k] = loss;
    else
      at[0] = fmaf(is_last ? loss : 0.0f, shrink, at[0]);
  }
  __device__ __forceinline__ float sum() const {
    if (!apart) return at[0];
    float all = 0.0f;
#pragma unroll
    for (int k = 0; k < dense_size; k++) all = fmaf(at[apart ? k : 0], shrink, all);
    return all;
  }
};

/** Loss of a piece with any targets, times `shrink`, as soft_element has it. Derivatives replace the logits, which are
 *  finite in rows without a weight. */
template <typename T, typename Loss>
__device__ __forceinline__ float lose_at_targets(const call_of<Loss> &c, const setting_of<Loss> &s,
                                                 const float (&weight)[2], int32_t left,
                                                 const float (&target)[dense_size], float (&x)[dense_size]) {
  constexpr bool apart = sizeof(T) == 4;
  bool any_soft = false, any_hard = false;
#pragma unroll
  for (int k = 0; k < dense_size; k++) {
    const bool is_hard = target[k] == 0.0f || target[k] == 1.0f;
    any_soft = any_soft || !is_hard;
    any_hard = any_hard || is_hard;
  }
  piece_losses<apart> losses;
  float derivative[dense_size];
  if (any_soft) {
#pragma unroll
    for (int k = 0; k < dense_size; k++) {
      const weights w =
          make_weights_of<Loss>(k < left ? weight[0] : weight[1], fmaf(target[k], s.at_1, (1.0f - target[k]) * s.at_0));
      const exact::pair value = Loss::soft(c, s, x[k], target[k], w.inside);
      losses.put(k, value.loss * w.outside, target[k] != 0.0f && target[k] != 1.0f);
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
      losses.put(k, value.loss * w.outside, true);
      derivative[k] = (hit ? -value.derivative : value.derivative) * (w.outside * s.factor);
    }
  }
  if (weight[0] == 0.0f || weight[1] == 0.0f) {
#pragma unroll
    for (int k = 0; k < dense_size; k++) {
      if ((k < left ? weight[0] : weight[1]) == 0.0f) derivative[k] = 0.0f; /* and not -0 */
    }
  }
#pragma unroll
  for (int k = 0; k < dense_size; k++) x[k] = derivative[k];
  return losses.sum();
}

/** Adds the loss of a whole vector with dense targets, of one row or two. The level allows it, and so do the weights of
 *  its rows: has_soft_factor. Many parameters: as flat_piece. */
template <typename T, typename Loss>
__device__ __forceinline__ void dense_piece(const call_of<Loss> &c, const level &l, const tile &t,
                                            const setting_of<Loss> &s, shared_place role, int32_t at, int32_t left,
                                            const flat_queue<cache::once, T> &queue, T *to, int32_t wants_gradient,
                                            loss_sum &sum) {
  const row_role r[2] = {load_role(role), load_role(left < vector<T>::size ? role + sizeof(row_role) : role)};
#pragma unroll 1
  for (int piece = 0; piece < vector<T>::size / dense_size; piece++) {
    float x[dense_size], target[dense_size];
    const bool zeros = load_targets(c, l, t, at + piece * dense_size, target);
    const int32_t of_first = left - piece * dense_size;
    load_logits<T>(queue, piece, x);
    float loss;
    if (r[0].weight == 0.0f || r[1].weight == 0.0f) { /* nothing, even of a NaN */
#pragma unroll
      for (int k = 0; k < dense_size; k++)
        if ((k < of_first ? r[0].weight : r[1].weight) == 0.0f) x[k] = zeros ? Loss::nothing() : 0.0f;
    }
    if (zeros) {
      loss = weighed_negatives<Loss, sizeof(T) == 2>(s, weights_of_pair<Loss>(s, r, of_first), x);
    } else {
      if (!are_within(target)) { /* as target_at */
#pragma unroll
        for (int k = 0; k < dense_size; k++) target[k] = fminf(fmaxf(target[k], 0.0f), 1.0f);
      }
      const float weight[2] = {r[0].weight, r[1].weight};
      loss = lose_at_targets<T, Loss>(c, s, weight, of_first, target, x);
    }
    sum.add_shrunk(loss);
    if (wants_gradient) store_gradients(to + piece * dense_size, x);
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
