/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys beyond the first bin, brought together, and up to 32 bins counted, with AVX-512 and for float keys: thresholds
 * stand in two registers, and a bin is found by bisection in them, five permutations for sixteen keys. Plain C does not
 * say that (docs/measurements/2026-11-27-cpu-rows-and-few-bins.md). density_counts.h has the general case.
 */

enum { FEW_LANES = 16, FEW_CHUNK = 64 };

typedef struct few_bins {
  __m512 lower[2];
} few_bins;

/** Thresholds are padded to TARE_FEW_BINS with NaN, which no key reaches. */
TARE_INLINE few_bins few_bins_of(const tare_bins *bins) {
  return (few_bins){{_mm512_loadu_ps(bins->lower_f32), _mm512_loadu_ps(bins->lower_f32 + FEW_LANES)}};
}

TARE_INLINE __m512i few_step(const few_bins *bins, __m512 key, __m512i bin, int32_t step) {
  const __m512i next = _mm512_add_epi32(bin, _mm512_set1_epi32(step));
  const __m512 lower = _mm512_permutex2var_ps(bins->lower[0], next, bins->lower[1]);
  return _mm512_mask_mov_epi32(bin, _mm512_cmp_ps_mask(key, lower, _CMP_GE_OQ), next);
}

TARE_INLINE __m512i few_bin(const few_bins *bins, __m512 key) {
  __m512i bin = _mm512_setzero_si512();
  bin = few_step(bins, key, bin, 16);
  bin = few_step(bins, key, bin, 8);
  bin = few_step(bins, key, bin, 4);
  bin = few_step(bins, key, bin, 2);
  return few_step(bins, key, bin, 1);
}

TARE_INLINE int32_t whole_few(int32_t n) { return (n + FEW_CHUNK - 1) / FEW_CHUNK * FEW_CHUNK; }

/** Brings together the keys that have a weight and lie beyond the first bin; returns how many. NaN follow them, up to a
 *  whole number of chunks. */
static int32_t pack_beyond_first(const tare_bins *bins, const float *key, const float *weight, int32_t n,
                                 float *packed) {
  const __m512 second = _mm512_set1_ps(bins->lower_f32[1]); /* of a single bin: NaN, which no key reaches */
  int32_t beyond = 0;
  for (int32_t i = 0; i < n; i += FEW_LANES) {
    const int32_t left = n - i;
    const __mmask16 there = (__mmask16)(left >= FEW_LANES ? 0xffffu : (1u << left) - 1);
    const __m512 x = _mm512_maskz_loadu_ps(there, key + i), w = _mm512_maskz_loadu_ps(there, weight + i);
    const __mmask16 counts = _mm512_mask_cmp_ps_mask(there, w, _mm512_setzero_ps(), _CMP_NEQ_UQ);
    const __mmask16 taken = _mm512_mask_cmp_ps_mask(counts, x, second, _CMP_GE_OQ);
    _mm512_storeu_ps(packed + beyond, _mm512_maskz_compress_ps(taken, x)); /* a store of the few is far slower */
    beyond += __builtin_popcount(taken);
  }
  for (int32_t i = beyond; i < whole_few(beyond); i++) packed[i] = NAN;
  return beyond;
}

/** Moves n keys, packed, from the first bin, where all have been counted, to their own. */
static void few_count(const tare_bins *all, const float *packed, int32_t n, int64_t *histogram) {
  const few_bins bins = few_bins_of(all);
  uint8_t bin[TARE_BLOCK];
  for (int32_t i = 0; i < whole_few(n); i += FEW_LANES) {
    const __m512i found = few_bin(&bins, _mm512_loadu_ps(packed + i));
    _mm_storeu_si128((__m128i *)(void *)(bin + i), _mm512_cvtepi32_epi8(found));
  }
  for (int32_t k = 1; k < all->count && n; k++) {
    int64_t in_bin = 0;
    for (int32_t i = 0; i < n; i += FEW_CHUNK)
      in_bin += (int64_t)_mm_popcnt_u64(_mm512_cmpeq_epi8_mask(_mm512_loadu_si512(bin + i), _mm512_set1_epi8((char)k)));
    histogram[k] += in_bin;
    histogram[0] -= in_bin;
  }
}
