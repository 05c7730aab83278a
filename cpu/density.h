/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bins of signed logits, counted or turned into the weights 1/GD.
 *
 * In detection most elements lie in the first bin, so keys are taken in chunks, and a chunk whose largest key is below
 * the second bin is done at once. Where it reaches into a few bins its keys are compared with the thresholds up to
 * there. For many bins, the bin is guessed as floor(sigmoid*M); the guess is certain unless sigmoid*M lies within
 * rounding (that of the edges too, where these are floats) of a whole number, and only a chunk with such a key compares
 * with the thresholds, which makes the bins exact. (Comparing every key would take two gathers, and those cost more
 * than all the rest.) Up to 32 bins have a faster way with AVX-512: few_bins.h.
 */

enum { CHUNK = 64, FEW_TO_WEIGH = 20, FEW_TO_COUNT = 32 };

TARE_INLINE int32_t whole_chunks(int32_t n) { return (n + CHUNK - 1) / CHUNK * CHUNK; }

/** Of a chunk; -inf if it has none but NaN. In two steps, since gcc takes a single one four keys at a time. */
TARE_INLINE real largest_key(const real *restrict key) {
  enum { LANES = CHUNK / 4 };
  real lane[LANES], largest = -(real)INFINITY; /* what a NaN never exceeds */
#pragma omp simd
  for (int i = 0; i < LANES; i++) { /* hot: largest key (any) */
    const real a = key[i] > largest ? key[i] : largest;
    const real b = key[i + LANES] > a ? key[i + LANES] : a;
    const real c = key[i + 2 * LANES] > b ? key[i + 2 * LANES] : b;
    lane[i] = key[i + 3 * LANES] > c ? key[i + 3 * LANES] : c;
  }
#pragma omp simd reduction(max : largest)
  for (int i = 0; i < LANES; i++) largest = lane[i] > largest ? lane[i] : largest;
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

static int guess_bins(const tare_bins *bins, const real *key, int32_t *bin) {
  return guess_norms(0, bins, key, key, bin);
}

static void bins_of_chunk(const tare_bins *bins, const real *restrict key, int32_t *restrict bin) {
  const real *restrict lower = lower_of(bins);
  if (!guess_bins(bins, key, bin)) return;
  for (int i = 0; i < CHUNK; i++) bin[i] += (key[i] >= lower[bin[i] + 1]) - (key[i] < lower[bin[i]]);
}

/* Weights. 1/GD may be infinite or NaN where no element counts, so a weight of 0 stays 0. */

TARE_INLINE real weight_by(real weight, real inverse_density) {
  const real product = weight * inverse_density;
  return weight != 0 ? product : (real)0;
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
#ifdef HAS_FEW_BINS
  if (bins->count <= TARE_FEW_BINS) {
    few_weigh(bins, key, weight, n, out);
    return;
  }
#endif
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

/* Counts. */

/** The chunks with keys beyond the first bin, packed, and the largest key of each. */
typedef struct busy_chunks {
  int32_t n;
  real *key, largest[TARE_BLOCK / CHUNK];
} busy_chunks;

/** A key of weight 0 becomes NaN, which is never beyond the first bin. */
static void gather_busy_chunks(const tare_bins *bins, const real *restrict key, const real *restrict weight, int32_t n,
                               busy_chunks *busy) {
  busy->n = 0;
  for (int32_t start = 0; start < n; start += CHUNK) {
    const int32_t length = n - start < CHUNK ? n - start : CHUNK;
    const real largest = length == CHUNK ? largest_key(key + start) : (real)INFINITY;
    if (is_first_bin(bins, largest)) continue;
    real *restrict out = busy->key + (ptrdiff_t)busy->n * CHUNK;
    for (int i = 0; i < length; i++) out[i] = weight[start + i] != 0 ? key[start + i] : (real)NAN;
    for (int i = length; i < CHUNK; i++) out[i] = (real)NAN;
    busy->largest[busy->n++] = largest;
  }
}

/** Lets go of the chunks that end below a threshold. */
static void drop_chunks_below(real lower, busy_chunks *busy) {
  int32_t kept = 0;
  for (int32_t c = 0; c < busy->n; c++) {
    if (busy->largest[c] < lower) continue;
    busy->largest[kept] = busy->largest[c];
    if (kept < c) memcpy(busy->key + (ptrdiff_t)kept * CHUNK, busy->key + (ptrdiff_t)c * CHUNK, CHUNK * sizeof(real));
    kept++;
  }
  busy->n = kept;
}

/** Keys at or above each threshold, four thresholds at a time; bin k has those of k less those of k+1. */
static void count_by_few(const tare_bins *bins, busy_chunks *busy, int64_t (*histogram)[TARE_MAX_BINS]) {
  const real *key = busy->key; /* whose chunks move up when others are dropped */
  for (int k = 1; k < bins->count; k += 4) {
    real lower[4];
    int32_t a = 0, b = 0, c = 0, d = 0;
    drop_chunks_below(lower_of(bins)[k], busy);
    for (int j = 0; j < 4; j++) lower[j] = k + j < bins->count ? lower_of(bins)[k + j] : (real)NAN;
#pragma omp simd reduction(+ : a, b, c, d)
    for (int32_t i = 0; i < busy->n * CHUNK; i++) { /* hot: count by few bins */
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

static void count_by_many(const tare_bins *bins, const real *restrict key, int32_t n, int32_t *restrict bin,
                          int64_t (*histogram)[TARE_MAX_BINS]) {
  for (int32_t start = 0; start < n; start += CHUNK) {
    bins_of_chunk(bins, key + start, bin);
    for (int i = 0; i < CHUNK; i++) histogram[i & 3][bin[i]]++;
  }
  histogram[0][0] -= n;
}

/** Moves those of n keys that have a weight from the first bin, where all have been counted, to their own. */
static void count_bins(const tare_bins *bins, const real *restrict key, const real *restrict weight, int32_t n,
                       tare_scratch *scratch) {
#ifdef HAS_FEW_BINS
  if (bins->count <= TARE_FEW_BINS) {
    few_count(bins, key, weight, n, scratch->histogram[0]);
    return;
  }
#endif
  busy_chunks busy = {.key = real_scratch_of(scratch)->derivative};
  gather_busy_chunks(bins, key, weight, n, &busy);
  if (bins->count <= FEW_TO_COUNT)
    count_by_few(bins, &busy, scratch->histogram);
  else
    count_by_many(bins, busy.key, busy.n * CHUNK, scratch->bin, scratch->histogram);
}
