/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The primitives of losses/formulas.h on a GPU, and the formulas themselves: in float (_f32), and in float where only 16
 * bits of the gradient are kept (_rough).
 *
 * exp takes its integer part apart and leaves the fraction to ex2.approx; the reciprocal gets one Newton step; log1p is
 * a polynomial, since lg2.approx(1+e) has nothing left of a small e. See docs/primitives.md.
 */
#ifndef TARE_CUDA_PRIMITIVES_CUH
#define TARE_CUDA_PRIMITIVES_CUH

#include <float.h>

#include "device.cuh"

#define TARE_INLINE __device__ __forceinline__

namespace tare {

#include "losses/powers.h"

#define real float
#define F(name) name##_f32
#define LARGEST_f32 FLT_MAX
#define SMALLEST_NORMAL_f32 FLT_MIN
#define LARGEST_EXPONENT_f32 87.0f
#define LOG_2_HI_f32 0x1.62e4p-1f /* so short that its product by an exponent is exact */
#define LOG_2_LO_f32 0x1.7f7d1cp-20f
#define GAMMA_LOG_CLAMP_f32 256.0f

TARE_INLINE float multiply_add_f32(float a, float b, float c) { return fmaf(a, b, c); }
TARE_INLINE float product_error_f32(float a, float b, float ab) { return fmaf(a, b, -ab); }
/** 1/x for x in (0,4] that is not subnormal. */
TARE_INLINE float reciprocal_f32(float x) {
  const float r = rcp_approx(x);
  return fmaf(fmaf(-x, r, 1.0f), r, r);
}

/** With one Newton step; the device's exact root and division may be calls, around which registers are spilled. */
TARE_INLINE float square_root_f32(float x) {
  const float s = sqrt_approx(x);
  return s > 0.0f ? fmaf(fmaf(-s, s, x), 0.5f * rcp_approx(s), s) : s;
}
TARE_INLINE float magnitude_f32(float x) { return fabsf(x); }

/** exp(x)*2^more for 0 >= x > -88.3 and |more| small beside 1. The integer part of x*log2(e), which comes from the last bits
 *  of a sum, becomes an exponent, exactly; ex2.approx errs least on what is left. 0 below -87.68. */
TARE_INLINE float exp_moderate(float x, float more) {
  const float round_to_integer = 0x1.8p23f;
  const float shifted = fmaf(x, 0x1.715476p+0f, round_to_integer), n = shifted - round_to_integer;
  const float fraction = fmaf(x, 0x1.4ae0cp-26f, fmaf(x, 0x1.715476p+0f, -n)); /* log2(e) in two parts */
  const uint32_t biased = __float_as_uint(shifted) - 0x4b400000u + 127u;
  return exp2_approx(fraction + more) * __uint_as_float(biased << 23);
}

/** exp(hi + lo) for hi <= 0; 0 below -88, whatever lo is. */
TARE_INLINE float exp_sum_f32(float hi, float lo) {
  const float y = exp_moderate(hi, lo * 0x1.715476p+0f);
  return hi < -88.0f ? 0.0f : y;
}

TARE_INLINE float exp_nonpositive_f32(float x) {
  const float magnitude = -x > 88.0f ? 88.0f : -x; /* one instruction, which hands on NaN */
  return exp_moderate(-magnitude, -0.0f);          /* y + -0 is y, and costs nothing */
}

/** e/(1+e), where larger is about 1/(1+e): whose error no longer shows where e is small. */
TARE_INLINE float smaller_part_f32(float e, float larger) { return fmaf(-e, e * larger, e); }

/** log1p(e) for e in [0,1]. */
TARE_INLINE float log1p_unit_f32(float e) {
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

struct log_parts_f32 {
  float hi, lo;
};

/** log(x) = hi + lo for normal x > 0; NaN for NaN. hi, a multiple of log 2 cut short, is exact. */
TARE_INLINE log_parts_f32 log_positive_f32(float x) {
  const int exponent = (__float_as_int(x) - 0x3f3504f3) >> 23;
  const float m = __uint_as_float(__float_as_uint(x) - (uint32_t(exponent) << 23));
  const float s = (m - 1.0f) * reciprocal_f32(m + 1.0f), u = s * s;
  float p = 0x1.2ef7ap-3f;
  p = fmaf(p, u, 0x1.997b98p-3f);
  p = fmaf(p, u, 0x1.55555cp-2f);
  log_parts_f32 result;
  result.hi = (float)exponent * LOG_2_HI_f32;
  result.lo = fmaf((float)exponent, LOG_2_LO_f32, 2.0f * fmaf(s * u, p, s)) + (x - x);
  return result;
}

#include "losses/formulas.h"
#include "losses/sigmoid_ce.h"
#include "losses/sigmoid_focal.h"
#include "losses/sigmoid_poly1.h"
#include "losses/softmax_ce.h"
#include "losses/softmax_focal.h"

#undef F

/* ---- Rough: exact to 20 bits or so where an element weighs in a sum, and ever less far out ----------------------- */

#define F(name) name##_rough
#define LARGEST_rough LARGEST_f32
#define SMALLEST_NORMAL_rough SMALLEST_NORMAL_f32
#define LARGEST_EXPONENT_rough LARGEST_EXPONENT_f32
#define LOG_2_HI_rough LOG_2_HI_f32
#define LOG_2_LO_rough LOG_2_LO_f32
#define GAMMA_LOG_CLAMP_rough GAMMA_LOG_CLAMP_f32

TARE_INLINE float multiply_add_rough(float a, float b, float c) { return fmaf(a, b, c); }
TARE_INLINE float product_error_rough(float, float, float) { return 0.0f; }
TARE_INLINE float reciprocal_rough(float x) { return rcp_approx(x); }
TARE_INLINE float smaller_part_rough(float e, float larger) { return e * larger; }
TARE_INLINE float square_root_rough(float x) { return sqrt_approx(x); }
TARE_INLINE float magnitude_rough(float x) { return fabsf(x); }
TARE_INLINE float exp_nonpositive_rough(float x) { return exp2_approx(x * 0x1.715476p+0f); }
TARE_INLINE float exp_sum_rough(float hi, float) { return exp_nonpositive_rough(hi); }

/** As e/(1+e) times a polynomial: a degree less than without, and e/(1+e) is needed anyway. */
TARE_INLINE float log1p_unit_rough(float e) {
  float p = -0x1.b88226p-9f;
  p = fmaf(p, e, 0x1.0f39d2p-6f);
  p = fmaf(p, e, -0x1.53689cp-5f);
  p = fmaf(p, e, 0x1.4b3c76p-4f);
  p = fmaf(p, e, -0x1.549e6cp-3f);
  p = fmaf(p, e, 0x1.fffb3ap-2f);
  p = fmaf(p, e, 0x1.000002p0f);
  return e * reciprocal_rough(1.0f + e) * p;
}

typedef log_parts_f32 log_parts_rough;
TARE_INLINE log_parts_rough log_positive_rough(float x) { return log_positive_f32(x); }

#include "losses/formulas.h"
#include "losses/sigmoid_ce.h"
#include "losses/sigmoid_focal.h"
#include "losses/sigmoid_poly1.h"

#undef real
#undef F

}  // namespace tare

#endif
