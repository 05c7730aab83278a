/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Weights of elements and alphas of classes in the kernels that most train with: is_hot. Alphas are in shared memory,
 * and weights of 0 or too large ones are looked for once a vector. Others have no registers for it: weighted_piece.
 */
#ifndef TARE_CUDA_SIGMOID_WEIGHTED_CUH
#define TARE_CUDA_SIGMOID_WEIGHTED_CUH

#include "sigmoid_pieces.cuh"

namespace tare {
namespace sigmoid {

/** element_weights in fewer instructions. */
template <typename Loss, int size>
struct hot_weights {
  float outside[size], derivative[size], inside[size];

  /** Of two rows. They seldom differ, but to ask pays with long vectors alone. */
  __device__ __forceinline__ hot_weights(const row_role (&r)[2], int32_t left) {
#pragma unroll
    for (int k = 0; k < size; k++) outside[k] = size > 4 || k == 0 || k < left ? r[0].weight : r[1].weight;
    if (size > 4 && r[0].weight != r[1].weight) {
#pragma unroll
      for (int k = 0; k < size; k++)
        if (k >= left) outside[k] = r[1].weight;
    }
  }
  __device__ __forceinline__ void multiply(const float *by_element) { multiply_by_elements(outside, by_element); }
  /** Comes after the weights of elements. alpha(k): of element k, where its target is 0. */
  template <typename Alpha>
  __device__ __forceinline__ void take_alpha(Alpha &&alpha) {
#pragma unroll
    for (int k = 0; k < size; k++) {
      inside[k] = Loss::uses_base_weight ? alpha(k) : 1.0f;
      if (!Loss::uses_base_weight) outside[k] *= alpha(k);
    }
  }
  /** Whether all are factors: see has_factor. Logits of elements without a weight become what adds nothing. That is
   *  asked of all together, by products, and of each only where one has none, or where such a product is no float. */
  __device__ __forceinline__ bool finish(const setting_of<Loss> &s, float (&x)[size]) {
    float all = 1.0f, pairs = 0.0f; /* of what is not finite, a sum of products is not finite */
#pragma unroll
    for (int k = 0; k < size; k++) {
      derivative[k] = outside[k] * s.factor;
      all = k == 0 ? outside[k] : all * outside[k];
      if (k % 2) pairs = k == 1 ? derivative[0] * derivative[1] : fmaf(derivative[k - 1], derivative[k], pairs);
    }
    const bool plain = (fabsf(pairs) <= FLT_MAX) & (fabsf(all) > 0.0f);
    if (!plain) {
      if (!(fabsf(pairs) <= FLT_MAX)) return false;
#pragma unroll
      for (int k = 0; k < size; k++)
        if (outside[k] == 0.0f) x[k] = Loss::nothing(), derivative[k] = 0.0f; /* and not -0 */
    }
    return true;
  }
  __device__ __forceinline__ factors of(int k) const { return {inside[k], outside[k] * shrink, derivative[k]}; }
};

/** Whether a kernel goes this way. */
template <typename Loss>
constexpr bool has_alphas_in_room = Loss::is_hot && !Loss::backwards;

constexpr int32_t most_alphas = most_flat_rows * 3 / 2; /* in shared memory */

/** Whether the alphas of all classes, if they have some, are in shared memory, and once more those of the first ones:
 *  so a vector that crosses a row's end reads them as any other. */
template <int size>
__device__ __forceinline__ bool has_alphas(const call &c) {
  return c.classes <= most_alphas - (size - 1);
}

/** Brings them there, of target 0, if a level may be weighted by them. By all threads; a barrier has to follow. */
template <int size>
__device__ __forceinline__ void collect_alphas(const call &c, float *alphas) {
  const bool any = c.alpha_per_class || c.positive_weights || c.alpha == 0.0f || c.alpha_of_0 == 0.0f;
  if (!any || !has_alphas<size>(c)) return;
  const int32_t classes = int32_t(c.classes);
  for (int32_t i = int32_t(thread_rank()); i < classes + size - 1; i += block_threads)
    alphas[i] = c.alpha_per_class ? 1.0f - __ldg(c.alpha_per_class + (i < classes ? i : i - classes)) : c.alpha_of_0;
}

/** weighted_piece, `by_element`: not by alphas alone. Returns false, and does nothing, where
 *  the vector has a label or a weight that is too large to be a factor. Many parameters: as flat_piece. */
template <bool by_element, typename T, typename Loss>
__device__ __forceinline__ bool hot_weighted_piece(const call_of<Loss> &c, const level &l, const tile &t,
                                                   const setting_of<Loss> &s, float *alphas, shared_place role,
                                                   int32_t at, int32_t cls, int32_t way,
                                                   const flat_queue<cache::once, T> &queue, T *to,
                                                   int32_t wants_gradient, loss_sum &sum) {
  constexpr int size = vector<T>::size;
  const int32_t left = int32_t(c.classes) - cls;
  const row_role r[2] = {load_role(role), load_role(role + sizeof(row_role))};
  if (uint32_t(r[0].cls - cls) < uint32_t(size) || uint32_t(r[1].cls) < uint32_t(max(size - left, 0))) return false;
  hot_weights<Loss, size> w(r, left);
  if (by_element) w.multiply(t.element_weights + at);
  if (by_element && way == lean_elements) {
    w.take_alpha([&](int) { return s.at_0; });
#pragma unroll
    for (int k = 0; k < size; k++) w.outside[k] = in_register(w.outside[k]);
  } else if (has_alphas<size>(c)) {
    const shared_place from = place_in_shared(alphas) + uint32_t(cls) * uint32_t(sizeof(float));
    w.take_alpha([&](int k) { return load_4_bytes(from + uint32_t(k) * uint32_t(sizeof(float))); });
  } else { /* of many classes, so that few vectors end a row */
    if (left < size) return false;
    w.take_alpha([&](int k) { return c.alpha_per_class ? 1.0f - __ldg(c.alpha_per_class + cls + k) : s.at_0; });
  }
  float x[size];
  widen(queue.vector_of_turn(), x);
  if (!w.finish(s, x)) return false;
  sum.add_shrunk(weighed_negatives<Loss, sizeof(T) == 2>(s, w, x));
  if (wants_gradient) store_floats<cache::once>(to, x);
  return true;
}

}  // namespace sigmoid

}  // namespace tare

#endif
