/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bins of keys, and negatives of cross-entropy that are weighed by their bins, f32, with the vectors of negatives.h.
 *
 * A key's bin is floor(sigmoid*M). The sigmoid is known to a relative error, so the product is taken twice, with the
 * least and with the most that it may be. Where both have the same whole part that is the bin. Elsewhere the key is
 * compared with the one threshold between the two. So bins are exact. Such keys are rare and are seen to afterwards.
 */

typedef struct many_integers {
  integers at[ABREAST];
} many_integers;

/** What a sigmoid is multiplied by, for the least and the most bin that the key may lie in. */
typedef struct bin_scales {
  many least, most;
  int32_t last;
} bin_scales;

TARE_INLINE bin_scales scales_of_bins(const tare_bins *bins) {
  const float count = (float)bins->count, error = SIGMOID_ERROR + bins->edge_error;
  return (bin_scales){all(count * (1 - error)), all(count * (1 + error)), bins->count - 1};
}

TARE_INLINE many_integers whole_parts(many x) { ELEMENTWISE(many_integers, whole_part(x.at[k])); }
/** Of sigmoids: the least bins, negative for NaN. They are below the number of bins, since least < M. */
TARE_INLINE many_integers least_bins(const bin_scales *scales, many q) { return whole_parts(times(q, scales->least)); }
TARE_INLINE many_integers no_more_than_last(const bin_scales *scales, many_integers bin) {
  ELEMENTWISE(many_integers, no_more_than(scales->last, bin.at[k]));
}
TARE_INLINE many_integers most_bins(const bin_scales *scales, many q) {
  return no_more_than_last(scales, whole_parts(times(q, scales->most)));
}
TARE_INLINE many_integers not_negative(many_integers x) { ELEMENTWISE(many_integers, no_less_than_0(x.at[k])); }
TARE_INLINE void store_integers(int32_t *to, many_integers x) { EACH store_integer_vector(to + LANES * k, x.at[k]); }

TARE_INLINE int are_any_different(many_integers a, many_integers b) {
  int found = 0;
  EACH found |= are_different(a.at[k], b.at[k]);
  return found != 0;
}

/** Keys whose least bin is not their only one, a turn's together, and where they are. */
typedef struct doubts {
  int32_t n, at[TARE_BLOCK / AT_ONCE];
} doubts;

/** The least bins of n keys, whole units; of a NaN the first. If `is_soft`, a constant, those of |sigmoid - target|, a
 *  small one of which may be off by as much as a large one. Many parameters: arrays, and what is found. */
TARE_INLINE void guess_bins_of(int is_soft, const tare_bins *bins, const float *key, const float *target, int32_t n,
                               int32_t *restrict bin, doubts *doubtful) {
  const bin_scales scales = scales_of_bins(bins);
  const float count = (float)bins->count, near = count * (SIGMOID_ERROR + bins->edge_error);
  const int32_t last = n - AT_ONCE;
  doubtful->n = 0;
  if (last < 0) return;
  many e = exp_of_minus(1, load_many(key));
  for (int32_t i = 0; i <= last; i += AT_ONCE) {
    const int32_t next = i + AT_ONCE < last ? i + AT_ONCE : last;
    const many next_e = exp_of_minus(1, load_many(key + next));
    const many larger = over(all(1), plus(e, all(1))), smaller = times(e, larger);
    const many q = by_side(sides_of(load_many(key + i)), smaller, larger);
    many_integers least, most;
    if (is_soft) {
      const many norm = magnitudes_of(minus(q, load_many(target + i)));
      least = whole_parts(times_plus(norm, all(count), all(-near))); /* -near becomes 0 */
      most = no_more_than_last(&scales, whole_parts(times_plus(norm, all(count), all(near))));
    } else {
      least = least_bins(&scales, q);
      most = most_bins(&scales, q);
    }
    store_integers(bin + i, not_negative(least));
    doubtful->at[doubtful->n] = i;
    doubtful->n += are_any_different(least, most);
    e = next_e;
  }
}

/** The bins of n keys, whole units; of a NaN the first. */
static void bins_of_keys(const tare_bins *bins, const float *key, int32_t n, int32_t *restrict bin) {
  const float *lower = bins->lower_f32;
  doubts doubtful;
  guess_bins_of(0, bins, key, NULL, n, bin, &doubtful);
  for (int32_t d = 0; d < doubtful.n; d++)
    for (int32_t i = doubtful.at[d]; i < doubtful.at[d] + AT_ONCE; i++) bin[i] += key[i] >= lower[bin[i] + 1];
}

