/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bins of signed logits, and the weights 1/GD by them.
 *
 * In detection most elements lie in the first bin, so keys are taken in chunks, and a chunk whose largest key is below
 * the second bin is done at once. Where it reaches into a few bins its keys are compared with the thresholds up to
 * there. For many bins, the bin is guessed as floor(sigmoid*M); the guess is certain unless sigmoid*M lies within
 * rounding (that of the edges too, where these are floats) of a whole number, and only a chunk with such a key compares
 * with the thresholds, which makes the bins exact. (Comparing every key would take two gathers, and those cost more
 * than all the rest.) With AVX2 and AVX-512, binned_negatives.h has a faster way for f32.
 */

enum { CHUNK = 64, FEW_TO_WEIGH = 20, FEW_TO_COUNT = 32 };

TARE_INLINE int32_t whole_chunks(int32_t n) { return (n + CHUNK - 1) / CHUNK * CHUNK; }

/** Of a chunk; -inf if it has none but NaN. In two steps, since gcc takes a single one four keys at a time. */
TARE_INLINE real largest_key(const real *restrict key) {
  enum { QUARTER = CHUNK / 4 };
  real lane[QUARTER], largest = -(real)INFINITY; /* what a NaN never exceeds */
#pragma omp simd
  for (int i = 0; i < QUARTER; i++) { /* hot: largest key (any) */
    const real a = key[i] > largest ? key[i] : largest;
    const real b = key[i + QUARTER] > a ? key[i + QUARTER] : a;
    const real c = key[i + 2 * QUARTER] > b ? key[i + 2 * QUARTER] : b;
    lane[i] = key[i + 3 * QUARTER] > c ? key[i + 3 * QUARTER] : c;
  }
#pragma omp simd reduction(max : largest)
  for (int i = 0; i < QUARTER; i++) largest = lane[i] > largest ? lane[i] : largest;
  return largest;
}

/** With more than FEW_TO_WEIGH bins: how many of the lowest bins hold all keys up to `largest`; all if too many. */
TARE_INLINE int32_t bins_up_to(const tare_bins *bins, real largest) {
  int32_t reached = 1;
  if (largest >= lower_of(bins)[FEW_TO_WEIGH]) return bins->count;
  while (reached < bins->count && largest >= lower_of(bins)[reached]) reached++;
  return reached;
}

TARE_INLINE int is_first_bin(const tare_bins *bins, real largest) {
  return bins->count == 1 || !(largest >= lower_of(bins)[1]);
}

/** floor(|sigmoid - target|*M) of a chunk; returns whether any is too near to an edge to be sure. If `is_soft`, a
 *  constant, is 0, so are the targets. */
TARE_INLINE int guess_norms(int is_soft, const tare_bins *bins, const real *restrict key, const real *restrict target,
                            int32_t *restrict bin) {
  const real count = (real)bins->count, near = count * (SIGMOID_ERROR + (real)bins->edge_error);
  const int32_t last = bins->count - 1;
  int32_t unsure = 0;
#pragma omp simd reduction(| : unsure)
  for (int i = 0; i < CHUNK; i++) { /* hot: bins by guess */
    const real u = key[i];
    const real e = exp_nonpositive(u < 0 ? u : -u), sigmoid = (u < 0 ? e : (real)1) / ((real)1 + e);
    const real scaled = (is_soft ? magnitude(sigmoid - target[i]) : sigmoid) * count;
    int32_t k = scaled >= 0 ? (int32_t)scaled : 0; /* NaN: 0 */
    k = k > last ? last : k;
    const real rest = scaled - (real)k;
    unsure |= ((rest < near) & (k > 0)) | ((rest > (real)1 - near) & (k < last));
    bin[i] = k;
  }
  return unsure;
}

/* Weights. 1/GD may be infinite or NaN where no element counts, so a weight of 0 stays 0. */

TARE_INLINE real weight_by(real weight, real inverse_density) {
  const real product = weight * inverse_density;
  return weight != 0 ? product : (real)0;
}

#ifndef HAS_VECTORS /* binned_negatives.h finds bins, and weighs and evaluates at once */

static int guess_bins(const tare_bins *bins, const real *key, int32_t *bin) {
  return guess_norms(0, bins, key, key, bin);
}

static void bins_of_chunk(const tare_bins *bins, const real *restrict key, int32_t *restrict bin) {
  const real *restrict lower = lower_of(bins);
  if (!guess_bins(bins, key, bin)) return;
  for (int i = 0; i < CHUNK; i++) bin[i] += (key[i] >= lower[bin[i] + 1]) - (key[i] < lower[bin[i]]);
}

/** For keys in the first `reached` bins. */
TARE_INLINE void weigh_chunk_by_few(const tare_bins *bins, int32_t reached, const real *restrict key,
                                    const real *restrict weight, real *restrict out) {
  real factor[CHUNK];
  for (int i = 0; i < CHUNK; i++) factor[i] = weight_of(bins)[0];
  for (int32_t k = 1; k < reached; k++) {
    const real lower = lower_of(bins)[k], of_bin = weight_of(bins)[k];
#pragma omp simd
    for (int i = 0; i < CHUNK; i++) factor[i] = key[i] >= lower ? of_bin : factor[i]; /* hot: weigh by few bins */
  }
#pragma omp simd
  for (int i = 0; i < CHUNK; i++) out[i] = weight_by(weight[i], factor[i]); /* hot: weigh chunk */
}

static void weigh_chunk_by_many(const tare_bins *bins, const real *restrict key, const real *restrict weight,
                                int32_t *restrict bin, real *restrict out) {
  const real *restrict of_bin = weight_of(bins);
  bins_of_chunk(bins, key, bin);
  for (int i = 0; i < CHUNK; i++) out[i] = weight_by(weight[i], of_bin[bin[i]]);
}

/** out[i] = weight[i] x 1/GD of key[i]'s bin, for n keys in whole chunks. */
static void weigh_by_bins(const tare_bins *bins, const real *restrict key, const real *restrict weight, int32_t n,
                          int32_t *restrict bin, real *restrict out) {
  const real of_first = weight_of(bins)[0];
  for (int32_t start = 0; start < n; start += CHUNK) {
    const real largest = largest_key(key + start);
    const int32_t reached = bins->count <= FEW_TO_WEIGH ? bins->count : bins_up_to(bins, largest);
    if (is_first_bin(bins, largest))
      for (int i = 0; i < CHUNK; i++) out[start + i] = weight_by(weight[start + i], of_first);
    else if (reached <= FEW_TO_WEIGH)
      weigh_chunk_by_few(bins, reached, key + start, weight + start, out + start);
    else
      weigh_chunk_by_many(bins, key + start, weight + start, bin, out + start);
  }
}

#endif
