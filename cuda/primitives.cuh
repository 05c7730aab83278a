/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The primitives of losses/formulas.h on a GPU, and the formulas themselves: to float's own precision
 * (namespace exact), and less of it where only 16 bits of the gradient are kept (namespace approximate).
 *
 * exp splits off the integer part of the exponent and gives the fraction to ex2.approx. The reciprocal gets one Newton
 * step. log1p is a polynomial, since lg2.approx(1+e) has nothing left of a small e. See docs/primitives.md.
 */
#ifndef TARE_CUDA_PRIMITIVES_CUH
#define TARE_CUDA_PRIMITIVES_CUH

#include <float.h>

#include "device.cuh"
#include "losses/powers.h"

#define TARE_INLINE __device__ __forceinline__

namespace tare {

/* Constants of float, for both namespaces. */
#define LARGEST FLT_MAX
#define SMALLEST_NORMAL FLT_MIN
#define LARGEST_EXPONENT 87.0f
#define LOG_2_HI 0x1.62e4p-1f /* so short that its product by an exponent is exact */
#define LOG_2_LO 0x1.7f7d1cp-20f
#define GAMMA_LOG_CLAMP 256.0f

namespace exact {

typedef float real;

TARE_INLINE float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
TARE_INLINE float product_error(float a, float b, float ab) { return fmaf(a, b, -ab); }
/** 1/x for x in (0,4] that is not subnormal. */
TARE_INLINE float reciprocal(float x) {
  const float r = rcp_approx(x);
  return fmaf(fmaf(-x, r, 1.0f), r, r);
}

/** With one Newton step; the device's exact root and division may be calls, around which registers are spilled. */
TARE_INLINE float square_root(float x) {
  const float s = sqrt_approx(x);
  return s > 0.0f ? fmaf(fmaf(-s, s, x), 0.5f * rcp_approx(s), s) : s;
}
TARE_INLINE float magnitude(float x) { return fabsf(x); }

/** exp(x)*2^more for 0 >= x > -88.3 and |more| small beside 1. The integer part of x*log2(e), which comes from the last
 *  bits of a sum, becomes an exponent, exactly; ex2.approx errs least on what is left. 0 below -87.68. */
TARE_INLINE float exp_moderate(float x, float more) {
  const float round_to_integer = 0x1.8p23f;
  const float shifted = fmaf(x, 0x1.715476p+0f, round_to_integer), n = shifted - round_to_integer;
  const float fraction = fmaf(x, 0x1.4ae0cp-26f, fmaf(x, 0x1.715476p+0f, -n)); /* log2(e) in two parts */
  const uint32_t biased = __float_as_uint(shifted) - 0x4b400000u + 127u;
  return exp2_approx(fraction + more) * __uint_as_float(biased << 23);
}

/** exp(hi + lo) for hi <= 0; 0 below -88, whatever lo is. */
TARE_INLINE float exp_sum(float hi, float lo) {
  const float y = exp_moderate(hi, lo * 0x1.715476p+0f);
  return hi < -88.0f ? 0.0f : y;
}

TARE_INLINE float exp_nonpositive(float x) {
  const float magnitude = -x > 88.0f ? 88.0f : -x; /* one instruction, which hands on NaN */
  return exp_moderate(-magnitude, -0.0f);          /* y + -0 is y, and costs nothing */
}

/** e/(1+e), where larger is about 1/(1+e): whose error no longer shows where e is small. */
TARE_INLINE float smaller_part(float e, float larger) { return fmaf(-e, e * larger, e); }

/** log1p(e) for e in [0,1]. */
TARE_INLINE float log1p_unit(float e) {
  float p = 0x1.5fa0dap-8f;
  p = fmaf(p, e, -0x1.eca398p-6f);
  p = fmaf(p, e, 0x1.44707ap-4f);
  p = fmaf(p, e, -0x1.19af8ep-3f);
  p = fmaf(p, e, 0x1.884554p-3f);
  p = fmaf(p, e, -0x1.fd1368p-3f);
  p = fmaf(p, e, 0x1.5535dep-2f);
  p = fmaf(p, e, -0x1.ffff14p-2f);
  p = fmaf(p, e, 1.0f);
  return p * e;
}

struct log_parts {
  float hi, lo;
};

/** log(x) = hi + lo for normal x > 0; NaN for NaN. hi, a multiple of log 2 cut short, is exact. */
TARE_INLINE log_parts log_positive(float x) {
  const int exponent = (__float_as_int(x) - 0x3f3504f3) >> 23;
  const float m = __uint_as_float(__float_as_uint(x) - (uint32_t(exponent) << 23));
  const float s = (m - 1.0f) * reciprocal(m + 1.0f), u = s * s;
  float p = 0x1.2ef7ap-3f;
  p = fmaf(p, u, 0x1.997b98p-3f);
  p = fmaf(p, u, 0x1.55555cp-2f);
  log_parts result;
  result.hi = (float)exponent * LOG_2_HI;
  result.lo = fmaf((float)exponent, LOG_2_LO, 2.0f * fmaf(s * u, p, s)) + (x - x);
  return result;
}

#include "losses/all.h"

}  // namespace exact

/** To 20 bits or so where an element weighs in a sum, and ever fewer far out. */
namespace approximate {

typedef float real;

TARE_INLINE float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
TARE_INLINE float product_error(float, float, float) { return 0.0f; }
TARE_INLINE float reciprocal(float x) { return rcp_approx(x); }
TARE_INLINE float smaller_part(float e, float larger) { return e * larger; }
TARE_INLINE float square_root(float x) { return sqrt_approx(x); }
TARE_INLINE float magnitude(float x) { return fabsf(x); }
TARE_INLINE float exp_nonpositive(float x) { return exp2_approx(x * 0x1.715476p+0f); }
TARE_INLINE float exp_sum(float hi, float) { return exp_nonpositive(hi); }

/** e/(1+e) times a polynomial. This saves a degree, and e/(1+e) is needed anyway. */
TARE_INLINE float log1p_unit(float e) {
  float p = -0x1.b88226p-9f;
  p = fmaf(p, e, 0x1.0f39d2p-6f);
  p = fmaf(p, e, -0x1.53689cp-5f);
  p = fmaf(p, e, 0x1.4b3c76p-4f);
  p = fmaf(p, e, -0x1.549e6cp-3f);
  p = fmaf(p, e, 0x1.fffb3ap-2f);
  p = fmaf(p, e, 0x1.000002p0f);
  return e * reciprocal(1.0f + e) * p;
}

typedef exact::log_parts log_parts;
TARE_INLINE log_parts log_positive(float x) { return exact::log_positive(x); }

#include "losses/all.h"

}  // namespace approximate

#undef LARGEST
#undef SMALLEST_NORMAL
#undef LARGEST_EXPONENT
#undef LOG_2_HI
#undef LOG_2_LO
#undef GAMMA_LOG_CLAMP

}  // namespace tare

#endif
