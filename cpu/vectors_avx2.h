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
