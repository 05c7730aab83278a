/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Negatives of cross-entropy and focal loss with gamma 2, f32, with the vectors of an instruction set. They are what
 * hard_body (sigmoid_loops.h) makes of these formulas, bit for bit. Two things the compiler does not do:
 *
 * - exp(-|x|) of the next elements is worked out beside the rest of the present ones. Each of the two is a chain of
 *   dependent operations; one after the other, they wait most of the time (docs/measurements/2026-11-30-cpu-loops.md).
 * - min, and choices by a sign, are one operation each; with AVX-512 so is |x| held at 88, and a sum for some lanes.
 */

enum { AT_ONCE = ABREAST * LANES };
_Static_assert((int)AT_ONCE == (int)UNIT, "a turn takes a unit");

typedef struct many {
  vector at[ABREAST];
} many;

typedef struct choices {
  choice at[ABREAST];
} choices;

typedef struct sides {
  side at[ABREAST];
} sides;

#define EACH for (int k = 0; k < ABREAST; k++)
/* The body of a function that does the same to each vector. */
#define ELEMENTWISE(type, expression) \
  type result;                        \
  EACH result.at[k] = expression;     \
  return result

TARE_INLINE many all(real x) { ELEMENTWISE(many, OPERATION(set1)(x)); }
TARE_INLINE many load_many(const real *x) { ELEMENTWISE(many, OPERATION(loadu)(x + LANES * k)); }
TARE_INLINE many plus(many a, many b) { ELEMENTWISE(many, OPERATION(add)(a.at[k], b.at[k])); }
TARE_INLINE many minus(many a, many b) { ELEMENTWISE(many, OPERATION(sub)(a.at[k], b.at[k])); }
TARE_INLINE many times(many a, many b) { ELEMENTWISE(many, OPERATION(mul)(a.at[k], b.at[k])); }
TARE_INLINE many over(many a, many b) { ELEMENTWISE(many, OPERATION(div)(a.at[k], b.at[k])); }
/** b where it is NaN */
TARE_INLINE many smaller_of(many a, many b) { ELEMENTWISE(many, OPERATION(min)(a.at[k], b.at[k])); }
TARE_INLINE many times_plus(many a, many b, many c) { ELEMENTWISE(many, OPERATION(fmadd)(a.at[k], b.at[k], c.at[k])); }
TARE_INLINE many minus_product(many a, many b, many c) {
  ELEMENTWISE(many, OPERATION(fnmadd)(a.at[k], b.at[k], c.at[k]));
}
TARE_INLINE many magnitudes_of(many x) { ELEMENTWISE(many, magnitudes(x.at[k])); }
TARE_INLINE many magnitudes_to(many most, many x) { ELEMENTWISE(many, magnitudes_up_to(most.at[k], x.at[k])); }
TARE_INLINE many powers_of_2(many x) { ELEMENTWISE(many, power_of_2(x.at[k])); }
TARE_INLINE sides sides_of(many x) { ELEMENTWISE(sides, side_of(x.at[k])); }
/** a below 0, b elsewhere; the_other: what by_side leaves of the two. */
TARE_INLINE many by_side(sides s, many a, many b) { ELEMENTWISE(many, chosen(s.at[k], a.at[k], b.at[k])); }
TARE_INLINE many the_other(sides s, many a, many b) { ELEMENTWISE(many, left_over(s.at[k], a.at[k], b.at[k])); }
/** a + x, below 0 just a */
TARE_INLINE many plus_above(sides s, many a, many x) { ELEMENTWISE(many, added_above(s.at[k], a.at[k], x.at[k])); }
TARE_INLINE choices are_not_zero(many x) { ELEMENTWISE(choices, not_zero(x.at[k])); }
TARE_INLINE many only_where(choices c, many x) { ELEMENTWISE(many, only(c.at[k], x.at[k])); }
TARE_INLINE void store_many(real *to, many x) { EACH OPERATION(storeu)(to + LANES * k, x.at[k]); }

