/* SPDX-License-Identifier: Apache-2.0 */
/* Vectors of AVX-512 for negatives.h. */

#define OPERATION(name) _mm512_##name##_ps
enum { LANES = 16, ABREAST = 1 };

typedef __m512 vector;
typedef __mmask16 choice;

TARE_INLINE vector magnitudes(vector x) { return _mm512_abs_ps(x); }
TARE_INLINE choice with_sign(vector x) { return _mm512_movepi32_mask(_mm512_castps_si512(x)); }
TARE_INLINE choice not_zero(vector x) { return _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_NEQ_UQ); }
TARE_INLINE vector chosen(choice is_a, vector a, vector b) { return _mm512_mask_blend_ps(is_a, b, a); }
TARE_INLINE vector left_over(choice is_a, vector a, vector b) { return _mm512_mask_blend_ps(is_a, a, b); }
TARE_INLINE vector only(choice where, vector x) { return _mm512_maskz_mov_ps(where, x); }
TARE_INLINE vector except(choice where, vector x) { return _mm512_mask_mov_ps(x, where, _mm512_setzero_ps()); }
TARE_INLINE vector power_of_2(vector biased) { /* the lowest 8 bits become the exponent */
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(biased), 23));
}
