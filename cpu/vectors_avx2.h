/* SPDX-License-Identifier: Apache-2.0 */
/* Vectors of AVX2 for negatives.h, dense.h, binned_negatives.h and halves.h. Two of them are worked on abreast. */

#define OPERATION(name) _mm256_##name##_ps
enum { LANES = 8, ABREAST = 2 };

typedef __m256 vector;
/** Lanes, each with all of its bits set or none. */
typedef __m256 choice;
/** The same, set below 0. */
typedef __m256 side;

TARE_INLINE vector magnitudes(vector x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
/** The smaller of `most` and |x|. */
TARE_INLINE vector magnitudes_up_to(vector most, vector x) { return _mm256_min_ps(most, magnitudes(x)); }
TARE_INLINE side side_of(vector x) { return _mm256_castsi256_ps(_mm256_srai_epi32(_mm256_castps_si256(x), 31)); }
TARE_INLINE choice not_zero(vector x) { return _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_NEQ_UQ); }
TARE_INLINE vector chosen(side is_a, vector a, vector b) { return _mm256_blendv_ps(b, a, is_a); }
TARE_INLINE vector left_over(side is_a, vector a, vector b) { /* no second blend: it has two ports, xor three or four */
  return _mm256_xor_ps(_mm256_xor_ps(a, b), chosen(is_a, a, b));
}
TARE_INLINE vector either(choice is_a, vector a, vector b) { return _mm256_blendv_ps(b, a, is_a); }
TARE_INLINE vector only(choice where, vector x) { return _mm256_and_ps(where, x); }
TARE_INLINE vector added_above(side is_below, vector a, vector x) {
  return _mm256_add_ps(a, _mm256_andnot_ps(is_below, x));
}
/** x, its sign turned unless a lane is below. */
TARE_INLINE vector turned_above(side is_below, vector x) {
  return _mm256_xor_ps(_mm256_andnot_ps(is_below, _mm256_set1_ps(-0.0f)), x);
}
TARE_INLINE vector power_of_2(vector biased) { /* the lowest 8 bits become the exponent */
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(biased), 23));
}

/* Bins: whole numbers, and the weights that they have. */

typedef __m256i integers;

TARE_INLINE integers whole_part(vector x) { return _mm256_cvttps_epi32(x); } /* of NaN: negative */
TARE_INLINE integers no_more_than(int32_t most, integers x) { return _mm256_min_epi32(_mm256_set1_epi32(most), x); }
TARE_INLINE integers no_less_than_0(integers x) { return _mm256_max_epi32(_mm256_setzero_si256(), x); }
TARE_INLINE void store_integer_vector(int32_t *to, integers x) { _mm256_storeu_si256((__m256i *)(void *)to, x); }
TARE_INLINE int are_different(integers a, integers b) {
  return !_mm256_testc_si256(_mm256_cmpeq_epi32(a, b), _mm256_set1_epi32(-1));
}

typedef struct bin_weights {
  const float *of;
} bin_weights;

TARE_INLINE bin_weights bin_weights_of(const float *weight) { return (bin_weights){weight}; }
TARE_INLINE vector weight_at(const bin_weights *weights, integers bin) {
  return _mm256_i32gather_ps(weights->of, bin, 4);
}
/** Of 32 bins: each of four registers by the last three bits of a bin, and one of the four by the next two. */
TARE_INLINE vector weight_of_few(const bin_weights *weights, integers bin) {
  const vector by_8 = _mm256_castsi256_ps(_mm256_slli_epi32(bin, 28)),
               by_16 = _mm256_castsi256_ps(_mm256_slli_epi32(bin, 27));
  const vector a = _mm256_permutevar8x32_ps(_mm256_loadu_ps(weights->of), bin);
  const vector b = _mm256_permutevar8x32_ps(_mm256_loadu_ps(weights->of + 8), bin);
  const vector c = _mm256_permutevar8x32_ps(_mm256_loadu_ps(weights->of + 16), bin);
  const vector d = _mm256_permutevar8x32_ps(_mm256_loadu_ps(weights->of + 24), bin);
  return _mm256_blendv_ps(_mm256_blendv_ps(a, b, by_8), _mm256_blendv_ps(c, d, by_8), by_16);
}

/* 16 elements of 16 bits and as many floats, as half.h has them. `has_nan`, a constant: whether one may be NaN. */

enum { HALVES = 16 };

TARE_INLINE void widen_bf16(const uint16_t *from, vector *x) {
  const __m256i zero = _mm256_setzero_si256();
  const __m256i halves = _mm256_permute4x64_epi64(_mm256_loadu_si256((const void *)from), 0xd8);
  x[0] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(zero, halves));
  x[1] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(zero, halves));
}

TARE_INLINE void widen_f16(const uint16_t *from, vector *x) {
  for (int k = 0; k < 2; k++) x[k] = _mm256_cvtph_ps(_mm_loadu_si128((const void *)(from + LANES * k)));
}

TARE_INLINE int have_nan(const vector *x) { return _mm256_movemask_ps(_mm256_cmp_ps(x[0], x[1], _CMP_UNORD_Q)); }

/** In the lower 16 bits. */
TARE_INLINE __m256i rounded_bf16(int has_nan, vector x) {
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)), quiet = _mm256_set1_epi32(0x400000);
  const __m256i bits = _mm256_castps_si256(x),
                odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i of_nan = _mm256_blendv_epi8(rounded, _mm256_or_si256(bits, quiet), is_nan);
  return _mm256_srli_epi32(has_nan ? of_nan : rounded, 16);
}

TARE_INLINE void narrow_bf16(int has_nan, uint16_t *to, const vector *x) {
  const __m256i packed = _mm256_packus_epi32(rounded_bf16(has_nan, x[0]), rounded_bf16(has_nan, x[1]));
  _mm256_storeu_si256((void *)to, _mm256_permute4x64_epi64(packed, 0xd8));
}

/** All NaN become one but for their sign, which the instruction does not do. */
TARE_INLINE void narrow_f16(int has_nan, uint16_t *to, const vector *x) {
  const vector quiet = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000)), sign = _mm256_set1_ps(-0.0f);
  for (int k = 0; k < 2; k++) {
    const vector one = _mm256_or_ps(_mm256_and_ps(x[k], sign), quiet);
    const vector kept = has_nan ? _mm256_blendv_ps(x[k], one, _mm256_cmp_ps(x[k], x[k], _CMP_UNORD_Q)) : x[k];
    _mm_storeu_si128((void *)(to + LANES * k), _mm256_cvtps_ph(kept, _MM_FROUND_TO_NEAREST_INT));
  }
}
