/* SPDX-License-Identifier: Apache-2.0 */
/* Vectors of AVX-512 for negatives.h. */

#define OPERATION(name) _mm512_##name##_ps
enum { LANES = 16, ABREAST = 1 };

typedef __m512 vector;
typedef __mmask16 choice;
/** The lanes that are not below 0. */
typedef __mmask16 side;

TARE_INLINE vector magnitudes(vector x) { return _mm512_abs_ps(x); }
/** The smaller of `most` and |x|; `most` where x is NaN. */
TARE_INLINE vector magnitudes_up_to(vector most, vector x) { return _mm512_range_ps(most, x, 10); }
TARE_INLINE side side_of(vector x) { return _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_NLT_UQ); }
TARE_INLINE choice not_zero(vector x) { return _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_NEQ_UQ); }
TARE_INLINE vector chosen(side is_b, vector a, vector b) { return _mm512_mask_blend_ps(is_b, a, b); }
TARE_INLINE vector left_over(side is_b, vector a, vector b) { return _mm512_mask_blend_ps(is_b, b, a); }
TARE_INLINE vector added_above(side where, vector a, vector x) { return _mm512_mask_add_ps(a, where, a, x); }
TARE_INLINE vector only(choice where, vector x) { return _mm512_maskz_mov_ps(where, x); }
TARE_INLINE vector power_of_2(vector biased) { /* the lowest 8 bits become the exponent */
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(biased), 23));
}
