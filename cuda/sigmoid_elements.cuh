/* SPDX-License-Identifier: Apache-2.0 */
/* One element of the sigmoid family: its weight, its target, its loss and gradient; and what a row is to it. */
#ifndef TARE_CUDA_SIGMOID_ELEMENTS_CUH
#define TARE_CUDA_SIGMOID_ELEMENTS_CUH

#include "sigmoid_formulas.cuh"

namespace tare {
namespace sigmoid {

/** The weight at a dense target: exactly at_0 at t = 0 and at_1 at t = 1, between them linear. Nothing cancels. */
__device__ __forceinline__ float weight_between(float target, float at_0, float at_1) {
  const float mixed = fmaf(target, at_1, (1.0f - target) * at_0);
  return target == 0.0f ? at_0 : target == 1.0f ? at_1 : mixed;
}

/** The weight of an element: the formula gets `inside`, and its results are multiplied by `outside`. */
struct weights {
  float inside, outside;
};

template <typename Loss>
__device__ __forceinline__ weights make_weights_of(float base, float alpha) {
  return Loss::uses_base_weight ? weights{alpha, base} : weights{1.0f, base * alpha};
}

/** Weights of element (row, cls). Many parameters: as element(), and the targets of loss and alpha differ. */
template <typename Loss>
__device__ __forceinline__ weights weigh(const call &c, const level &l, const tile &t, const setting &s, float of_row,
                                         int32_t row, int64_t cls, float target, float target_of_alpha) {
  float base = of_row, at_0 = s.at_0, at_1 = s.at_1;
  if (l.view.array[TARE_ARRAY_ELEMENT_WEIGHTS].data)
    base *= __ldg(static_cast<const float *>(l.view.array[TARE_ARRAY_ELEMENT_WEIGHTS].data) +
                  place(l, t, TARE_ARRAY_ELEMENT_WEIGHTS, row, cls));
  if (s.by_class) {
    if (c.positive_weights)
      base *= weight_between(c.has_peaks && target < 1.0f ? 0.0f : target, 1.0f, __ldg(c.positive_weights + cls));
    if (c.alpha_per_class) at_1 = __ldg(c.alpha_per_class + cls), at_0 = 1.0f - at_1; /* of a float: rounded once */
  }
  return make_weights_of<Loss>(base, weight_between(target_of_alpha, at_0, at_1));
}

/** Whether weight times factor is a float, so that no derivative of 0 becomes NaN by it. */
__device__ __forceinline__ bool has_factor(const setting &s, float weight) {
  return is_ordinary(s.factor) && fabsf(weight * s.factor) <= FLT_MAX;
}

/** Loss and gradient of an element from its unweighted ones; 0 and 0 where its weight is 0, whatever they are. A
 *  derivative of 0 stays 0 under any weight and factor. */
template <typename T>
__device__ __forceinline__ exact::pair weighted(const call &c, const setting &s, float loss, float derivative,
                                                float weight) {
  if (weight == 0.0f) return {0.0f, 0.0f};
  if (!has_factor(s, weight)) return {loss * weight, rescaled<T>(c, derivative, weight)};
  return {loss * weight, derivative * (weight * s.factor)};
}

/** An element whose target is 1 (`hit`) or 0. Its gradient is the same, bit for bit, as in the lean walks. */
template <typename T, typename Loss>
__device__ __forceinline__ exact::pair hard_element(const call_of<Loss> &c, const setting_of<Loss> &s, float x,
                                                    bool hit, weights w) {
  const exact::pair value = Loss::template hard<sizeof(T) == 2>(s, x, hit, w.inside);
  return weighted<T>(c, s, value.loss, hit ? -value.derivative : value.derivative, w.outside);
}

template <typename T, typename Loss>
__device__ __forceinline__ exact::pair soft_element(const call_of<Loss> &c, const setting_of<Loss> &s, float x,
                                                    float target, weights w) {
  if (target == 0.0f || target == 1.0f) return hard_element<T, Loss>(c, s, x, target == 1.0f, w);
  const exact::pair value = Loss::soft(c, s, x, target, w.inside);
  return weighted<T>(c, s, value.loss, value.derivative, w.outside);
}

/** Whether a target is a negative's. `is_label`: it is a score. */
__device__ __forceinline__ bool is_negative(const call &c, float target, bool is_label) {
  return target == 0.0f && (!is_label || c.negative_at_0);
}

/** The target that alpha depends on. */
__device__ __forceinline__ float target_of_alpha(const call &c, float target, bool is_label) {
  if (!c.alpha_of_negatives) return is_label ? 1.0f : target;
  return is_negative(c, target, is_label) ? 0.0f : 1.0f;
}

/** A score in [0,1]. */
__device__ __forceinline__ float clamped_score(const call &c, const level &l, const tile &t, int32_t row) {
  return fminf(fmaxf(score_at(c, l, t, row), 0.0f), 1.0f); /* NaN becomes 0 */
}

/** An element of a score_pass: a label's target is its score, but it weighs as a label. Many parameters: element(). */
template <typename T, typename Loss>
__device__ __forceinline__ exact::pair scored_element(const call &c, const level &l, const tile &t, const setting &s,
                                                      row_role r, int32_t row, int64_t cls, float x, bool soft) {
  const bool hit = !soft && cls == r.cls;
  const float target = soft ? target_at(c, l, t, row, cls) : hit ? clamped_score(c, l, t, row) : 0.0f;
  const weights w = weigh<Loss>(c, l, t, s, r.weight, row, cls, hit ? 1.0f : target, target_of_alpha(c, target, hit));
  const exact::pair value = Loss::template at_target<sizeof(T) == 2>(c, s, x, target, is_negative(c, target, hit));
  return weighted<T>(c, s, value.loss, value.derivative, w.outside);
}

/** An element of a score_pass whose row has another class, or none. Many parameters: as element(). */
template <typename T, typename Loss>
__device__ __forceinline__ exact::pair element_off_label(const call &c, const level &l, const tile &t, const setting &s,
                                                         row_role r, int32_t row, int64_t cls, float x) {
  const weights w = weigh<Loss>(c, l, t, s, r.weight, row, cls, 0.0f, 0.0f);
  const exact::pair value = Loss::template negative_of_any_power<sizeof(T) == 2>(s, x);
  return weighted<T>(c, s, value.loss, value.derivative, w.outside);
}

/** Loss and gradient of element (row, cls) of a tile; `soft`: its target is dense, as in call. Many parameters: an
 *  element is named by level, tile, row and class, and its logit, role and settings are in registers. */
template <typename T, typename Loss>
__device__ __forceinline__ exact::pair element(const call_of<Loss> &c, const level &l, const tile &t,
                                               const setting_of<Loss> &s, row_role r, int32_t row, int64_t cls, float x,
                                               bool soft) {
  if constexpr (Loss::scored) {
    return scored_element<T, Loss>(c, l, t, s, r, row, cls, x, soft);
  } else {
    if (soft) {
      const float target = target_at(c, l, t, row, cls);
      return soft_element<T, Loss>(c, s, x, target, weigh<Loss>(c, l, t, s, r.weight, row, cls, target, target));
    }
    const bool hit = cls == r.cls;
    const float target = hit ? 1.0f : 0.0f;
    return hard_element<T, Loss>(c, s, x, hit, weigh<Loss>(c, l, t, s, r.weight, row, cls, target, target));
  }
}

__device__ __forceinline__ void store_element_loss(const level &l, const tile &t, int32_t row, int64_t cls,
                                                   float loss) {
  const tare_array &a = l.view.array[TARE_ARRAY_ELEMENT_LOSS];
  if (a.data) static_cast<float *>(a.data)[place(l, t, TARE_ARRAY_ELEMENT_LOSS, row, cls)] = loss;
}

/** A row as its label and, in a score_pass, its score make it. */
template <typename Loss>
__device__ __forceinline__ row_role look_at_scored_row(const call &c, const level &l, const tile &t, int32_t row,
                                                       bool reports) {
  const row_role r = look_at_row(c, l, t, row);
  if (!Loss::scored || r.weight == 0.0f || !has_invalid_score(c, l, t, r, row)) return r;
  if (reports) report_target(c, l, t, row);
  return {row_skipped, 0.0f};
}

/** A row, looked at by a warp. */
__device__ __forceinline__ row_role look_at_row_of_warp(const call &c, const level &l, const tile &t, int32_t row,
                                                        bool soft, bool reports) {
  const row_role r = look_at_row(c, l, t, row);
  if (!soft || r.weight == 0.0f || !has_invalid_target(c, l, t, row)) return r;
  if (reports && lane() == 0) report_target(c, l, t, row);
  return {row_skipped, 0.0f};
}

template <typename T>
__device__ __forceinline__ const T *logits_of(const level &l, const tile &t) {
  return static_cast<const T *>(l.view.array[TARE_ARRAY_LOGITS].data) + t.offset[TARE_ARRAY_LOGITS];
}

}  // namespace sigmoid

}  // namespace tare

#endif
