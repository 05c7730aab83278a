/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Up to 32 bins with AVX-512, for float keys: thresholds and weights stand in two registers each, and a bin is found by
 * bisection in them, five permutations for sixteen keys. Plain C does not say that, and takes twice the time (see
 * docs/measurements/2026-11-27-cpu-rows-and-few-bins.md). density.h has the general case.
 */

enum { FEW_LANES = 16, FEW_CHUNK = 64 };

typedef struct few_bins {
  __m512 lower[2], weight[2];
} few_bins;

/** Arrays of bins are padded to TARE_FEW_BINS: thresholds with NaN, which no key reaches. */
TARE_INLINE few_bins few_bins_of(const tare_bins *bins) {
  return (few_bins){{_mm512_loadu_ps(bins->lower_f32), _mm512_loadu_ps(bins->lower_f32 + FEW_LANES)},
                    {_mm512_loadu_ps(bins->weight_f32), _mm512_loadu_ps(bins->weight_f32 + FEW_LANES)}};
}

/** Whether a chunk of 64 keys lies in the first bin as a whole. */
TARE_INLINE int few_is_first(const few_bins *bins, const float *key) {
  const __m512 second = _mm512_permutexvar_ps(_mm512_set1_epi32(1), bins->lower[0]);
  const __mmask16 a = _mm512_cmp_ps_mask(_mm512_loadu_ps(key), second, _CMP_GE_OQ);
  const __mmask16 b = _mm512_cmp_ps_mask(_mm512_loadu_ps(key + 16), second, _CMP_GE_OQ);
  const __mmask16 c = _mm512_cmp_ps_mask(_mm512_loadu_ps(key + 32), second, _CMP_GE_OQ);
  const __mmask16 d = _mm512_cmp_ps_mask(_mm512_loadu_ps(key + 48), second, _CMP_GE_OQ);
  return _mm512_kortestz(_mm512_kor(a, b), _mm512_kor(c, d));
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

/** out[i] = weight[i] x 1/GD of key[i]'s bin, for n keys in whole chunks; 0 where the weight is 0, whatever 1/GD is. */
static void few_weigh(const tare_bins *all, const float *key, const float *weight, int32_t n, float *out) {
  const few_bins bins = few_bins_of(all);
  const __m512 of_first = _mm512_set1_ps(all->weight_f32[0]);
  for (int32_t i = 0; i < n; i += FEW_CHUNK) {
    const int is_first = few_is_first(&bins, key + i);
    for (int32_t j = i; j < i + FEW_CHUNK; j += FEW_LANES) {
      __m512 factor = of_first;
      if (!is_first)
        factor = _mm512_permutex2var_ps(bins.weight[0], few_bin(&bins, _mm512_loadu_ps(key + j)), bins.weight[1]);
      const __m512 w = _mm512_loadu_ps(weight + j);
      const __mmask16 counts = _mm512_cmp_ps_mask(w, _mm512_setzero_ps(), _CMP_NEQ_UQ);
      _mm512_storeu_ps(out + j, _mm512_maskz_mul_ps(counts, w, factor));
    }
  }
}

/** The bins of a chunk, or of what there is of it, as bytes; 0 where the weight is 0. */
TARE_INLINE void few_bins_of_chunk(const few_bins *bins, const float *key, const float *weight, int32_t n,
                                   uint8_t *bin) {
  for (int32_t j = 0; j < FEW_CHUNK; j += FEW_LANES) {
    const int32_t left = n - j < 0 ? 0 : n - j;
    const __mmask16 there = (__mmask16)(left >= FEW_LANES ? 0xffffu : (1u << left) - 1);
    const __m512 w = _mm512_maskz_loadu_ps(there, weight + j);
    const __mmask16 counts = _mm512_cmp_ps_mask(w, _mm512_setzero_ps(), _CMP_NEQ_UQ);
    const __m512i found = few_bin(bins, _mm512_maskz_loadu_ps(there, key + j));
    _mm_storeu_si128((__m128i *)(void *)(bin + j), _mm512_maskz_cvtepi32_epi8(counts, found));
  }
}

/** Moves those of n keys that have a weight from the first bin, where all have been counted, to their own. */
static void few_count(const tare_bins *all, const float *key, const float *weight, int32_t n, int64_t *histogram) {
  const few_bins bins = few_bins_of(all);
  uint8_t bin[TARE_BLOCK];
  int32_t busy = 0;
  for (int32_t i = 0; i < n; i += FEW_CHUNK) {
    const int32_t length = n - i < FEW_CHUNK ? n - i : FEW_CHUNK;
    if (length == FEW_CHUNK && few_is_first(&bins, key + i)) continue;
    few_bins_of_chunk(&bins, key + i, weight + i, length, bin + busy);
    busy += FEW_CHUNK;
  }
  for (int32_t k = 1; k < all->count && busy; k++) {
    int64_t in_bin = 0;
    for (int32_t i = 0; i < busy; i += FEW_CHUNK)
      in_bin += (int64_t)_mm_popcnt_u64(_mm512_cmpeq_epi8_mask(_mm512_loadu_si512(bin + i), _mm512_set1_epi8((char)k)));
    histogram[k] += in_bin;
    histogram[0] -= in_bin;
  }
}
