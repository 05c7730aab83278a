/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bins of signed logits, counted or turned into the weights 1/GD. A template in `real`.
 *
 * In detection most elements lie in the first bin, so keys are taken in chunks, and a chunk whose largest key is below
 * the second bin is done at once. For a few bins every key is compared with every threshold. For many, the bin is guessed
 * as floor(sigmoid*M); the guess is certain unless sigmoid*M lies within rounding of a whole number, and only a chunk
 * with such a key compares with the thresholds, which makes the bins exact. (Comparing every key would take two gathers,
 * and those cost more than all the rest.)
 */

enum { F(CHUNK) = 64, F(FEW_TO_WEIGH) = 12, F(FEW_TO_COUNT) = 32 };

TARE_INLINE int32_t F(whole_chunks)(int32_t n) { return (n + F(CHUNK) - 1) / F(CHUNK) * F(CHUNK); }

static int F(chunk_is_first_bin)(const tare_bins *bins, const real *restrict key) {
  real largest = -(real)INFINITY; /* what a NaN never exceeds */
#pragma omp simd reduction(max : largest)
  for (int i = 0; i < F(CHUNK); i++) largest = key[i] > largest ? key[i] : largest; /* hot: largest key (any) */
  return bins->count == 1 || !(largest >= bins->F(lower)[1]);
}

/** floor(sigmoid*M) of a chunk; returns whether any is too near to an edge to be sure. */
static int F(guess_bins)(const tare_bins *bins, const real *restrict key, int32_t *restrict bin) {
  const real count = (real)bins->count, near = count * F(SIGMOID_ERROR);
  const int32_t last = bins->count - 1;
  int32_t unsure = 0;
#pragma omp simd reduction(| : unsure)
  for (int i = 0; i < F(CHUNK); i++) { /* hot: bins by guess */
    const real u = key[i];
    const real e = F(exp_nonpositive)(u < 0 ? u : -u);
    const real scaled = (u < 0 ? e : (real)1) / ((real)1 + e) * count;
    int32_t k = scaled >= 0 ? (int32_t)scaled : 0; /* NaN: 0 */
    k = k > last ? last : k;
    const real rest = scaled - (real)k;
    unsure |= ((rest < near) & (k > 0)) | ((rest > (real)1 - near) & (k < last));
    bin[i] = k;
  }
  return unsure;
}

static void F(bins_of_chunk)(const tare_bins *bins, const real *restrict key, int32_t *restrict bin) {
  const real *restrict lower = bins->F(lower);
  if (!F(guess_bins)(bins, key, bin)) return;
  for (int i = 0; i < F(CHUNK); i++) bin[i] += (key[i] >= lower[bin[i] + 1]) - (key[i] < lower[bin[i]]);
}

/* Weights. */

static void F(weigh_chunk_by_few)(const tare_bins *bins, const real *restrict key, const real *restrict weight,
                                  real *restrict out) {
  real factor[F(CHUNK)];
  for (int i = 0; i < F(CHUNK); i++) factor[i] = bins->F(weight)[0];
  for (int k = 1; k < bins->count; k++) {
    const real lower = bins->F(lower)[k], of_bin = bins->F(weight)[k];
#pragma omp simd
    for (int i = 0; i < F(CHUNK); i++) factor[i] = key[i] >= lower ? of_bin : factor[i]; /* hot: weigh by few bins */
  }
#pragma omp simd
  for (int i = 0; i < F(CHUNK); i++) out[i] = weight[i] * factor[i]; /* hot: weigh chunk */
}

static void F(weigh_chunk_by_many)(const tare_bins *bins, const real *restrict key, const real *restrict weight,
                                   int32_t *restrict bin, real *restrict out) {
  const real *restrict of_bin = bins->F(weight);
  F(bins_of_chunk)(bins, key, bin);
  for (int i = 0; i < F(CHUNK); i++) out[i] = weight[i] * of_bin[bin[i]];
}

