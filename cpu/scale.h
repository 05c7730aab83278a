/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gradients whose scale over divisor is no ordinary number: infinite, NaN, or outside the range of a float.
 *
 * A gradient that is 0 without the scale stays 0, whatever the scale is. Every other gradient becomes infinite or NaN
 * with the scale, so a check for overflow finds it. A finite scale is applied in double: only the result is rounded.
 */

static double round_to_dtype(int32_t dtype, double x) {
  switch (dtype) {
    case TARE_DTYPE_F16:
      return (double)tare_from_f16(tare_to_f16((float)x));
    case TARE_DTYPE_BF16:
      return (double)tare_from_bf16(tare_to_bf16((float)x));
    case TARE_DTYPE_F64:
      return x;
    default:
      return (double)(float)x;
  }
}

/** `derivative` is what a factor of 1 gives. The gradient without the scale is taken as it would be written: one that
 *  is kept and multiplied later has the same zeros. */
static double rescaled(const tare_gradient_scale *gradient, int32_t dtype, double derivative) {
  if (derivative == 0) return 0;
  if (isfinite(gradient->scale)) return derivative * tare_divide(gradient->scale, gradient->divisor);
  const double unscaled = round_to_dtype(dtype, tare_divide(derivative, gradient->divisor));
  return unscaled == 0 ? 0 : unscaled * gradient->scale;
}
