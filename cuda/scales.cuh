/* SPDX-License-Identifier: Apache-2.0 */
/* Divisor, gradient scale, and the sum of a thread: what keeps a product or a sum within the range of a float. */
#ifndef TARE_CUDA_SCALES_CUH
#define TARE_CUDA_SCALES_CUH

#include "row_roles.cuh"

namespace tare {

/** 1/x to within a rounding or two, without the call that a division in double is; Newton's steps from a float. A power
 *  of two keeps any float's reciprocal a float that is not flushed. */
__device__ __forceinline__ double reciprocal(double x) {
  const double size = fabs(x), scale = size > 1e30 ? 0x1p-64 : size < 1e-30 ? 0x1p64 : 1.0, y = x * scale;
  double r = double(rcp_approx(float(y)));
  if (!(fabs(y) > 1e-36 && fabs(y) < 1e36)) return r; /* 0, infinity, NaN, and what no float is */
  r = fma(fma(-y, r, 1.0), r, r);
  r = fma(fma(-y, r, 1.0), r, r);
  return fma(fma(-y, r, 1.0), r, r) * scale;
}

__device__ __forceinline__ double inverse_divisor_of(const call &c) {
  if (c.divisor_counted) return c.record->inverse_divisor;
  return c.divisor_pointer ? reciprocal(double(*c.divisor_pointer)) : c.inverse_divisor;
}

/* ---- The gradient's scale: cpu/scale.h says what holds ----------------------------------------------------------- */

__device__ __forceinline__ bool is_finite(double x) { return fabs(x) <= DBL_MAX; }

/** In a fused head, a scale that is not finite is applied after the products. */
__device__ __forceinline__ double gradient_scale_of(const call &c) {
  const double scale = c.gradient_scale * (c.gradient_scale_pointer ? double(*c.gradient_scale_pointer) : 1.0);
  return c.scale_follows && !is_finite(scale) ? 1.0 : scale;
}

/** Scale over divisor; to be multiplied by if it is ordinary, else a derivative is `rescaled`. */
__device__ __forceinline__ float gradient_factor_of(const call &c) {
  return float(gradient_scale_of(c) * inverse_divisor_of(c));
}
__device__ __forceinline__ bool is_ordinary(float factor) {
  return fabsf(factor) >= FLT_MIN && fabsf(factor) <= FLT_MAX;
}

/** A derivative times weight, scale and 1/divisor. One that is 0 without the scale, as it would be written, stays 0. */
template <typename T>
__device__ __forceinline__ float rescaled(const call &c, float derivative, float weight = 1.0f) {
  if (derivative == 0.0f) return 0.0f;
  const double scale = gradient_scale_of(c), inverse = inverse_divisor_of(c),
               weighted = double(derivative) * double(weight);
  if (is_finite(scale)) return float(weighted * (scale * inverse));
  const float unscaled = to_float(from_float<T>(float(weighted * inverse)));
  return unscaled == 0.0f ? 0.0f : unscaled * float(scale);
}

/** A derivative as it is written. */
template <typename T>
__device__ __forceinline__ T finished(const call &c, float factor, float derivative) {
  return from_float<T>(is_ordinary(factor) ? derivative * factor : rescaled<T>(c, derivative));
}

/* ---- Sums of the loss -------------------------------------------------------------------------------------------- */

constexpr float largest_addend = 1e30f; /* no thread adds so many of these that the sum is infinite */
constexpr float shrink = 0x1p-8f;       /* the losses of a vector are multiplied by it before they are added */

/** The sum of a thread. Losses that might leave a float's range are added separately, in a larger unit. */
struct loss_sum {
  float small = 0.0f, shrunk = 0.0f, large = 0.0f; /* in units of 1, 1/shrink, 2^40 */
  __device__ __forceinline__ void add(float loss) {
    if (fabsf(loss) <= largest_addend)
      small += loss;
    else
      large = fmaf(loss, 0x1p-40f, large); /* the product is exact */
  }
  __device__ __forceinline__ void add_shrunk(float loss) {
    if (fabsf(loss) <= largest_addend)
      shrunk += loss;
    else
      large = fmaf(loss, float(0x1p-40 / shrink), large);
  }
  __device__ __forceinline__ double all() const {
    return double(small) + double(shrunk) / double(shrink) + double(large) * 0x1p40;
  }
};

}  // namespace tare

#endif
