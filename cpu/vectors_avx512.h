/* SPDX-License-Identifier: Apache-2.0 */
/* Vectors of AVX-512 for negatives.h, dense.h, binned_negatives.h and halves.h. */

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
TARE_INLINE vector either(choice is_a, vector a, vector b) { return _mm512_mask_blend_ps(is_a, b, a); }
TARE_INLINE vector only(choice where, vector x) { return _mm512_maskz_mov_ps(where, x); }
TARE_INLINE vector turned_above(side where, vector x) { return _mm512_mask_xor_ps(x, where, x, _mm512_set1_ps(-0.0f)); }
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

/* 32 elements of 16 bits and as many floats, as half.h has them. `has_nan`, a constant: whether one may be NaN. */

enum { HALVES = 32 };

static const uint16_t upper_words[] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                                       33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
static const uint16_t twice[] = {0, 0, 1, 1, 2,  2,  3,  3,  4,  4,  5,  5,  6,  6,  7,  7,
                                 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15};

TARE_INLINE void widen_bf16(const uint16_t *from, vector *x) {
  const __m512i places = _mm512_loadu_si512(twice);
  for (int k = 0; k < 2; k++) {
    const __m512i halves = _mm512_castsi256_si512(_mm256_loadu_si256((const void *)(from + LANES * k)));
    x[k] = _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, places, halves));
  }
}

TARE_INLINE void widen_f16(const uint16_t *from, vector *x) {
  for (int k = 0; k < 2; k++) x[k] = _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(from + LANES * k)));
}

TARE_INLINE int have_nan(const vector *x) { return _mm512_cmp_ps_mask(x[0], x[1], _CMP_UNORD_Q) != 0; }

/** The instruction for it takes what is below the normal numbers for 0. Of the bits that go, more than half a unit, or
 *  half of one at an odd number, make 1 more: the average of them and of nearly a half has its upper bit set. */
TARE_INLINE void narrow_bf16(int has_nan, uint16_t *to, const vector *x) {
  const __m512i a = _mm512_castps_si512(x[0]), b = _mm512_castps_si512(x[1]), places = _mm512_loadu_si512(upper_words);
  const __m512i kept = _mm512_permutex2var_epi16(a, places, b);
  const __m512i gone = _mm512_permutex2var_epi16(a, _mm512_sub_epi16(places, _mm512_set1_epi16(1)), b);
  const __m512i half = _mm512_ternarylogic_epi32(kept, _mm512_set1_epi16(1), _mm512_set1_epi16(0x7ffe), 0xea);
  const __m512i more = _mm512_srli_epi16(_mm512_avg_epu16(gone, half), 15);
  const __m512i rounded = _mm512_add_epi16(kept, more);
  const __mmask32 is_nan =
      (__mmask32)_mm512_cmp_ps_mask(x[1], x[1], _CMP_UNORD_Q) << 16 | _mm512_cmp_ps_mask(x[0], x[0], _CMP_UNORD_Q);
  const __m512i quiet = _mm512_or_si512(kept, _mm512_set1_epi16(0x40));
  _mm512_storeu_si512(to, has_nan ? _mm512_mask_mov_epi16(rounded, is_nan, quiet) : rounded);
}

/** All NaN become one but for their sign, which the instruction does not do. */
TARE_INLINE void narrow_f16(int has_nan, uint16_t *to, const vector *x) {
  const __m512i quiet = _mm512_set1_epi32(0x7fc00000), sign = _mm512_set1_epi32(INT32_MIN);
  for (int k = 0; k < 2; k++) {
    const __m512i bits = _mm512_castps_si512(x[k]), one = _mm512_ternarylogic_epi32(bits, sign, quiet, 0xea);
    const __mmask16 is_nan = _mm512_cmp_ps_mask(x[k], x[k], _CMP_UNORD_Q);
    const vector kept = has_nan ? _mm512_castsi512_ps(_mm512_mask_mov_epi32(bits, is_nan, one)) : x[k];
    _mm256_storeu_si256((void *)(to + LANES * k), _mm512_cvtps_ph(kept, _MM_FROUND_TO_NEAREST_INT));
  }
}

/* Some elements, fewer than HALVES, to and from rooms for as many as that. */

#define HAS_SOME_HALVES

TARE_INLINE void get_some(uint16_t *room, const uint16_t *from, int64_t some) {
  _mm512_storeu_si512(room, _mm512_maskz_loadu_epi16((__mmask32)((1u << some) - 1), from));
}

TARE_INLINE void put_some(uint16_t *to, const uint16_t *room, int64_t some) {
  _mm512_mask_storeu_epi16(to, (__mmask32)((1u << some) - 1), _mm512_loadu_si512(room));
}

TARE_INLINE void get_some_floats(float *room, const float *from, int64_t some) {
  const uint32_t mask = (1u << some) - 1;
  _mm512_storeu_ps(room, _mm512_maskz_loadu_ps((__mmask16)mask, from));
  _mm512_storeu_ps(room + LANES, _mm512_maskz_loadu_ps((__mmask16)(mask >> LANES), from + LANES));
}

TARE_INLINE void put_some_floats(float *to, const float *room, int64_t some) {
  const uint32_t mask = (1u << some) - 1;
  _mm512_mask_storeu_ps(to, (__mmask16)mask, _mm512_loadu_ps(room));
  _mm512_mask_storeu_ps(to + LANES, (__mmask16)(mask >> LANES), _mm512_loadu_ps(room + LANES));
}
