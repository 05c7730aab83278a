/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bins of gradient norms, and the weights 1/GD that follow from them. A template in `real`.
 *
 * In detection most elements lie in the first bin, so keys are looked at in chunks: where the largest is below the
 * second bin nothing else is computed. Elsewhere a few bins are compared directly; for many the bin is guessed from
 * the sigmoid and put right by one comparison with each of its ends, which makes it exact.
 */

enum { F(CHUNK) = 64, F(FEW_BINS) = 12 };

static int F(chunk_is_first_bin)(const tare_bins *bins, const real *restrict key) {
  real largest = key[0];
#pragma omp simd reduction(max : largest)
  for (int i = 0; i < F(CHUNK); i++) largest = key[i] > largest ? key[i] : largest; /* hot: largest key (any) */
  return !(largest >= bins->F(lower)[1]);
}

static void F(bins_by_comparison)(const tare_bins *bins, const real *restrict key, int32_t *restrict bin) {
  for (int i = 0; i < F(CHUNK); i++) bin[i] = 0;
  for (int k = 1; k < bins->count; k++) {
    const real lower = bins->F(lower)[k];
#pragma omp simd
    for (int i = 0; i < F(CHUNK); i++) bin[i] += key[i] >= lower; /* hot: bins by comparison (any) */
  }
}

static void F(bins_by_guess)(const tare_bins *bins, const real *restrict key, int32_t *restrict bin) {
  const real *restrict lower = bins->F(lower);
  const real count = (real)bins->count;
  const int32_t last = bins->count - 1;
#pragma omp simd
  for (int i = 0; i < F(CHUNK); i++) { /* hot: bins by guess (any) */
    const real u = key[i];
    const real e = F(exp_nonpositive)(u < 0 ? u : -u);
    const real scaled = (u < 0 ? e : (real)1) / ((real)1 + e) * count;
    int32_t k = scaled >= 0 ? (int32_t)scaled : 0;
    k = k > last ? last : k;
    bin[i] = k + (u >= lower[k + 1]) - (u < lower[k]);
  }
}

/** Bins of n signed logits; n is a multiple of the chunk, or the rest of the chunk may be read. */
static void F(bins_of_logits)(const tare_bins *bins, const real *restrict key, int32_t n, int32_t *restrict bin) {
  for (int32_t start = 0; start < n; start += F(CHUNK)) {
    if (bins->count == 1 || F(chunk_is_first_bin)(bins, key + start))
      memset(bin + start, 0, F(CHUNK) * sizeof *bin);
    else if (bins->count <= F(FEW_BINS))
      F(bins_by_comparison)(bins, key + start, bin + start);
    else
      F(bins_by_guess)(bins, key + start, bin + start);
  }
}

/** weight[i] *= 1/GD of bin[i]. */
static void F(weigh_by_bin)(const tare_bins *bins, const int32_t *restrict bin, int32_t n, real *restrict weight) {
  const real *restrict of_bin = bins->F(weight);
  for (int32_t start = 0; start < n; start += F(CHUNK)) {
    const int32_t *restrict b = bin + start;
    real *restrict w = weight + start;
#pragma omp simd
    for (int i = 0; i < F(CHUNK); i++) w[i] *= of_bin[b[i]]; /* hot: weigh by bin (any) */
  }
}

/** Counts the bins of elements whose weight is not 0. */
static void F(count_bins)(const int32_t *restrict bin, const real *restrict weight, int32_t n,
                          int64_t (*histogram)[TARE_MAX_BINS]) {
  for (int32_t i = 0; i < n; i++) histogram[i & 3][bin[i]] += weight[i] != 0;
}
