/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The softmax family: loss and gradient of whole rows.
 *
 * With m and S over the classes other than the label, e_k = exp(x_k - m), the margin z = (x_y - m) - log S makes a
 * row's loss that of one signed logit. The gradient is D*e_k/S, and -D at the label. Three walks over a tile:
 *   staged     rows pass through shared memory, where a few lanes take each (softmax_staged.cuh)
 *   NCHW       a lane for each row; warps share the classes (softmax_nchw.cuh)
 *   rows       a warp or a block a row, any strides, any length, dense targets (softmax_rows.cuh)
 * Which loss it is, and which power, is looked up once a row. A sum follows the numbers of the classes, never where
 * they lie in memory.
 */
#ifndef TARE_CUDA_SOFTMAX_CUH
#define TARE_CUDA_SOFTMAX_CUH

#include "losses.cuh"
#include "primitives.cuh"
#include "softmax_shapes.cuh"

namespace tare {
namespace softmax {

/** A row's loss may be twice the largest float: it is kept in units of 2^8, and 16 of them can be added. */
constexpr float loss_unit = 0x1p8f;

/** Numbers that all rows share, in registers. */
struct setting {
  exact::formula_parameters parameters;
  float factor; /* of the gradient */
};

__device__ __forceinline__ setting make_setting(const call &c) {
  setting s;
  s.parameters = {c.gamma_hi, c.gamma_lo, c.epsilon};
  s.factor = gradient_factor_of(c);
  return s;
}

template <typename T>
__device__ __forceinline__ const T *logits_at(const level &l, const tile &t, int32_t row) {
  return static_cast<const T *>(l.view.array[TARE_ARRAY_LOGITS].data) + place(l, t, TARE_ARRAY_LOGITS, row, 0);
}

/** NULL where no gradient is wanted. */
template <typename T>
__device__ __forceinline__ T *gradient_at(const level &l, const tile &t, int32_t row) {
  T *const data = static_cast<T *>(l.view.array[TARE_ARRAY_GRADIENT].data);
  return data ? data + place(l, t, TARE_ARRAY_GRADIENT, row, 0) : nullptr;
}

__device__ __forceinline__ void store_row_loss(const level &l, const tile &t, int32_t row, float loss) {
  float *const data = static_cast<float *>(l.view.array[TARE_ARRAY_ROW_LOSS].data);
  if (data) data[place(l, t, TARE_ARRAY_ROW_LOSS, row, 0)] = loss * loss_unit;
}

/** A row's class and whole weight, alpha included. Skipped rows have weight 0 and a class below 0; so has, with its
 *  weight, a row of dense targets. */
__device__ __forceinline__ row_role weigh_row(const call &c, const level &l, const tile &t, int32_t row) {
  row_role r = look_at_row(c, l, t, row);
  if (r.cls >= 0 && is_excluded(c, r.cls)) return {row_skipped, 0.0f};
  if (r.cls >= 0 && c.has_alpha) r.weight *= c.alpha;
  if (r.cls >= 0 && c.alpha_per_class) r.weight *= __ldg(c.alpha_per_class + r.cls);
  if (r.weight == 0.0f) r.cls = row_skipped;
  return r;
}

/* Every logit passes adjust() between load and maximum. A loss whose logits depend on class and label says how there.
 * The branch is taken once a row, so other losses do not pay for it. */

__host__ __device__ __forceinline__ bool is_adjusted(const call &c) {
  return c.adjusts.of_class != nullptr || c.adjusts.is_ldam;
}

/** The logit that the softmax takes. The label is below 0 if the row has none. An offset of -inf excludes the class, as
 *  does a margin of +inf. LDAM's scale and the label's margin come later: below_scaled() and finish_row(). */
__device__ __forceinline__ float adjust(const adjustment &by, int32_t /* label */, int32_t cls, float x) {
  if (by.of_class == nullptr) return x;
  const float more = __ldg(by.of_class + cls);
  return more == by.excluded ? -INFINITY : fmaf(more, by.share, x);
}

/** x - m without the NaN of inf - inf: a maximum of +inf stands for itself. */
__device__ __forceinline__ float below_maximum(float x, float maximum) { return x == maximum ? 0.0f : x - maximum; }

/** If the maximum is +inf, logits are to be taken below_maximum() first. An infinite maximum counts as 0. */
__device__ __forceinline__ bool is_infinite(float maximum) { return maximum > FLT_MAX; }
__device__ __forceinline__ float spare_infinity(float maximum) { return fabsf(maximum) > FLT_MAX ? 0.0f : maximum; }

/** exp(x - base) for a finite base, not below x; 0 at -inf. The difference d is rounded: that is an error of |d| half
 *  ulps, which the result may be off by twice. Its product by log2(e) is rounded, too. Of half types that is left as it
 *  is. Of f32 what is lost is a part of the result. It is from 0 to 1e-5, since this log2(e) is a bit too large; where
 *  the product is infinite it may be infinite or no number, and the result is 0. */
template <typename T>
__device__ __forceinline__ float exp_below(float x, float base) {
  const float d = x - base, y = d * (sizeof(T) < 4 ? 0x1.715476p+0f : 0x1.715478p+0f), e = exp2_approx(y);
  return sizeof(T) < 4 ? e : fmaf(e, __saturatef(fmaf(-y, 0x1.62e43p-1f, d)), e);
}

/** The same for any maximum. */
template <typename T>
__device__ __forceinline__ float exp_of(float x, float maximum) {
  return exp_below<T>(is_infinite(maximum) ? below_maximum(x, maximum) : x, spare_infinity(maximum));
}

/** LDAM: s*(x - m), below a maximum of 0. So rounding is that of a difference, and not of s*x. */
__device__ __forceinline__ float below_scaled(const adjustment &by, float x, float maximum) {
  return by.scale * below_maximum(x, maximum);
}

/** exp_of logits that may be adjusted, which a constant says. */
template <typename T, bool adjusts>
__device__ __forceinline__ float exp_adjusted(const adjustment &by, float x, float maximum) {
  if (adjusts && by.is_ldam) x = below_scaled(by, x, maximum), maximum = 0.0f;
  return exp_of<T>(x, maximum);
}

__device__ __forceinline__ double log_of_sum(float sum) {
  const exact::log_parts parts = exact::log_positive(sum);
  return double(parts.hi) + double(parts.lo);
}

/** What is left of a row: its loss, D times the gradient's factor, and that over S. Where that cannot be a float, D
 *  alone (`after`), and what it is multiplied by is finished afterwards. */
struct outcome {
  float loss, derivative, of_e, weight;
  bool after;
};

/** A derivative made with an outcome. */
template <typename T>
__device__ __forceinline__ float finished_derivative(const call &c, const outcome &o, float derivative) {
  return o.after ? rescaled<T>(c, derivative, o.weight) : derivative;
}

/** What derivatives are multiplied by, one factor after the other: of all, what no float is; of a scale that is not
 *  finite, what is before it. */
struct two_factors {
  float first, second;
  bool rounds; /* in between, to the type that is written */
};

__device__ __forceinline__ two_factors factors_of(const call &c, float weight) {
  const double scale = gradient_scale_of(c), before = double(weight) * inverse_divisor_of(c);
  const float unscaled = float(before);
  if (!is_finite(scale)) return {fabsf(unscaled) <= 1e30f ? unscaled : 1e30f, float(scale), true};
  const double all = before * scale, size = fabs(all);
  const double first = size > 1e38 ? 0x1p100 : size < 1e-38 ? 0x1p-100 : 1.0;
  return {float(first), float(all * (size > 1e38 ? 0x1p-100 : size < 1e-38 ? 0x1p100 : 1.0)), false};
}

template <typename T>
__device__ __forceinline__ float multiply_by(float derivative, const two_factors &by) {
  float product = derivative * by.first;
  if (sizeof(T) < 4 && by.rounds) product = to_float(from_float<T>(product));
  return product == 0.0f ? 0.0f : product * by.second;
}

/** Factors of exponentials, from those of a row's weight. */
__device__ __forceinline__ two_factors of_exponentials(two_factors by, const outcome &o) {
  by.first *= o.of_e;
  return by;
}

/** The derivative of a class with an exponential. Where the factor is no float, it comes before what is small. */
template <typename T>
__device__ __forceinline__ float scaled_exponential(const call &c, const outcome &o, float e) {
  if (!o.after) return e * o.of_e;
  return multiply_by<T>(e, of_exponentials(factors_of(c, o.weight), o));
}

/** Finishes a row's exponentials, so that they are left to be multiplied by 1. */
template <typename T, int count>
__device__ __forceinline__ void finish_derivatives(const call &c, outcome *o, float (&e)[count]) {
  if (!o->after) return;
  const two_factors by = factors_of(c, o->weight), of_e = of_exponentials(by, *o);
  o->derivative = multiply_by<T>(o->derivative, by);
  o->of_e = 1.0f;
#pragma unroll
  for (int i = 0; i < count; i++) e[i] = multiply_by<T>(e[i], of_e);
}

/** The formula of a loss by the margin of its row. Gamma 2, which most train with, has code of its own. */
#define FORMULA_OF_SIGMOID(KIND, name)
#define FORMULA_OF_SOFTMAX(KIND, name)                                                        \
  case losses::KIND::kind:                                                                    \
    if (!losses::KIND::has_power) return exact::name(z, weight, &s.parameters, TARE_POWER_0); \
    if (c.power == TARE_POWER_2) return exact::name(z, weight, &s.parameters, TARE_POWER_2);  \
    return exact::name(z, weight, &s.parameters, c.power);
#define FORMULA_OF_REGRESSION(KIND, name)
__device__ __forceinline__ exact::pair formula_of(const call &c, const setting &s, float z, float weight) {
  switch (c.kind) {
#define TARE_LOSS(KIND, name, text, FAMILY, ...) FORMULA_OF_##FAMILY(KIND, name)
#include "losses/losses.def"
#undef TARE_LOSS
  }
  return {NAN, NAN}; /* launch_type lets no other kind through */
}
#undef FORMULA_OF_SIGMOID
#undef FORMULA_OF_SOFTMAX
#undef FORMULA_OF_REGRESSION

/** The formula at z + rest, to first order. rest is what rounding took from the margin; a power would make it larger
 *  than the rounding of the logits. The derivative falls like q^(1+gamma) where z is large and rest matters. */
__device__ __forceinline__ exact::pair formula_near(const call &c, const setting &s, float z, float rest,
                                                    float weight) {
  exact::pair value = formula_of(c, s, z, weight);
  const float steepness = z <= 0.0f ? 0.0f : 1.0f + s.parameters.gamma_hi; /* gamma is 0 without a power */
  if (fabsf(z) <= FLT_MAX) {
    value.loss = fmaf(-rest, value.derivative, value.loss);
    value.derivative = fmaf(-rest * steepness, value.derivative, value.derivative);
  }
  return value;
}

/** LDAM: s*(x_y - m - margin). */
__device__ __forceinline__ double scaled_margin(const adjustment &by, double above, int32_t label) {
  const float margin = by.of_class != nullptr ? __ldg(by.of_class + label) : 0.0f;
  return double(by.scale) * (above - double(margin));
}

/** From m, S and the label's logit. A second +inf among the other classes shows as a sum above 1, and has no limit:
 *  NaN. No other class at all, or none above -inf: the label is certain. The margin is rounded once. label: the row's
 *  class, or -1 in losses whose logits are not scaled. */
__device__ __forceinline__ outcome finish_row(const call &c, const setting &s, float weight, float label_x,
                                              float maximum, float sum, int32_t label) {
  if (weight == 0.0f) return {0.0f, 0.0f, 0.0f, 0.0f, false};
  if (sum == 0.0f) sum = 1.0f;
  if (maximum > FLT_MAX && sum > 1.5f) sum = NAN;
  double above = double(label_x) - double(maximum);
  const bool is_scaled = label >= 0 && c.adjusts.is_ldam;
  if (is_scaled) above = scaled_margin(c.adjusts, above, label);
  const double z = above - log_of_sum(sum);
  const float near = float(z), rest = float(z - double(near));
  exact::pair value = formula_near(c, s, near, rest, weight);
  float loss = value.loss / loss_unit;
  if (z < -FLT_MAX) loss = weight * float(z * (-1.0 / loss_unit)); /* whose float may be infinite */
  float derivative = value.derivative * s.factor;
  if (is_scaled) derivative *= c.adjusts.scale;
  const bool after = !is_ordinary(s.factor) || !(fabsf(weight) <= FLT_MAX) || fabsf(derivative) > FLT_MAX;
  if (after) derivative = formula_near(c, s, near, rest, 1.0f).derivative * (is_scaled ? c.adjusts.scale : 1.0f);
  return {loss, derivative, derivative / sum, weight, after};
}

/* Over the lanes of a row, a power of two. Each of them gets the result. */
template <typename V>
__device__ __forceinline__ V max_of_lanes(V mine, int32_t lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) mine = max(mine, __shfl_xor_sync(full_mask, mine, step));
  return mine;
}
__device__ __forceinline__ float sum_of_lanes(float mine, int32_t lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) mine += __shfl_xor_sync(full_mask, mine, step);
  return mine;
}

/** The sum of a row from the four places in each of its lanes. */
__device__ __forceinline__ float sum_of_places(const float (&place)[chunk], int lanes) {
  return sum_of_lanes((place[0] + place[2]) + (place[1] + place[3]), lanes);
}

/** A sum of many terms in float, whose rounding is carried along. */
struct running_sum {
  float sum, lost;
  __device__ __forceinline__ void add(float x) {
    const float more = x - lost, next = sum + more;
    lost = (next - sum) - more;
    sum = next;
  }
};

}  // namespace softmax
}  // namespace tare

#endif
