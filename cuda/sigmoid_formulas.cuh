/* SPDX-License-Identifier: Apache-2.0 */
/* The formulas of the list as the kernels of the sigmoid family take them: without and with scores. */
#ifndef TARE_CUDA_SIGMOID_FORMULAS_CUH
#define TARE_CUDA_SIGMOID_FORMULAS_CUH

#include "losses.cuh"
#include "primitives.cuh"

namespace tare {
namespace sigmoid {

/** Numbers that all elements share, in registers. */
struct setting {
  exact::formula_parameters parameters;
  float factor;     /* of the gradient */
  float at_0, at_1; /* alpha_t of targets 0 and 1, where no class has its own */
  bool by_class;    /* alpha or positive weights of each class */
  int32_t power;
};

__device__ __forceinline__ setting make_common_setting(const call &c) {
  setting s;
  s.parameters = {c.gamma_hi, c.gamma_lo, c.epsilon};
  s.factor = gradient_factor_of(c);
  s.at_0 = c.has_alpha ? c.alpha_of_0 : 1.0f;
  s.at_1 = c.has_alpha ? c.alpha : 1.0f;
  s.by_class = c.alpha_per_class || c.positive_weights;
  s.power = c.power;
  return s;
}

/** The formulas of a loss. What losses/formulas.h says of their parameters holds. */
template <typename Loss>
struct formula;

#define FORMULA_OF_SIGMOID(KIND, name)                                                                               \
  template <>                                                                                                        \
  struct formula<losses::KIND> {                                                                                     \
    __device__ __forceinline__ static exact::pair hard(float z, float weight, float base,                            \
                                                       const exact::formula_parameters *parameters, int power) {     \
      return exact::name(z, weight, base, parameters, power);                                                        \
    }                                                                                                                \
    __device__ __forceinline__ static exact::pair positive(float z, float weight, float base,                        \
                                                           const exact::formula_parameters *parameters, int power) { \
      return exact::name##_positive(z, weight, base, parameters, power);                                             \
    }                                                                                                                \
    __device__ __forceinline__ static approximate::pair rough(float z, float weight, float base,                     \
                                                              const approximate::formula_parameters *parameters,     \
                                                              int power) {                                           \
      return approximate::name(z, weight, base, parameters, power);                                                  \
    }                                                                                                                \
    __device__ __forceinline__ static exact::pair soft(float x, float target, float weight, float base,              \
                                                       const exact::formula_parameters *parameters, int power) {     \
      return exact::name##_soft(x, target, weight, base, parameters, power);                                         \
    }                                                                                                                \
  };
#define FORMULA_OF_SOFTMAX(KIND, name)
#define FORMULA_OF_REGRESSION(KIND, name)
#define TARE_LOSS(KIND, name, text, FAMILY, ...) FORMULA_OF_##FAMILY(KIND, name)
#include "losses/losses.def"
#undef TARE_LOSS
#undef FORMULA_OF_SIGMOID
#undef FORMULA_OF_SOFTMAX
#undef FORMULA_OF_REGRESSION

/** Stands for all losses that share negatives. */
struct sharing_losses {
  static constexpr bool alpha_is_part = false;
};

/** A loss whose labels have scores, or a formula of their own; or all losses that share negatives: then the formula of a
 *  target above 0 is looked up. */
template <typename Of>
struct score_pass {
  static_assert(!Of::alpha_is_part, "no kernel has scores and an alpha that weighs a part of the loss");
  using call_type = call;
  using setting_type = setting;
  static constexpr bool is_shared = std::is_same_v<Of, sharing_losses>;
  using negatives = formula<std::conditional_t<is_shared, losses::SIGMOID_VARIFOCAL, Of>>;
  static constexpr bool uses_base_weight = false, backwards = false, scored = true, is_hot = false;

  template <typename Loss>
  static constexpr bool computes = is_shared ? shares_negatives<Loss> : std::is_same_v<Loss, Of>;

  __device__ __forceinline__ static bool has_lean_way(const setting &) { return true; }
  __device__ __forceinline__ static setting make(const call &c) {
    setting s = make_common_setting(c);
    s.parameters.derivative_gamma = c.derivative_gamma;
    return s;
  }
  __device__ __forceinline__ static int power_of(const setting &s) { return s.power; }