static __attribute__((noinline)) void guess_soft_bins_of(const tare_bins *bins, const float *x, const float *target,
                                                         int32_t n, int32_t *restrict bin, doubts *doubtful) {
  guess_bins_of(1, bins, x, target, n, bin, doubtful);
}

/* Cross-entropy. */

/** The weights of bins: if `of_few`, a constant, they are in registers, else in memory. */
TARE_INLINE many weights_at(int of_few, const bin_weights *weights, many_integers bin) {
  ELEMENTWISE(many, of_few ? weight_of_few(weights, bin.at[k]) : weight_at(weights, no_less_than_0(bin.at[k])));
}

/** negatives() with gamma 0 and a gradient, each weight multiplied by its bin's. The keys of a turn in doubt are put
 *  aside: their derivatives may take their place. Many parameters: they are of three owners. */
TARE_INLINE void binned_negatives(int of_few, const tare_bins *bins, float factor, const stretch *on, doubts *doubtful,
                                  float *restrict aside, int32_t *restrict bin) {
  const float *x = on->x, *weight = on->weight;
  float *restrict loss = on->loss, *derivative = on->derivative;
  const ptrdiff_t last = whole_units(on->n) - AT_ONCE;
  const bin_scales scales = scales_of_bins(bins);
  const bin_weights weights = bin_weights_of(bins->weight_f32);
  doubtful->n = 0;
  if (last < 0) return;
  many e = exp_of_minus(1, load_many(x));
  for (ptrdiff_t i = 0; i <= last; i += AT_ONCE) {
    const ptrdiff_t next = i + AT_ONCE < last ? i + AT_ONCE : last;
    const many next_e = exp_of_minus(1, load_many(x + next)), log1p_e = log1p_of(e);
    const many larger = over(all(1), plus(e, all(1))), smaller = smaller_of_sides(e, larger);
    const many here = load_many(x + i), given = load_many(weight + i);
    const sides of_0 = sides_of(here);
    const many q = by_side(of_0, smaller, larger), l = plus_above(of_0, log1p_e, here);
    const many_integers least = least_bins(&scales, q), most = most_bins(&scales, q);
    const many w = only_where(are_not_zero(given), times(given, weights_at(of_few, &weights, least)));
    const choices counts = are_not_zero(w);
    store_many(loss + i, only_where(counts, times(w, l)));
    store_many(derivative + i, only_where(counts, times(times(w, q), all(factor))));
    if (are_any_different(least, most)) {
      store_many(aside + doubtful->n * AT_ONCE, here);
      store_integers(bin + doubtful->n * AT_ONCE, not_negative(least));
      doubtful->at[doubtful->n++] = (int32_t)i;
    }
    e = next_e;
  }
}

/** A turn that was put aside, by the bins that its keys lie in. */
static void settle_doubt(const tare_bins *bins, float factor, const stretch *on, int32_t at, const float *key,
                         const int32_t *least) {
  float weight[AT_ONCE];
  for (int32_t i = 0; i < AT_ONCE; i++) {
    const int32_t bin = least[i] + (key[i] >= bins->lower_f32[least[i] + 1]);
    weight[i] = weight_by(on->weight[at + i], bins->weight_f32[bin]);
  }
  const stretch turn = {
      .n = AT_ONCE, .x = key, .weight = weight, .loss = on->loss + at, .derivative = on->derivative + at};
  ce_of_negatives(1, factor, &turn);
}

/** Cross-entropy of negatives by weight x 1/GD. `aside` and `bin` have room for as many. */
static __attribute__((noinline)) void ce_of_binned_negatives(const tare_bins *bins, float factor, const stretch *on,
                                                             float *aside, int32_t *bin) {
  doubts doubtful;
  if (bins->count <= TARE_FEW_BINS)
    binned_negatives(1, bins, factor, on, &doubtful, aside, bin);
  else
    binned_negatives(0, bins, factor, on, &doubtful, aside, bin);
  for (int32_t d = 0; d < doubtful.n; d++)
    settle_doubt(bins, factor, on, doubtful.at[d], aside + d * AT_ONCE, bin + d * AT_ONCE);
}