/** exp(-|x|), as exp_nonpositive. Unless `keeps_nan`, a constant, it may be a number where x is NaN. */
TARE_INLINE many exp_of_minus(int keeps_nan, many x) {
  const many most = all(88.0f), shift = all(EXP_SHIFT);
  const many y = keeps_nan ? smaller_of(most, magnitudes_of(x)) : magnitudes_to(most, x);
  const many shifted = minus_product(y, all(0x1.715476p+0f), shift), n = minus(shifted, shift);
  many r;
  EACH r.at[k] = OPERATION(fnmsub)(n.at[k], OPERATION(set1)(0x1.62e4p-1f), y.at[k]);
  r = minus_product(n, all(0x1.7f7d1cp-20f), r);
  const many r2 = times(r, r), scale = powers_of_2(shifted);
  const many low = times_plus(all(exp_part[2]), r, all(exp_part[1]));
  const many high = times_plus(all(exp_part[4]), r, all(exp_part[3]));
  const many p = times_plus(times_plus(high, r2, low), r, all(exp_part[0]));
  return times_plus(times_plus(r2, p, r), scale, scale);
}

/** As smaller_part */
TARE_INLINE many smaller_of_sides(many e, many larger) { return minus_product(e, times(e, larger), e); }

/** As log1p_unit */
TARE_INLINE many log1p_of(many e) {
  const many e2 = times(e, e);
  const many of_7 = times_plus(all(log1p_part[8]), e, all(log1p_part[7]));
  const many of_5 = times_plus(all(log1p_part[6]), e, all(log1p_part[5]));
  const many of_3 = times_plus(all(log1p_part[4]), e, all(log1p_part[3]));
  const many of_1 = times_plus(all(log1p_part[2]), e, all(log1p_part[1]));
  many p = times_plus(of_7, e2, of_5);
  p = times_plus(p, e2, of_3);
  p = times_plus(p, e2, of_1);
  p = times_plus(p, e, all(log1p_part[0]));
  return times_plus(e2, p, e);
}

/** `power`, 0 or 2, and `wants_derivative` are constants. */
TARE_INLINE void negatives(int power, int wants_derivative, real gamma, real factor, const stretch *on) {
  const real *x = on->x, *weight = on->weight;
  real *restrict loss = on->loss, *derivative = on->derivative;
  const ptrdiff_t last = whole_units(on->n) - AT_ONCE;
  if (last < 0) return;
  const int keeps_nan = power == TARE_POWER_0; /* a focal loss has it from x, its derivative from l */
  many e = exp_of_minus(keeps_nan, load_many(x));
  for (ptrdiff_t i = 0; i <= last; i += AT_ONCE) {
    const ptrdiff_t next = i + AT_ONCE < last ? i + AT_ONCE : last;
    const many next_e = exp_of_minus(keeps_nan, load_many(x + next)), log1p_e = log1p_of(e);
    const many larger = over(all(1), plus(e, all(1))), smaller = smaller_of_sides(e, larger);
    const many here = load_many(x + i), w = load_many(weight + i); /* late, so that they hold no register before */
    const sides of_0 = sides_of(here);
    const choices counts = are_not_zero(w);
    const many q = by_side(of_0, smaller, larger), p = the_other(of_0, smaller, larger);
    const many l = plus_above(of_0, log1p_e, here), q2 = times(q, q);
    const many value = power == TARE_POWER_0 ? l : times(q2, l);
    store_many(loss + i, only_where(counts, times(w, value)));
    if (wants_derivative) {
      const many through = times_plus(all(gamma), times(p, smaller_of(all(LARGEST), l)), q);
      const many slope = power == TARE_POWER_0 ? q : times(q2, through);
      store_many(derivative + i, only_where(counts, times(times(w, slope), all(factor))));
    }
    e = next_e;
  }
}

static void ce_of_negatives(int wants_derivative, real factor, const stretch *on) {
  if (wants_derivative)
    negatives(TARE_POWER_0, 1, 0, factor, on);
  else
    negatives(TARE_POWER_0, 0, 0, factor, on);
}

static void focal_of_negatives(int wants_derivative, real gamma, real factor, const stretch *on) {
  if (wants_derivative)
    negatives(TARE_POWER_2, 1, gamma, factor, on);
  else
    negatives(TARE_POWER_2, 0, gamma, factor, on);
}

/** Runs the loop of a formula, a constant; returns 0 if it has none here. */
TARE_INLINE int run_negatives(hard_formula *formula, const formula_parameters *parameters, int power,
                              int wants_derivative, real factor, const stretch *on) {
  const int has_power = formula == sigmoid_focal || formula == scored_negative;
  const real gamma = formula == sigmoid_focal ? parameters->gamma_hi : parameters->derivative_gamma;
  if (formula == sigmoid_ce || (has_power && power == TARE_POWER_0))
    ce_of_negatives(wants_derivative, factor, on);
  else if (has_power && power == TARE_POWER_2)
    focal_of_negatives(wants_derivative, gamma, factor, on);
  else
    return 0;
  return 1;
}
