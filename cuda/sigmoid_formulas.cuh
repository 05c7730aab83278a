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
  int32_t power, shape;
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

/** With the parameters of losses with scores. The other losses' kernels do without them. */
__device__ __forceinline__ setting make_score_setting(const call &c) {
  setting s = make_common_setting(c);
  s.parameters.derivative_gamma = c.derivative_gamma;
  s.parameters.p_hi = c.p_hi, s.parameters.p_lo = c.p_lo;
  s.parameters.rest_hi = c.rest_hi, s.parameters.rest_lo = c.rest_lo;
  s.parameters.label_gamma_hi = c.label_gamma_hi, s.parameters.label_gamma_lo = c.label_gamma_lo;
  return s;
}

/** With the parameters of the shapes. */
__device__ __forceinline__ setting make_shape_setting(const call &c) {
  setting s = make_score_setting(c);
  s.shape = c.shape;
  s.parameters.smoothed = c.smoothed, s.parameters.unsmoothed = c.unsmoothed;
  s.parameters.label_derivative_gamma = c.label_derivative_gamma;
  s.parameters.margin = c.margin, s.parameters.margin_rest = c.margin_rest;
  s.parameters.margin_logit = c.margin_logit, s.parameters.margin_logit_lo = c.margin_logit_lo;
  s.parameters.threshold = c.threshold, s.parameters.log_threshold = c.log_threshold;
  s.parameters.shift = c.shift, s.parameters.shift_lo = c.shift_lo;
  s.parameters.inverse_gamma = c.inverse_gamma;
  return s;
}

/** The formulas of a loss. What losses/formulas.h says of their parameters holds. */
template <typename Loss>
struct formula;

/** Of a loss whose labels have a formula of their own. */
#define LABEL_FORMULA(KIND, name)                                                                                 \
  template <>                                                                                                     \
  struct formula<losses::KIND> {                                                                                  \
    __device__ __forceinline__ static exact::pair label(float x, float score,                                     \
                                                        const exact::formula_parameters *parameters, int power) { \
      return exact::name##_label(x, score, 1.0f, parameters, power);                                              \
    }                                                                                                             \
  };

/** Of the others. */
#define MIRRORED_FORMULAS(KIND, name)                                                                            \
  template <>                                                                                                    \
  struct formula<losses::KIND> {                                                                                 \
    __device__ __forceinline__ static exact::pair hard(float z, float weight, float base,                        \
                                                       const exact::formula_parameters *parameters, int power) { \
      return exact::name(z, weight, base, parameters, power);                                                    \
    }                                                                                                            \
    __device__ __forceinline__ static approximate::pair rough(float z, float weight, float base,                 \
                                                              const approximate::formula_parameters *parameters, \
                                                              int power) {                                       \
      return approximate::name(z, weight, base, parameters, power);                                              \
    }                                                                                                            \
    __device__ __forceinline__ static exact::pair soft(float x, float target, float weight, float base,          \
                                                       const exact::formula_parameters *parameters, int power) { \
      return exact::name##_soft(x, target, weight, base, parameters, power);                                     \
    }                                                                                                            \
  };
#define FORMULAS_OF_WHOLE(KIND, name) MIRRORED_FORMULAS(KIND, name)
#define FORMULAS_OF_PART(KIND, name) MIRRORED_FORMULAS(KIND, name)
#define FORMULAS_OF_APART(KIND, name) LABEL_FORMULA(KIND, name)
#define FORMULAS_OF_NEGATIVES(KIND, name) LABEL_FORMULA(KIND, name)
#define FORMULAS_OF_SHAPED(KIND, name)
#define FORMULA_OF_SIGMOID(KIND, name, ALPHA) FORMULAS_OF_##ALPHA(KIND, name)
#define FORMULA_OF_SOFTMAX(KIND, name, ALPHA)
#define FORMULA_OF_REGRESSION(KIND, name, ALPHA)
#define TARE_LOSS(KIND, name, text, FAMILY, POWERS, ALPHA, ...) FORMULA_OF_##FAMILY(KIND, name, ALPHA)
#include "losses/losses.def"
#undef TARE_LOSS
#undef FORMULA_OF_SIGMOID
#undef FORMULA_OF_SOFTMAX
#undef FORMULA_OF_REGRESSION
#undef FORMULAS_OF_WHOLE
#undef FORMULAS_OF_PART
#undef FORMULAS_OF_APART
#undef FORMULAS_OF_NEGATIVES
#undef FORMULAS_OF_SHAPED
#undef LABEL_FORMULA
#undef MIRRORED_FORMULAS

