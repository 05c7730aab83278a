/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loss and gradient of a vector of elements whose targets are 0, without choices: of one row, of a row each, or with
 * weights of their own. Rows and levels that cannot go this lean way are told here.
 */
#ifndef TARE_CUDA_SIGMOID_NEGATIVES_CUH
#define TARE_CUDA_SIGMOID_NEGATIVES_CUH

#include "sigmoid_elements.cuh"

namespace tare {
namespace sigmoid {

/** Whether a row's elements can go the lean way. */
template <typename Loss>
__device__ __forceinline__ bool is_lean(const setting_of<Loss> &s, float of_row) {
  if (Loss::scored && !has_factor(s, of_row * s.at_1)) return false;
  return Loss::has_lean_way(s) && has_factor(s, of_row * (Loss::uses_base_weight ? 1.0f : s.at_0));
}

/** Loss and gradient of a label's element, of a loss without scores. */
template <typename Loss>
__device__ __forceinline__ exact::pair label_element(const setting_of<Loss> &s, row_role r, float x) {
  const weights w = make_weights_of<Loss>(r.weight, s.at_1);
  const exact::pair value = Loss::template hard<false>(s, x, true, w.inside);
  return {value.loss * w.outside, -value.derivative * (w.outside * s.factor)};
}

/** Calls use(power) with the power as a constant: one choice for a whole vector. */
template <typename Loss, typename Use>
__device__ __forceinline__ auto with_power_of(const setting_of<Loss> &s, Use &&use)
    -> decltype(use(std::integral_constant<int, TARE_POWER_0>())) {
  switch (Loss::power_of(s)) {
    case TARE_POWER_0:
      return use(std::integral_constant<int, TARE_POWER_0>());
    case TARE_POWER_1:
      return use(std::integral_constant<int, TARE_POWER_1>());
    case TARE_POWER_2:
      return use(std::integral_constant<int, TARE_POWER_2>());
    case TARE_POWER_HALF:
      return use(std::integral_constant<int, TARE_POWER_HALF>());
    case TARE_POWER_3_HALVES:
      return use(std::integral_constant<int, TARE_POWER_3_HALVES>());
    default:
      return use(std::integral_constant<int, TARE_POWER_GENERAL>());
  }
}

/** Loss of a vector of GHM's negatives of one row times `shrink`, which their densities have. Derivatives replace the
 *  logits. */
template <typename Loss, bool rough, int source, int size>
__device__ __forceinline__ float negatives_by_density(const setting_of<Loss> &s, float of_row, float (&x)[size]) {
  float sum = 0.0f;
#pragma unroll
  for (int k = 0; k < size; k++) {
    const auto of = Loss::template parts_of_negative<rough>(s, x[k], source);
    sum = fmaf(of.density, of.loss, sum);
    x[k] = of.density * of.norm * (of_row * s.at_0 * s.factor);
  }
  return sum * of_row;
}

/** Loss of a vector of negatives times `shrink`; they are of one row, or each of its own. Derivatives replace the
 *  logits. */
template <typename Loss, bool rough, int power, int rows, int size>
__device__ __forceinline__ float negatives_to_power(const setting_of<Loss> &s, const row_role (&row)[rows],
                                                    float (&x)[size]) {
  const float shared = Loss::uses_base_weight ? 1.0f : s.at_0;
  float sum = 0.0f;
#pragma unroll
  for (int k = 0; k < size; k++) {
    const float own = row[rows == 1 ? 0 : k].weight;
    const exact::pair value = Loss::template negative<rough>(s, x[k], Loss::uses_base_weight ? s.at_0 : 1.0f, power);
    sum = rows == 1 ? fmaf(value.loss, shrink, sum) : fmaf(own * shrink, value.loss, sum);
    x[k] = value.derivative * (own * shared * s.factor);
  }
  return (rows == 1 ? sum * row[0].weight : sum) * shared;
}

template <typename Loss, bool rough, int rows, int size>
__device__ __forceinline__ float negatives(const setting_of<Loss> &s, const row_role (&row)[rows], float (&x)[size]) {
  return with_power_of<Loss>(s, [&](auto power) {
    if constexpr (Loss::backwards && rows == 1)
      return negatives_by_density<Loss, rough, decltype(power)::value>(s, row[0].weight, x);
    else
      return negatives_to_power<Loss, rough, decltype(power)::value>(s, row, x);
  });
}

/** An element of a row whose other weights the level does not have: its loss exact, and its gradient as written. */
template <typename T, typename Loss>
__device__ __forceinline__ exact::pair negative_of_row(const setting_of<Loss> &s, row_role r, float x) {
  if (r.weight == 0.0f) return {0.0f, 0.0f}; /* even of a NaN */
  const weights w = make_weights_of<Loss>(r.weight, s.at_0);
  const exact::pair value = with_power_of<Loss>(s, [&](auto power) {
    constexpr int constant = decltype(power)::value;
    exact::pair found = Loss::template negative<false>(s, x, w.inside, constant);
    if (sizeof(T) == 2) found.derivative = Loss::template negative<true>(s, x, w.inside, constant).derivative;
    return found;
  });
  return {value.loss * w.outside, value.derivative * (w.outside * s.factor)};
}

/** What an element's results are multiplied by: the formula gets `inside`, the loss is shrunk. */
struct factors {
  float inside, loss, derivative;
};

/** The factors of the elements of two rows, `left` of them of the first. `has_first`: at least one. Vectors of eight
 *  have no register for that knowledge. */
template <typename Loss, bool has_first>
struct weights_of_pair {
  float inside, loss[2], derivative[2];
  int32_t left;

