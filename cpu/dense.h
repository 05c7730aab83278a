/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dense targets of cross-entropy and focal loss with gamma 2, f32, with the vectors of negatives.h. As there, exp of
 * the next elements is worked out beside the rest of the present ones.
 *
 * Let e = exp(-|x|), larger = 1/(1+e) and smaller = e/(1+e): p and 1-p, or the other way round. Let `share` be t where
 * x is below 0, else 1-t, and `rest` the other of the two. Then for every target in [0,1]:
 *
 *   CE    = log1p(e) + |x|*share
 *   s     = smaller*rest + larger*share
 *   p - t = smaller*rest - larger*share, where x is below 0; else the sign is turned
 *   kappa = p*(1-p)/s = smaller/(e*rest + share), and larger without a share
 *
 * At targets of 0 and 1, share is 0 or 1. There each of these is, bit for bit, what the formula of a label has. So no
 * element is worked out twice.
 */

/** Focal loss forms s and kappa times this power of 2, and divides at the end: s^2 may be too small for its type where
 *  CE is so large that the loss is not. */
#define DENSE_SCALE 0x1p32f

TARE_INLINE many times_minus(many a, many b, many c) { ELEMENTWISE(many, OPERATION(fmsub)(a.at[k], b.at[k], c.at[k])); }
TARE_INLINE many larger_of(many a, many b) { ELEMENTWISE(many, OPERATION(max)(a.at[k], b.at[k])); }
/** x, its sign turned except below 0 */
TARE_INLINE many turned(sides s, many x) { ELEMENTWISE(many, turned_above(s.at[k], x.at[k])); }
/** a where something is so, else b */
TARE_INLINE many choice_of(choices c, many a, many b) { ELEMENTWISE(many, either(c.at[k], a.at[k], b.at[k])); }

/** What the targets of some elements share. */
typedef struct dense_terms {
  sides of_x;
  many t, rest_of_t, share, rest, ce;
} dense_terms;

/** Without a share an infinite x adds nothing. */
TARE_INLINE dense_terms dense_terms_of(many x, many t, many log1p_e) {
  dense_terms of;
  of.of_x = sides_of(x);
  of.t = t;
  of.rest_of_t = minus(all(1), t);
  of.share = by_side(of.of_x, t, of.rest_of_t);
  of.rest = the_other(of.of_x, t, of.rest_of_t);
  of.ce = times_plus(only_where(are_not_zero(of.share), magnitudes_of(x)), of.share, log1p_e);
  return of;
}

/** Loss and derivative by x, without weights. */
typedef struct many_pairs {
  many loss, derivative;
} many_pairs;

/** p - t is formed from p: with a weight, the form above is off by half an ulp more. */
TARE_INLINE many_pairs dense_ce(dense_terms of, many e) {
  const many larger = over(all(1), plus(e, all(1))), smaller = smaller_of_sides(e, larger);
  const many p = by_side(of.of_x, smaller, larger), q = the_other(of.of_x, smaller, larger);
  many_pairs result;
  result.loss = of.ce;
  result.derivative = choice_of(are_not_zero(of.rest_of_t), minus(p, of.t), minus(all(0), q));
  return result;
}

TARE_INLINE many_pairs dense_focal(dense_terms of, many e, real gamma) {
  const many larger = over(all(DENSE_SCALE), plus(e, all(1)));
  const many smaller = minus_product(e, times(e, larger), times(e, all(DENSE_SCALE)));
  const many shared = times(larger, of.share), s = times_plus(smaller, of.rest, shared);
  const many s2 = larger_of(all(SMALLEST_NORMAL), times(s, s)); /* not 0 beside an infinite CE */
  const many off = turned(of.of_x, times_minus(smaller, of.rest, shared));
  const many u = times_plus(e, of.rest, of.share);
  const many kappa = choice_of(are_not_zero(of.share), over(smaller, u), larger);
  const many slope = minus_product(all(2 * gamma), of.t, all(gamma));
  const many inner = times_plus(slope, times(kappa, smaller_of(all(LARGEST), of.ce)), off);
  many_pairs result;
  result.loss = times(s2, times(of.ce, all(1 / (DENSE_SCALE * DENSE_SCALE))));
  result.derivative = times(s2, times(inner, all(1 / (DENSE_SCALE * DENSE_SCALE * DENSE_SCALE))));
  return result;
}

/** `power`, 0 or 2, is a constant. */
TARE_INLINE void dense(int power, real gamma, real factor, const stretch *on) {
  const real *x = on->x, *weight = on->weight;
  const real *restrict target = on->target;
  real *restrict loss = on->loss, *derivative = on->derivative;
  const ptrdiff_t last = whole_units(on->n) - AT_ONCE;
  if (last < 0) return;
  many e = exp_of_minus(1, load_many(x));
  for (ptrdiff_t i = 0; i <= last; i += AT_ONCE) {
    const ptrdiff_t next = i + AT_ONCE < last ? i + AT_ONCE : last;
    const many next_e = exp_of_minus(1, load_many(x + next)), log1p_e = log1p_of(e);
    const many here = load_many(x + i), t = load_many(target + i);
    const dense_terms shared = dense_terms_of(here, t, log1p_e);
    const many_pairs of = power == TARE_POWER_0 ? dense_ce(shared, e) : dense_focal(shared, e, gamma);
    const many w = load_many(weight + i);
    const choices counts = are_not_zero(w);
    store_many(loss + i, only_where(counts, times(w, of.loss)));
    const many scaled = times(times(w, of.derivative), all(factor));
    /* -0 is added, but 0 where t is 1: as of a label, the sign of 0 too */
    store_many(derivative + i, only_where(counts, times_plus(minus(t, all(1)), all(0), scaled)));
    e = next_e;
  }
}

/* Not inlined: loops that share a function keep their constants on the stack. */

static __attribute__((noinline)) void ce_of_dense(real factor, const stretch *on) {
  dense(TARE_POWER_0, 0, factor, on);
}

static __attribute__((noinline)) void focal_of_dense(real gamma, real factor, const stretch *on) {
  dense(TARE_POWER_2, gamma, factor, on);
}

/** Runs the loop of a formula, a constant; returns 0 if it has none here. */
TARE_INLINE int run_dense(soft_formula *formula, const formula_parameters *parameters, int power, real factor,
                          const stretch *on) {
  if (formula == sigmoid_ce_soft || (formula == sigmoid_focal_soft && power == TARE_POWER_0))
    ce_of_dense(factor, on);
  else if (formula == sigmoid_focal_soft && power == TARE_POWER_2)
    focal_of_dense(parameters->gamma_hi, factor, on);
  else
    return 0;
  return 1;
}
