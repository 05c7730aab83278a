/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The primitives of core/formulas.h on a GPU, and the formulas themselves, in float.
 *
 * exp takes its integer part apart and leaves the fraction to ex2.approx; the reciprocal gets one Newton step; log1p is
 * the CPU's polynomial, since lg2.approx(1+e) has nothing left of a small e. See docs/notes/2026-11-23-primitives.md.
 */
#ifndef TARE_CUDA_PRIMITIVES_CUH
#define TARE_CUDA_PRIMITIVES_CUH

#include <float.h>

#include "device.cuh"

#define TARE_INLINE __device__ __forceinline__

namespace tare {

#include "core/powers.h"

#define real float
#define F(name) name##_f32
#define LARGEST_f32 FLT_MAX
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

/** exp(hi + lo) for hi <= 0 and |lo| small beside 1; 0 below -87.25. */
TARE_INLINE float exp_sum_f32(float hi, float lo) {
  const float round_to_integer = 0x1.8p23f;
  const float x = hi < -87.25f ? -87.25f : hi;
  const float shifted = fmaf(x, 0x1.715476p+0f, round_to_integer);
  const float n = shifted - round_to_integer;
  float r = fmaf(n, -0x1.62e4p-1f, x); /* log 2 in two parts, the first short */
  r = fmaf(n, -0x1.7f7d1cp-20f, r) + lo;
  const float y = exp2_approx(r * 0x1.715476p+0f);
  const uint32_t biased = __float_as_uint(shifted) - 0x4b400000u + 127u;
  return hi < -87.25f ? 0.0f : y * __uint_as_float(biased << 23);
}

TARE_INLINE float exp_nonpositive_f32(float x) { return exp_sum_f32(x, -0.0f); } /* x + -0 is x, and costs nothing */

/** log1p(e) for e in [0,1]. */
TARE_INLINE float log1p_unit_f32(float e) {
  float p = 0x1.1045e4p-9f;
  p = fmaf(p, e, -0x1.bf8054p-7f);
  p = fmaf(p, e, 0x1.586bcap-5f);
  p = fmaf(p, e, -0x1.549f0ap-4f);
  p = fmaf(p, e, 0x1.fef2p-4f);
  p = fmaf(p, e, -0x1.4a67a8p-3f);
  p = fmaf(p, e, 0x1.9788bcp-3f);
  p = fmaf(p, e, -0x1.ffc54cp-3f);
  p = fmaf(p, e, 0x1.5553b4p-2f);
  p = fmaf(p, e, -0x1.fffff8p-2f);
  return fmaf(e * e, p, e);
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
  result.hi = (float)exponent * 0x1.62e4p-1f;
  result.lo = fmaf((float)exponent, 0x1.7f7d1cp-20f, 2.0f * fmaf(s * u, p, s)) + (x - x);
  return result;
}

#include "core/formulas.h"
#include "core/losses/sigmoid_ce.h"
#include "core/losses/sigmoid_focal.h"
#include "core/losses/sigmoid_poly1.h"
#include "core/losses/softmax_ce.h"
#include "core/losses/softmax_focal.h"

#undef real
#undef F

}  // namespace tare

#endif