  __device__ __forceinline__ weights_of_pair(const setting_of<Loss> &s, const row_role (&r)[2], int32_t of_first)
      : inside(Loss::uses_base_weight ? s.at_0 : 1.0f), left(of_first) {
    const float shared = Loss::uses_base_weight ? 1.0f : s.at_0;
#pragma unroll
    for (int i = 0; i < 2; i++) {
      loss[i] = r[i].weight * shared * shrink;
      derivative[i] = r[i].weight == 0.0f ? 0.0f : r[i].weight * shared * s.factor; /* 0, and not -0 */
    }
  }
  __device__ __forceinline__ factors of(int k) const {
    const bool first = (k == 0 && has_first) || k < left;
    return {inside, first ? loss[0] : loss[1], first ? derivative[0] : derivative[1]};
  }
};

/** The factors of elements of a row each. */
template <typename Loss, int size>
struct weights_of_rows {
  float own[size], inside, shared, factor;

  __device__ __forceinline__ explicit weights_of_rows(const setting_of<Loss> &s)
      : inside(Loss::uses_base_weight ? s.at_0 : 1.0f),
        shared(Loss::uses_base_weight ? 1.0f : s.at_0),
        factor(s.factor) {}
  __device__ __forceinline__ factors of(int k) const {
    return {inside, own[k] * shared * shrink, own[k] == 0.0f ? 0.0f : own[k] * shared * factor};
  }
};

/** Factors of a vector's elements, times the weights of these, 16 bytes at a time. */
template <int size>
__device__ __forceinline__ void multiply_by_elements(float (&outside)[size], const float *by_element) {
#pragma unroll
  for (int k = 0; k < size; k += 4) {
    const vector<float> v = load_vector<cache::read_only>(by_element + k);
#pragma unroll
    for (int i = 0; i < 4; i++) outside[k + i] *= v.at[i];
  }
}

/** The factors of elements with weights of their own: as weigh() forms them. */
template <typename Loss, int size>
struct element_weights {
  float outside[size], derivative[size], inside[size];

  /** Of two rows, and of the classes from `cls` on: alpha. */
  __device__ __forceinline__ element_weights(const call_of<Loss> &c, const setting_of<Loss> &s, const row_role (&r)[2],
                                             int32_t left, int32_t cls) {
#pragma unroll
    for (int k = 0; k < size; k++) {
      outside[k] = k < left ? r[0].weight : r[1].weight;
      inside[k] = s.at_0;
      if (c.alpha_per_class) inside[k] = 1.0f - __ldg(c.alpha_per_class + (k < left ? cls + k : k - left));
    }
  }
  __device__ __forceinline__ void multiply(const float *by_element) { multiply_by_elements(outside, by_element); }
  /** Whether all are factors: see has_factor. */
  __device__ __forceinline__ bool finish(const setting_of<Loss> &s) {
    float none = 0.0f; /* what is not finite, times 0, is NaN */
#pragma unroll
    for (int k = 0; k < size; k++) {
      if (!Loss::uses_base_weight) outside[k] *= inside[k], inside[k] = 1.0f;
      derivative[k] = outside[k] == 0.0f ? 0.0f : outside[k] * s.factor;
      none = fmaf(derivative[k], 0.0f, none);
    }
    return none == 0.0f;
  }
  __device__ __forceinline__ factors of(int k) const { return {inside[k], outside[k] * shrink, derivative[k]}; }
};

/** Loss of a vector of negatives with factors of their own. Derivatives replace the logits. */
template <typename Loss, bool rough, typename Weights, int size>
__device__ __forceinline__ float weighed_negatives(const setting_of<Loss> &s, const Weights &weights,
                                                   float (&x)[size]) {
  return with_power_of<Loss>(s, [&](auto power) {
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < size; k++) {
      const factors f = weights.of(k);
      const exact::pair value = Loss::template negative<rough>(s, x[k], f.inside, decltype(power)::value);
      sum = fmaf(f.loss, value.loss, sum);
      x[k] = value.derivative * f.derivative;
    }
    return sum;
  });
}

}  // namespace sigmoid

}  // namespace tare

#endif
