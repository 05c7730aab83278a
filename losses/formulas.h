/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the losses share: p, q and l = -log p of a signed logit, and powers of q.
 *
 * Not a header of its own: the includer defines the type `real`, TARE_INLINE, the primitives exp_nonpositive, exp_sum,
 * log1p_unit, log_positive, product_error, square_root, multiply_add, reciprocal, smaller_part (e/(1+e) from e and
 * about 1/(1+e)) and magnitude, and the constants LARGEST, SMALLEST_NORMAL, LOG_2_HI and LOG_2_LO (log 2 in two parts),
 * GAMMA_LOG_CLAMP, LARGEST_EXPONENT (exp(-y) is a normal number up to that y) and ROOT_IS_MAGNITUDE. C includes it once
 * a compilation; CUDA once in each of its namespaces.
 */

/** One value and D, minus its derivative by the signed logit z (or, for soft targets, the derivative by x). */
typedef struct pair {
  real loss, derivative;
} pair;

TARE_INLINE pair make_pair(real loss, real derivative) {
  pair result;
  result.loss = loss;
  result.derivative = derivative;
  return result;
}

/** Parameters of a formula, as the kernels want them. gamma = gamma_hi + gamma_lo to twice the precision of real. */
typedef struct formula_parameters {
  real gamma_hi, gamma_lo, epsilon;
  real derivative_gamma; /* gamma of the gradient: 0 where the modulator is detached */
  real p_hi, p_lo;       /* exponent of p in the target of an IoU-aware label, and of the score: */
  real rest_hi, rest_lo; /* 1 - p, in two parts as well */
  /* of shapes: losses/sigmoid_shaped.h */
  real smoothed, unsmoothed;           /* the smoothed target of a negative, and its distance to 1 */
  real label_gamma_hi, label_gamma_lo; /* gamma of labels */
  real label_derivative_gamma;         /* the same in the gradient */
  real margin, margin_rest, margin_logit, margin_logit_lo; /* m, 1-m, log(m/(1-m)) in two parts */
  real threshold, log_threshold; /* the first z at which the modulator counts, and the logarithm of its p */
  real shift, shift_lo, inverse_gamma;
} formula_parameters;

/** For a signed logit z, with e = exp(-|z|): p = sigmoid(z), q = 1-p and l = -log p without cancellation. */
typedef struct terms {
  real p, q, l, log1p_e, positive_z;
} terms;

TARE_INLINE terms terms_of(real z) {
  const real e = exp_nonpositive(-magnitude(z));
  const real larger = reciprocal((real)1 + e); /* sigmoid(|z|) */
  const real smaller = smaller_part(e, larger);
  terms t;
  t.p = z < 0 ? smaller : larger;
  t.q = z < 0 ? larger : smaller;
  t.log1p_e = log1p_unit(e);
  t.l = t.log1p_e + (z < 0 ? -z : (real)0);
  t.positive_z = z > 0 ? z : (real)0;
  return t;
}

/** (hi + lo)*(a + b) for a >= 0 and a + b >= 0. a is exact, and b is the rest of a logarithm. The product is in two
 *  parts; in one part it would be off by |hi*a| half ulps. */
TARE_INLINE log_parts exponent_in_parts(real a, real b, real hi, real lo) {
  const real product = hi * a, of_rest = hi * b;
  const real rest = product_error(hi, a, product) + lo * a + of_rest;
  log_parts y;
  y.hi = product + rest;
  y.lo = rest - (y.hi - product) + product_error(hi, b, of_rest);
  return y;
}

TARE_INLINE log_parts general_exponent(real a, real b, const formula_parameters *parameters) {
  return exponent_in_parts(a, b, parameters->gamma_hi, parameters->gamma_lo);
}

/** q^gamma; `power` is a constant after inlining. -log q = max(z,0) + log1p(e). Beyond the clamp every term that the
 *  power multiplies is 0. */
