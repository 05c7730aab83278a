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

/* Bins: whole numbers, and the weights that they have. */

typedef __m512i integers;

TARE_INLINE integers whole_part(vector x) { return _mm512_cvttps_epi32(x); } /* of NaN: negative */
TARE_INLINE integers no_more_than(int32_t most, integers x) { return _mm512_min_epi32(_mm512_set1_epi32(most), x); }
TARE_INLINE integers no_less_than_0(integers x) { return _mm512_max_epi32(_mm512_setzero_si512(), x); }
TARE_INLINE void store_integer_vector(int32_t *to, integers x) { _mm512_storeu_si512(to, x); }
TARE_INLINE int are_different(integers a, integers b) { return _mm512_cmpneq_epi32_mask(a, b) != 0; }

enum { HAS_WEIGHTS_OF_FEW = 1 };

typedef struct bin_weights {
  const float *of;
  __m512 low, high; /* of the first 32 bins */
} bin_weights;

TARE_INLINE bin_weights bin_weights_of(const float *weight) {
  return (bin_weights){weight, _mm512_loadu_ps(weight), _mm512_loadu_ps(weight + LANES)};
}
TARE_INLINE vector weight_at(const bin_weights *weights, integers bin) {
  return _mm512_i32gather_ps(bin, weights->of, 4);
}
/** By the last five bits of each bin: those of what NaN becomes are 0. */
TARE_INLINE vector weight_of_few(const bin_weights *weights, integers bin) {
  return _mm512_permutex2var_ps(weights->low, bin, weights->high);
}
