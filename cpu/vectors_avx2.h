/* SPDX-License-Identifier: Apache-2.0 */
/* Vectors of AVX2 for negatives.h. Two of them are worked on abreast. */

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
TARE_INLINE vector only(choice where, vector x) { return _mm256_and_ps(where, x); }
TARE_INLINE vector added_above(side is_below, vector a, vector x) {
  return _mm256_add_ps(a, _mm256_andnot_ps(is_below, x));
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

enum { HAS_WEIGHTS_OF_FEW = 1 };

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