TARE_INLINE real power_of_q(terms t, const formula_parameters *parameters, int power) {
  switch (power) {
    case TARE_POWER_0:
      return (real)1;
    case TARE_POWER_1:
      return t.q;
    case TARE_POWER_2:
      return t.q * t.q;
    case TARE_POWER_HALF:
      return square_root(t.q);
    case TARE_POWER_3_HALVES:
      return t.q * square_root(t.q);
    default: {
      const real a = t.positive_z > GAMMA_LOG_CLAMP ? GAMMA_LOG_CLAMP : t.positive_z;
      const log_parts y = general_exponent(a, t.log1p_e, parameters);
      return exp_sum(-y.hi, -y.lo);
    }
  }
}

/* Soft targets. CE may be as large as the largest float, so s^gamma*CE can be representable although s^gamma is not.
 * So the power is two factors of at most 1. CE is multiplied by one, then by the other. No step is 0 unless the
 * result is. */

/** s^gamma = first*second. */
typedef struct modulator {
  real first, second;
} modulator;

/** log(s) = hi + lo, for subnormal s too. */
TARE_INLINE log_parts log_of_modulator(real s) {
  const int is_tiny = s < SMALLEST_NORMAL;
  log_parts result = log_positive(is_tiny ? s * (real)0x1p64 : s);
  result.hi -= is_tiny ? 64 * LOG_2_HI : (real)0; /* exact */
  result.lo -= is_tiny ? 64 * LOG_2_LO : (real)0;
  return result;
}

/** The square root of s, for subnormal s too. */
TARE_INLINE real root_of_modulator(real s) {
  const int is_tiny = s < SMALLEST_NORMAL;
  const real root = square_root(is_tiny ? s * (real)0x1p64 : s);
  return is_tiny ? root * (real)0x1p-32 : root;
}

/** exp(-hi-lo) for hi >= 0. */
TARE_INLINE modulator modulator_of_exponent(real hi, real lo) {
  const int is_small = hi > LARGEST_EXPONENT;
  const real share = is_small ? (real)-0.5 : (real)-1;
  modulator result;
  result.first = exp_sum(share * hi, share * lo);
  result.second = is_small ? result.first : (real)1;
  return result;
}

/** s^gamma for any s in [0,1]. */
TARE_INLINE modulator modulator_of(real s, const formula_parameters *parameters, int power) {
  modulator result;
  result.first = power == TARE_POWER_0 ? (real)1 : s;
  result.second = (real)1;
  if (power == TARE_POWER_2) result.second = s;
  if (power == TARE_POWER_HALF) result.first = root_of_modulator(s);
  if (power == TARE_POWER_3_HALVES) result.second = root_of_modulator(s);
  if (power == TARE_POWER_GENERAL) {
    const log_parts log_s = log_of_modulator(s);
    const log_parts y = general_exponent(-log_s.hi, -log_s.lo, parameters);
    result = modulator_of_exponent(y.hi, y.lo);
    result.first = s > 0 ? result.first : s;
  }
  return result;
}

TARE_INLINE real modulated(real x, modulator m) { return x * m.first * m.second; }

/** p*l with its limit 0 at z = -inf, where l is infinite. NaN stays NaN. */
TARE_INLINE real p_times_l(terms t) { return t.p * (t.l > LARGEST ? LARGEST : t.l); }

/** What a soft target t in (0,1) shares: p = sigmoid(x), CE, and the modulator s = p(1-t) + (1-p)t. */
typedef struct soft_terms {
  real p, q, ce, s;
} soft_terms;

TARE_INLINE soft_terms soft_terms_of(real x, real target) {
  const terms t = terms_of(x);
  soft_terms soft;
  soft.p = t.p;
  soft.q = t.q;
  soft.ce = t.log1p_e + (x > 0 ? x * ((real)1 - target) : -x * target);
  soft.s = t.p * ((real)1 - target) + t.q * target;
  return soft;
}
