/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The primitives of losses/formulas.h on the CPU: branch-free C that a compiler vectorises.
 *
 * No library function is called, since none would be vectorised. Horner is written out: as a loop it is not unrolled
 * in time for the vectoriser. Coefficients: minimax fits, see docs/primitives.md.
 * Where the machine has no fused multiply-add the same text uses a product and a sum; constants are split so that the
 * argument reduction of exp stays exact.
 */

#if TARE_REAL_BITS == 32

#if defined(__FMA__) || defined(__aarch64__)
TARE_INLINE float multiply_add(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
TARE_INLINE float product_error(float a, float b, float ab) { return __builtin_fmaf(a, b, -ab); }
#else
TARE_INLINE float multiply_add(float a, float b, float c) { return a * b + c; }
/** a*b - ab exactly, by Dekker's splitting into halves of 12 bits. */
TARE_INLINE float product_error(float a, float b, float ab) {
  const float a_scaled = a * 4097.0f, b_scaled = b * 4097.0f;
  const float a_hi = a_scaled - (a_scaled - a), b_hi = b_scaled - (b_scaled - b);
  const float a_lo = a - a_hi, b_lo = b - b_hi;
  return ((a_hi * b_hi - ab) + a_hi * b_lo + a_lo * b_hi) + a_lo * b_lo;
}
#endif

TARE_INLINE float square_root(float x) { return __builtin_sqrtf(x); }
TARE_INLINE float reciprocal(float x) { return 1.0f / x; }
/** e/(1 + e), with larger = 1/(1 + e). Their product alone would also have the error of `larger`. */
TARE_INLINE float smaller_part(float e, float larger) { return multiply_add(-e, e * larger, e); }
TARE_INLINE float magnitude(float x) { return __builtin_fabsf(x); }

TARE_INLINE int32_t bits_of(float x) {
  int32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

TARE_INLINE float from_bits(int32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

#define LARGEST FLT_MAX
#define SMALLEST_NORMAL FLT_MIN
#define LARGEST_EXPONENT 87.0f
#define LOG_2_HI 0x1.62e4p-1f /* so short that its product by an exponent is exact */
#define LOG_2_LO 0x1.7f7d1cp-20f
#define GAMMA_LOG_CLAMP 256.0f
#define ROOT_IS_MAGNITUDE 1e5f
#define SIGMOID_ERROR 0x1p-20f /* relative, with room to spare */

/* The coefficients serve negatives.h as well. In both the polynomials are evaluated in the same order, which leaves few
 * operations to wait for others. */
static const float exp_part[] = {0.5f, 0x1.5554dcp-3f, 0x1.555568p-5f, 0x1.120c3p-7f, 0x1.6caef2p-10f};
static const float log1p_part[] = {-0x1.ffffd2p-2f, 0x1.554ddap-2f,  -0x1.ff2556p-3f, 0x1.93556ap-3f, -0x1.3a6746p-3f,
                                   0x1.b53caep-4f,  -0x1.d7f0e8p-5f, 0x1.4a9412p-6f,  -0x1.b22f7ep-9f};
/** The last bits of n + EXP_SHIFT are the exponent of 2^n, as floats have it. */
#define EXP_SHIFT (0x1.8p23f + 127.0f)

/** exp(n*log 2 + r), n given as n + EXP_SHIFT; 0 if n is -127. */
TARE_INLINE float exp_reduced(float shifted, float r) {
  const float r2 = r * r, low = multiply_add(exp_part[2], r, exp_part[1]);
  const float high = multiply_add(exp_part[4], r, exp_part[3]);
  const float p = multiply_add(multiply_add(high, r2, low), r, exp_part[0]);
  const float scale = from_bits((int32_t)((uint32_t)bits_of(shifted) << 23));
  return multiply_add(multiply_add(r2, p, r), scale, scale); /* products, to keep a NaN */
}

/** exp(hi + lo) for hi <= 0 and |lo| small beside 1; 0 below -87.25, where results are under 1.3e-38. */
TARE_INLINE float exp_sum(float hi, float lo) {
  const float x = hi < -87.25f ? -87.25f : hi;
  const float shifted = multiply_add(x, 0x1.715476p+0f, EXP_SHIFT);
  const float n = shifted - EXP_SHIFT;
  const float r = multiply_add(n, -0x1.7f7d1cp-20f, multiply_add(n, -0x1.62e4p-1f, x));
  return hi < -87.25f ? 0.0f : exp_reduced(shifted, r + lo);
}

/** exp(x) for x <= 0; 0 below -87.68, where n would be -127. */
TARE_INLINE float exp_nonpositive(float x) {
  const float clamped = x < -0x1.5ebb82p+6f ? -0x1.5ebb82p+6f : x;
  const float shifted = multiply_add(clamped, 0x1.715476p+0f, EXP_SHIFT);
  const float n = shifted - EXP_SHIFT;
  const float r = multiply_add(n, -0x1.7f7d1cp-20f, multiply_add(n, -0x1.62e4p-1f, clamped));
  return x < -0x1.5ebb82p+6f ? 0.0f : exp_reduced(shifted, r);
}

#if defined(__FMA__) || defined(__aarch64__)

/** log1p(e) for e in [0,1], to a relative 2^-27.5 before rounding. */
TARE_INLINE float log1p_unit(float e) {
  const float e2 = e * e;
  const float of_7 = multiply_add(log1p_part[8], e, log1p_part[7]);
  const float of_5 = multiply_add(log1p_part[6], e, log1p_part[5]);
  const float of_3 = multiply_add(log1p_part[4], e, log1p_part[3]);
  const float of_1 = multiply_add(log1p_part[2], e, log1p_part[1]);
  float p = multiply_add(of_7, e2, of_5);
  p = multiply_add(p, e2, of_3);
  p = multiply_add(p, e2, of_1);
  p = multiply_add(p, e, log1p_part[0]); /* alone: in a pair it would be rounded twice */
  return multiply_add(e2, p, e);
}

#else

/** log1p(e) for e in [0,1], to a relative 2^-30 before rounding. With roundings of products, nine coefficients in pairs
 *  were up to half an ulp worse. */
TARE_INLINE float log1p_unit(float e) {
  const float e2 = e * e;
  const float of_8 = multiply_add(0x1.1045e4p-9f, e, -0x1.bf8054p-7f);
  const float of_6 = multiply_add(0x1.586bcap-5f, e, -0x1.549f0ap-4f);
  const float of_4 = multiply_add(0x1.fef2p-4f, e, -0x1.4a67a8p-3f);
  float p = multiply_add(of_8, e2, of_6);
  p = multiply_add(p, e2, of_4);
  p = multiply_add(p, e, 0x1.9788bcp-3f);
  p = multiply_add(p, e, -0x1.ffc54cp-3f);
  p = multiply_add(p, e, 0x1.5553b4p-2f);
  p = multiply_add(p, e, -0x1.fffff8p-2f);
  return multiply_add(e2, p, e);
}

#endif

/** log(x) = hi + lo for normal x > 0; NaN for NaN. hi, a multiple of log 2 cut short, is exact. */
typedef struct log_parts {
  float hi, lo;
} log_parts;

TARE_INLINE log_parts log_positive(float x) {
  const int32_t exponent = (bits_of(x) - 0x3f3504f3) >> 23;
  const float m = from_bits(bits_of(x) - (int32_t)((uint32_t)exponent << 23)); /* sqrt(1/2) <= m < sqrt(2) */
  const float s = (m - 1.0f) / (m + 1.0f);
  const float u = s * s;
  float p = 0x1.2ef7ap-3f;
  p = multiply_add(p, u, 0x1.997b98p-3f);
  p = multiply_add(p, u, 0x1.55555cp-2f);
  const float log_m = 2.0f * multiply_add(s * u, p, s);
  log_parts result;
  result.hi = (float)exponent * LOG_2_HI;
  result.lo = multiply_add((float)exponent, LOG_2_LO, log_m) + (x - x);
  return result;
}

#else /* TARE_REAL_BITS == 64 */

#if defined(__FMA__) || defined(__aarch64__)
TARE_INLINE double multiply_add(double a, double b, double c) { return __builtin_fma(a, b, c); }
TARE_INLINE double product_error(double a, double b, double ab) { return __builtin_fma(a, b, -ab); }
#else
TARE_INLINE double multiply_add(double a, double b, double c) { return a * b + c; }
/** a*b - ab exactly, by Dekker's splitting into halves of 26 bits. */
TARE_INLINE double product_error(double a, double b, double ab) {
  const double a_scaled = a * 134217729.0, b_scaled = b * 134217729.0;
  const double a_hi = a_scaled - (a_scaled - a), b_hi = b_scaled - (b_scaled - b);
  const double a_lo = a - a_hi, b_lo = b - b_hi;
  return ((a_hi * b_hi - ab) + a_hi * b_lo + a_lo * b_hi) + a_lo * b_lo;
}
#endif

TARE_INLINE double square_root(double x) { return __builtin_sqrt(x); }
TARE_INLINE double reciprocal(double x) { return 1.0 / x; }
TARE_INLINE double smaller_part(double e, double larger) { return e * larger; }
TARE_INLINE double magnitude(double x) { return __builtin_fabs(x); }

TARE_INLINE int64_t bits_of(double x) {
  int64_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

TARE_INLINE double from_bits(int64_t bits) {
  double x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

#define LARGEST DBL_MAX
#define SMALLEST_NORMAL DBL_MIN
#define LARGEST_EXPONENT 700.0
#define LOG_2_HI 0x1.62e42fefa38p-1 /* so short that its product by an exponent is exact */
#define LOG_2_LO 0x1.ef35793c7673p-45
#define GAMMA_LOG_CLAMP 2048.0
#define ROOT_IS_MAGNITUDE 1e9
#define SIGMOID_ERROR 0x1p-48

/** exp(n*log 2 + r), n given as n + 1.5*2^52. */
TARE_INLINE double exp_reduced(double shifted, double r) {
  double p = 0x1.aeac5623e6effp-26;
  p = multiply_add(p, r, 0x1.2892096a8e2b4p-22);
  p = multiply_add(p, r, 0x1.71de59cce3461p-19);
  p = multiply_add(p, r, 0x1.a019b88ddd7e3p-16);
  p = multiply_add(p, r, 0x1.a01a018c38a89p-13);
  p = multiply_add(p, r, 0x1.6c16c178b493p-10);
  p = multiply_add(p, r, 0x1.11111111144dbp-7);
  p = multiply_add(p, r, 0x1.5555555553cc8p-5);
  p = multiply_add(p, r, 0x1.555555555554dp-3);
  p = multiply_add(p, r, 0x1.0000000000001p-1);
  const double y = multiply_add(r * r, p, r) + 1.0;
  const int64_t biased = bits_of(shifted) - bits_of(0x1.8p52) + 1023;
  return y * from_bits((int64_t)((uint64_t)biased << 52));
}

/** exp(hi + lo) for hi <= 0 and |lo| small beside 1; 0 below -708. */
TARE_INLINE double exp_sum(double hi, double lo) {
  const double x = hi < -708.0 ? -708.0 : hi;
  const double shifted = multiply_add(x, 0x1.71547652b82fep+0, 0x1.8p52);
  const double n = shifted - 0x1.8p52;
  const double r = multiply_add(n, -0x1.ef35793c7673p-45, multiply_add(n, -0x1.62e42fefa38p-1, x));
  return hi < -708.0 ? 0.0 : exp_reduced(shifted, r + lo);
}

TARE_INLINE double exp_nonpositive(double x) { return exp_sum(x, 0.0); }

/** 2*atanh(s) for |s| <= 1/3. */
TARE_INLINE double twice_atanh(double s) {
  const double u = s * s;
  double p = 0x1.4ab6b7f67bd79p-4;
  p = multiply_add(p, u, 0x1.68d54b773b82bp-5);
  p = multiply_add(p, u, 0x1.eb7b7ee1d5f3cp-5);
  p = multiply_add(p, u, 0x1.10adc64a86591p-4);
  p = multiply_add(p, u, 0x1.3b18995691a9cp-4);
  p = multiply_add(p, u, 0x1.745cf1d6da91bp-4);
  p = multiply_add(p, u, 0x1.c71c726960817p-4);
  p = multiply_add(p, u, 0x1.24924923e307cp-3);
  p = multiply_add(p, u, 0x1.999999999a24ap-3);
  p = multiply_add(p, u, 0x1.5555555555555p-2);
  return 2.0 * multiply_add(s * u, p, s);
}

/** log1p(e) for e in [0,1]. */
TARE_INLINE double log1p_unit(double e) { return twice_atanh(e / (2.0 + e)); }

/** log(x) = hi + lo for normal x > 0; NaN for NaN. hi, a multiple of log 2 cut short, is exact. */
typedef struct log_parts {
  double hi, lo;
} log_parts;

TARE_INLINE log_parts log_positive(double x) {
  const int64_t sign_free = 0x4338000000000000; /* 1.5*2^52, in whose last bits an integer can be read */
  const uint64_t shifted = (uint64_t)(bits_of(x) - 0x3fe6a09e667f3bcd) + 0x4000000000000000u;
  const int64_t exponent = (int64_t)(shifted >> 52) - 1024; /* a logical shift, which every vector unit has */
  const double m = from_bits(bits_of(x) - (int64_t)((uint64_t)exponent << 52));
  const double k = from_bits(sign_free + exponent) - 0x1.8p52; /* AVX2 converts no int64_t */
  const double log_m = twice_atanh((m - 1.0) / (m + 1.0));
  log_parts result;
  result.hi = k * LOG_2_HI;
  result.lo = multiply_add(k, LOG_2_LO, log_m) + (x - x);
  return result;
}

#endif

/** Of a block's losses, in double. */
static double sum(const real *restrict x, int32_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int32_t i = 0; i < n; i++) sum += (double)x[i]; /* hot: sum (any) */
  return sum;
}