/** out[i] = weight[i] x 1/GD of key[i]'s bin, for n keys in whole chunks. */
static void F(weigh_by_bins)(const tare_bins *bins, const real *restrict key, const real *restrict weight, int32_t n,
                             int32_t *restrict bin, real *restrict out) {
  const real of_first = bins->F(weight)[0];
  for (int32_t start = 0; start < n; start += F(CHUNK)) {
    if (F(chunk_is_first_bin)(bins, key + start))
      for (int i = 0; i < F(CHUNK); i++) out[start + i] = weight[start + i] * of_first;
    else if (bins->count <= F(FEW_TO_WEIGH))
      F(weigh_chunk_by_few)(bins, key + start, weight + start, out + start);
    else
      F(weigh_chunk_by_many)(bins, key + start, weight + start, bin, out + start);
  }
}

/* Counts. */

/** Brings together the chunks that hold anything beyond the first bin; returns how many keys those are. A key of weight 0
 *  becomes NaN, which is never beyond the first bin. */
static int32_t F(gather_busy_chunks)(const tare_bins *bins, const real *restrict key, const real *restrict weight,
                                     int32_t n, real *restrict out) {
  int32_t busy = 0;
  for (int32_t start = 0; start < n; start += F(CHUNK)) {
    const int32_t length = n - start < F(CHUNK) ? n - start : F(CHUNK);
    if (length == F(CHUNK) && F(chunk_is_first_bin)(bins, key + start)) continue;
    for (int i = 0; i < length; i++) out[busy + i] = weight[start + i] != 0 ? key[start + i] : (real)NAN;
    for (int i = length; i < F(CHUNK); i++) out[busy + i] = (real)NAN;
    busy += F(CHUNK);
  }
  return busy;
}

/** Keys at or above each threshold, four thresholds at a time; bin k has those of k less those of k+1. */
static void F(count_by_few)(const tare_bins *bins, const real *restrict key, int32_t n,
                            int64_t (*histogram)[TARE_MAX_BINS]) {
  for (int k = 1; k < bins->count; k += 4) {
    real lower[4];
    int32_t a = 0, b = 0, c = 0, d = 0;
    for (int j = 0; j < 4; j++) lower[j] = k + j < bins->count ? bins->F(lower)[k + j] : (real)NAN;
#pragma omp simd reduction(+ : a, b, c, d)
    for (int32_t i = 0; i < n; i++) { /* hot: count by few bins */
      a += key[i] >= lower[0];
      b += key[i] >= lower[1];
      c += key[i] >= lower[2];
      d += key[i] >= lower[3];
    }
    const int32_t reached[4] = {a, b, c, d};
    for (int j = 0; j < 4 && k + j < bins->count; j++) {
      histogram[0][k + j - 1] -= reached[j];
      histogram[0][k + j] += reached[j];
    }
  }
}

static void F(count_by_many)(const tare_bins *bins, const real *restrict key, int32_t n, int32_t *restrict bin,
                             int64_t (*histogram)[TARE_MAX_BINS]) {
  for (int32_t start = 0; start < n; start += F(CHUNK)) {
    F(bins_of_chunk)(bins, key + start, bin);
    for (int i = 0; i < F(CHUNK); i++) histogram[i & 3][bin[i]]++;
  }
  histogram[0][0] -= n;
}

/** Adds the bins of those of n keys that have a weight to the histogram. */
static void F(count_bins)(const tare_bins *bins, const real *restrict key, const real *restrict weight, int32_t n,
                          tare_scratch *scratch) {
  real *busy_key = scratch->F_MEMBER.slope;
  int32_t counted = 0;
#pragma omp simd reduction(+ : counted)
  for (int32_t i = 0; i < n; i++) counted += weight[i] != 0; /* hot: count weights (any) */
  scratch->histogram[0][0] += counted;
  const int32_t busy = F(gather_busy_chunks)(bins, key, weight, n, busy_key);
  if (bins->count <= F(FEW_TO_COUNT))
    F(count_by_few)(bins, busy_key, busy, scratch->histogram);
  else
    F(count_by_many)(bins, busy_key, busy, scratch->bin, scratch->histogram);
}
