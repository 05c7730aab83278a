/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dense targets of f32 beside logits of f32, four elements at a time: all 0, or any. What is neither 0 nor 1 takes the
 * formula of soft targets; the others take that of labels. A warp pays for a formula where one of its elements needs
 * it.
 */
#ifndef TARE_CUDA_SIGMOID_DENSE_CUH
#define TARE_CUDA_SIGMOID_DENSE_CUH

#include "sigmoid_pieces.cuh"

namespace tare {
namespace sigmoid {

constexpr int dense_size = 4; /* elements of a piece, a vector of f32 */

/** Four dense targets of a level of lean_zeros, as they stand. Returns whether all are 0 or -0. */
__device__ __forceinline__ bool load_targets(const level &l, const tile &t, int32_t at, float (&target)[dense_size]) {
  const float *const from = static_cast<const float *>(l.view.array[TARE_ARRAY_TARGETS].data);
  const uint4 bits = __ldg(reinterpret_cast<const uint4 *>(from + t.offset[TARE_ARRAY_TARGETS] + at));
  target[0] = __uint_as_float(bits.x), target[1] = __uint_as_float(bits.y);
  target[2] = __uint_as_float(bits.z), target[3] = __uint_as_float(bits.w);
  return ((bits.x | bits.y | bits.z | bits.w) & 0x7fffffffu) == 0;
}

/** Whether all are in [0,1], and none is -0. */
__device__ __forceinline__ bool are_within(const float (&target)[dense_size]) {
  uint32_t most = 0;
#pragma unroll
  for (int k = 0; k < dense_size; k++) most = max(most, __float_as_uint(target[k]));
  return most <= 0x3f800000u;
}

/** Whether no target of a piece of a level of lean_zeros is one that no formula takes. False where that is not seen at
 *  once: outside of [0,1] by rounding, or -0. */
__device__ __forceinline__ bool has_plain_targets(const level &l, const tile &t, int32_t at) {
  float target[dense_size];
  load_targets(l, t, at, target);
  return are_within(target);
}

/** Loss of a piece with any targets, times `shrink`, as soft_element has it. Derivatives replace the logits, which are
 *  finite in rows without a weight. Long: two formulas with the same operands. */
template <typename Loss>
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
      const exact::pair value = Loss::template hard<false>(s, x[k], hit, w.inside);
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

/** Adds the loss of a whole piece, of one row or two. The level allows it, and so do the weights of its rows:
 *  has_soft_factor. Many parameters: as flat_piece. */
template <typename Loss>
__device__ __forceinline__ void dense_piece(const call_of<Loss> &c, const level &l, const tile &t,
                                            const setting_of<Loss> &s, shared_place role, int32_t at, int32_t left,
                                            const flat_queue<cache::once, float> &queue, float *to,
                                            int32_t wants_gradient, loss_sum &sum) {
  const row_role r[2] = {load_role(role), load_role(left < dense_size ? role + sizeof(row_role) : role)};
  float target[dense_size], loss;
  const bool zeros = load_targets(l, t, at, target);
  vector<float> v = queue.vector_of_turn();
  float(&x)[dense_size] = v.at;
  if (r[0].weight == 0.0f || r[1].weight == 0.0f) { /* nothing, even of a NaN */
#pragma unroll
    for (int k = 0; k < dense_size; k++)
      if ((k < left ? r[0].weight : r[1].weight) == 0.0f) x[k] = zeros ? Loss::nothing() : 0.0f;
  }
  if (zeros) {
    loss = weighed_negatives<Loss, false>(s, weights_of_pair<Loss>(s, r, left), x);
  } else {
    if (!are_within(target)) { /* as target_at */
#pragma unroll
      for (int k = 0; k < dense_size; k++) target[k] = fminf(fmaxf(target[k], 0.0f), 1.0f);
    }
    const float weight[2] = {r[0].weight, r[1].weight};
    loss = lose_at_targets<Loss>(c, s, weight, left, target, x);
  }
  sum.add_shrunk(loss);
  if (wants_gradient) store_vector<cache::once>(to, v);
}

/** Whether weights between those of targets 0 and 1 are factors (see has_factor), and 0 only where the row's is. */
__device__ __forceinline__ bool has_soft_factor(const setting &s, float of_row) {
  const float at_0 = fabsf(of_row * s.at_0), at_1 = fabsf(of_row * s.at_1);
  return has_factor(s, 2.0f * fmaxf(at_0, at_1)) && (of_row == 0.0f || fminf(at_0, at_1) >= FLT_MIN);
}

}  // namespace sigmoid

}  // namespace tare

#endif
