/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running sums of gradients and the weights that follow from them, one class at a time, for both backends. Not a header
 * of its own: the includer defines TARE_INLINE, and includes tare.h.
 */

/** Every number up to this one is finite, and what is computed beyond it stays there. */
#define TARE_LARGEST_SUM 1.7e308
TARE_INLINE double tare_held_sum(double sum) { return sum <= TARE_LARGEST_SUM ? sum : TARE_LARGEST_SUM; }

/** What a sum adds: nothing of one that is negative or not finite. */
TARE_INLINE double tare_sound_sum(double sum) { return sum >= 0.0 && sum <= TARE_LARGEST_SUM ? sum : 0.0; }

/** A running sum after a step. */
TARE_INLINE double tare_next_sum(double sum, double more) {
  return tare_held_sum(tare_sound_sum(sum) + tare_sound_sum(more));
}

/** Weights and exponent of a class. */
typedef struct tare_class_factors {
  double positive, negative, gamma;
} tare_class_factors;

/** P/(N + 1e-10), and in a fresh state what the papers start with. */
TARE_INLINE double tare_gradient_ratio(int is_fresh, int32_t rule, double positive, double negative) {
  if (is_fresh) return rule == TARE_GRADIENT_RULE_EFL ? 1.0 : 100.0;
  const double ratio = tare_held_sum(tare_sound_sum(positive) / (tare_sound_sum(negative) + 1e-10));
  return rule == TARE_GRADIENT_RULE_EFL && ratio > 1.0 ? 1.0 : ratio;
}

/** 1-f is formed without cancellation. */
TARE_INLINE tare_class_factors tare_factors_of_ratio(const tare_gradient_balance *balance, double g) {
  tare_class_factors factors = {1.0, 1.0, balance->gamma};
  if (balance->rule == TARE_GRADIENT_RULE_EFL) {
    factors.gamma = balance->gamma + balance->scale * (1.0 - g);
    factors.positive = factors.negative = factors.gamma / balance->gamma;
    return factors;
  }
  const double u = balance->steepness * (g - balance->midpoint);
  factors.negative = 1.0 / (1.0 + exp(-u));
  factors.positive = 1.0 + balance->gain / (1.0 + exp(u));
  return factors;
}

/** Of class c, from the state's running sums. */
TARE_INLINE tare_class_factors tare_factors_of_class(const tare_gradient_balance *balance, int64_t steps,
                                                     const double *sums, int64_t c) {
  if (c == balance->exempt) {
    const tare_class_factors none = {1.0, 1.0, balance->gamma};
    return none;
  }
  return tare_factors_of_ratio(balance, tare_gradient_ratio(steps <= 0, balance->rule, sums[2 * c], sums[2 * c + 1]));
}

/** Writes what is wanted. */
TARE_INLINE void tare_write_factors(const tare_gradient_balance *balance, int64_t c, tare_class_factors factors) {
  if (balance->positive_weights) balance->positive_weights[c] = (float)factors.positive;
  if (balance->negative_weights) balance->negative_weights[c] = (float)factors.negative;
  if (balance->gammas) balance->gammas[c] = (float)factors.gamma;
}