  template <bool rough>
  __device__ __forceinline__ static exact::pair negative(const setting &s, float x, float weight, int power) {
    if (!rough) return negatives::hard(-x, weight, 1.0f, &s.parameters, power);
    const approximate::formula_parameters parameters = {s.parameters.gamma_hi, s.parameters.gamma_lo,
                                                        s.parameters.epsilon, s.parameters.derivative_gamma};
    const approximate::pair value = negatives::rough(-x, weight, 1.0f, &parameters, power);
    return {value.loss, value.derivative};
  }

  /** An element with any target, with the derivative by x. The derivative of a target of 0 may be rough. The loss never is. */
  template <bool rough>
  __device__ __forceinline__ static exact::pair at_target(const call &c, const setting &s, float x, float target) {
    if (target == 0.0f) {
      exact::pair value = negative<false>(s, x, 1.0f, s.power);
      if (rough) value.derivative = negative<true>(s, x, 1.0f, s.power).derivative;
      return value;
    }
    switch (c.kind) {
#define FORMULA_OF_SIGMOID(KIND)                                                      \
  case losses::KIND::kind:                                                            \
    if constexpr (computes<losses::KIND>) return above_0<losses::KIND>(s, x, target); \
    break;
#define FORMULA_OF_SOFTMAX(KIND)
#define FORMULA_OF_REGRESSION(KIND)
#define TARE_LOSS(KIND, name, text, FAMILY, ...) FORMULA_OF_##FAMILY(KIND)
#include "losses/losses.def"
#undef TARE_LOSS
#undef FORMULA_OF_SIGMOID
#undef FORMULA_OF_SOFTMAX
#undef FORMULA_OF_REGRESSION
      default:
        break;
    }
    return {NAN, NAN}; /* launch_type lets no other kind through */
  }

  template <typename Loss>
  __device__ __forceinline__ static exact::pair above_0(const setting &s, float x, float target) {
    if (target != 1.0f) return formula<Loss>::soft(x, target, 1.0f, 1.0f, &s.parameters, s.power);
    const exact::pair value = formula<Loss>::positive(x, 1.0f, 1.0f, &s.parameters, s.power);
    return {value.loss, -value.derivative};
  }
};

template <typename Loss>
using score_pass_of = score_pass<std::conditional_t<shares_negatives<Loss>, sharing_losses, Loss>>;

/** A loss that is evaluated in one pass, with the power as a constant (TARE_POWER_2), or looked up at run time (-1).
 *  `weight` is alpha where the formula has a part without it, and 1 elsewhere. */
template <typename Loss, int fixed_power>
struct one_pass {
  using call_type = call;
  using setting_type = setting;
  static constexpr bool uses_base_weight = Loss::alpha_is_part, backwards = false, scored = false;
  static constexpr bool is_hot = fixed_power >= 0 && fixed_power == hot_power<Loss>;
  static constexpr bool goes_by_score_rows = Loss::takes_scores; /* whose kernel for rows serves it too */
  using score_kernels = score_pass_of<Loss>;

  __device__ __forceinline__ static bool has_lean_way(const setting &) { return true; }
  __device__ __forceinline__ static setting make(const call &c) { return make_common_setting(c); }
  __device__ __forceinline__ static int power_of(const setting &s) { return fixed_power < 0 ? s.power : fixed_power; }

  /** An element whose target is 0; of a gradient of 16 bits, rough. At -inf it is nothing. */
  template <bool rough>
  __device__ __forceinline__ static exact::pair negative(const setting &s, float x, float weight, int power) {
    if (!rough) return formula<Loss>::hard(-x, weight, 1.0f, &s.parameters, power);
    const approximate::formula_parameters parameters = {s.parameters.gamma_hi, s.parameters.gamma_lo,
                                                        s.parameters.epsilon};
    const approximate::pair value = formula<Loss>::rough(-x, weight, 1.0f, &parameters, power);
    return {value.loss, value.derivative};
  }

  /** An element with a target of 0 or 1. The loss is never rough. */
  template <bool rough>
  __device__ __forceinline__ static exact::pair hard(const setting &s, float x, bool hit, float weight) {
    exact::pair value = formula<Loss>::hard(hit ? x : -x, weight, 1.0f, &s.parameters, power_of(s));
    if (rough && !hit) value.derivative = negative<true>(s, x, weight, power_of(s)).derivative;
    return value;
  }

  __device__ __forceinline__ static exact::pair soft(const call &, const setting &s, float x, float t, float weight) {
    return formula<Loss>::soft(x, t, weight, 1.0f, &s.parameters, power_of(s));
  }
};

template <typename Loss>
using call_of = typename Loss::call_type;
template <typename Loss>
using setting_of = typename Loss::setting_type;

}  // namespace sigmoid

}  // namespace tare

#endif