/** The parameters that the shapes read, for formulas of less precision. */
__device__ __forceinline__ approximate::formula_parameters roughen(const exact::formula_parameters &from) {
  approximate::formula_parameters to = {};
  to.gamma_hi = from.gamma_hi, to.gamma_lo = from.gamma_lo;
  to.derivative_gamma = from.derivative_gamma;
  to.smoothed = from.smoothed, to.unsmoothed = from.unsmoothed;
  to.margin = from.margin, to.margin_rest = from.margin_rest;
  to.margin_logit = from.margin_logit, to.margin_logit_lo = from.margin_logit_lo;
  to.threshold = from.threshold, to.log_threshold = from.log_threshold;
  to.shift = from.shift, to.shift_lo = from.shift_lo;
  to.inverse_gamma = from.inverse_gamma;
  return to;
}

/** Stands for all losses that share negatives. */
struct sharing_losses {
  static constexpr bool alpha_is_part = false;
};

template <>
struct formula<sharing_losses> {
  __device__ __forceinline__ static exact::pair hard(float z, float weight, float base,
                                                     const exact::formula_parameters *parameters, int power) {
    return exact::scored_negative(z, weight, base, parameters, power);
  }
  __device__ __forceinline__ static approximate::pair rough(float z, float weight, float base,
                                                            const approximate::formula_parameters *parameters,
                                                            int power) {
    return approximate::scored_negative(z, weight, base, parameters, power);
  }
};

/** A loss whose labels have scores, or a formula of their own; or all losses that share negatives: then the formula of
 *  a target above 0 is looked up. */
template <typename Of>
struct score_pass {
  static_assert(!Of::alpha_is_part, "no kernel has scores and an alpha that weighs a part of the loss");
  using call_type = call;
  using setting_type = setting;
  static constexpr bool is_shared = std::is_same_v<Of, sharing_losses>;
  using negatives = formula<Of>;
  static constexpr bool uses_base_weight = false, backwards = false, scored = true, is_hot = false;

  template <typename Loss>
  static constexpr bool computes = is_shared ? shares_negatives<Loss> : std::is_same_v<Loss, Of>;

  __device__ __forceinline__ static bool has_lean_way(const setting &) { return true; }
  __device__ __forceinline__ static setting make(const call &c) { return make_score_setting(c); }
  __device__ __forceinline__ static int power_of(const setting &s) { return s.power; }
  __device__ __forceinline__ static float nothing() { return -INFINITY; } /* a logit whose element adds nothing */

  template <bool rough>
  __device__ __forceinline__ static exact::pair negative(const setting &s, float x, float weight, int power) {
    if (!rough) return negatives::hard(-x, weight, 1.0f, &s.parameters, power);
    const approximate::formula_parameters parameters = {s.parameters.gamma_hi, s.parameters.gamma_lo,
                                                        s.parameters.epsilon, s.parameters.derivative_gamma};
    const approximate::pair value = negatives::rough(-x, weight, 1.0f, &parameters, power);
    return {value.loss, value.derivative};
  }

  /** The derivative is rough, the loss never. */
  template <bool rough>
  __device__ __forceinline__ static exact::pair negative_of_any_power(const setting &s, float x) {
    exact::pair value = negative<false>(s, x, 1.0f, s.power);
    if (rough) value.derivative = negative<true>(s, x, 1.0f, s.power).derivative;
    return value;
  }

