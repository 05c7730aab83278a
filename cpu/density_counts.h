/* SPDX-License-Identifier: Apache-2.0 */
/* How many keys lie in each bin. Keys of the first bin have been counted there before, so only those beyond it are
 * looked at, and moved. */

static void count_by_many(const tare_bins *bins, const real *restrict key, int32_t n, int32_t *restrict bin,
                          int64_t (*histogram)[TARE_MAX_BINS]) {
#ifdef HAS_VECTORS
  bins_of_keys(bins, key, n, bin);
#else
  for (int32_t start = 0; start < n; start += CHUNK) bins_of_chunk(bins, key + start, bin + start);
#endif
  for (int32_t i = 0; i < n; i += 4) {
    histogram[0][bin[i]]++;
    histogram[1][bin[i + 1]]++;
    histogram[2][bin[i + 2]]++;
    histogram[3][bin[i + 3]]++;
  }
  histogram[0][0] -= n;
}

#ifdef HAS_FEW_BINS

/** Moves those of n keys that have a weight from the first bin, where all have been counted, to their own. */
static void count_bins(const tare_bins *bins, const real *restrict key, const real *restrict weight, int32_t n,
                       tare_scratch *scratch) {
  real *packed = real_scratch_of(scratch)->derivative;
  const int32_t beyond = pack_beyond_first(bins, key, weight, n, packed);
  if (bins->count <= TARE_FEW_BINS)
    few_count(bins, packed, beyond, scratch->histogram[0]);
  else
    count_by_many(bins, packed, whole_units(beyond + UNIT - 1), scratch->bin, scratch->histogram);
}

#else

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

static void count_bins(const tare_bins *bins, const real *restrict key, const real *restrict weight, int32_t n,
                       tare_scratch *scratch) {
  busy_chunks busy = {.key = real_scratch_of(scratch)->derivative};
  gather_busy_chunks(bins, key, weight, n, &busy);
  if (bins->count <= FEW_TO_COUNT)
    count_by_few(bins, &busy, scratch->histogram);
  else
    count_by_many(bins, busy.key, busy.n * CHUNK, scratch->bin, scratch->histogram);
}

#endif