  /** Any target, by x. */
  template <bool rough>
  __device__ __forceinline__ static exact::pair at_target(const call &c, const setting &s, float x, float target,
                                                          bool is_negative) {
    if (is_negative) return negative_of_any_power<rough>(s, x);
    switch (c.kind) {
#define FORMULA_OF_SIGMOID(KIND)                                                       \
  case losses::KIND::kind:                                                             \
    if constexpr (computes<losses::KIND>) return of_label<losses::KIND>(s, x, target); \
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
  __device__ __forceinline__ static exact::pair of_label(const setting &s, float x, float target) {
    if constexpr (Loss::labels_apart) {
      return formula<Loss>::label(x, target, &s.parameters, s.power);
    } else {
      if (target != 0.0f && target != 1.0f) return formula<Loss>::soft(x, target, 1.0f, 1.0f, &s.parameters, s.power);
      const exact::pair value = formula<Loss>::hard(target == 1.0f ? x : -x, 1.0f, 1.0f, &s.parameters, s.power);
      return {value.loss, target == 1.0f ? -value.derivative : value.derivative};
    }
  }
};

/** All losses with a shape, which takes the place of a power: a vector looks it up once. */
struct shape_pass {
  static_assert(int(TARE_SHAPE_COUNT) <= int(TARE_POWER_COUNT), "negatives() has a case for each power");
  using call_type = call;
  using setting_type = setting;
  static constexpr bool uses_base_weight = false, backwards = false, scored = true, is_hot = false;

  __device__ __forceinline__ static bool has_lean_way(const setting &) { return true; }
  __device__ __forceinline__ static setting make(const call &c) { return make_shape_setting(c); }
  __device__ __forceinline__ static int power_of(const setting &s) { return s.shape; }

  /** Of a smoothed target no logit's loss is 0: a NaN that is no result. */
  __device__ __forceinline__ static float nothing() { return __uint_as_float(0x7fd0dead); }
  __device__ __forceinline__ static bool is_nothing(float x) { return __float_as_uint(x) == 0x7fd0dead; }

  template <bool rough>
  __device__ __forceinline__ static exact::pair negative(const setting &s, float x, float weight, int shape) {
    if (is_nothing(x)) return {0.0f, 0.0f};
    if (!rough) return exact::shaped_negative(-x, weight, 1.0f, &s.parameters, shape);
    const approximate::formula_parameters parameters = roughen(s.parameters);
    const approximate::pair value = approximate::shaped_negative(-x, weight, 1.0f, &parameters, shape);
    return {value.loss, value.derivative};
  }

  /** The derivative is rough, the loss never. */
  template <bool rough>
  __device__ __forceinline__ static exact::pair negative_of_any_power(const setting &s, float x) {
    exact::pair value = negative<false>(s, x, 1.0f, s.shape);
    if (rough) value.derivative = negative<true>(s, x, 1.0f, s.shape).derivative;
    return value;
  }

  template <bool rough>
  __device__ __forceinline__ static exact::pair at_target(const call &, const setting &s, float x, float target,
                                                          bool is_negative) {
    if (is_negative) return negative_of_any_power<rough>(s, x);
    return exact::shaped_label(x, target, 1.0f, &s.parameters, s.shape);
  }
};

template <typename Loss>
using score_pass_of = std::conditional_t<Loss::is_shaped, shape_pass,
                                         score_pass<std::conditional_t<shares_negatives<Loss>, sharing_losses, Loss>>>;

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
  __device__ __forceinline__ static setting make(const call &c) {
    setting s = make_common_setting(c);
    if (is_hot) s.at_0 = c.alpha_of_0, s.at_1 = c.alpha; /* without a choice; other kernels are shorter with it */
    return s;
  }
  __device__ __forceinline__ static int power_of(const setting &s) { return fixed_power < 0 ? s.power : fixed_power; }
  __device__ __forceinline__ static float nothing() { return -INFINITY; }

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
