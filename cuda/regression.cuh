/* SPDX-License-Identifier: Apache-2.0 */
/* GHM-R: prediction - target, a thread a row. In double: rows with a class are few, and the difference of two floats is
 * then exact, so that bins are too. */
#ifndef TARE_CUDA_REGRESSION_CUH
#define TARE_CUDA_REGRESSION_CUH

#include "ghm.cuh"

namespace tare {
namespace regression {

/** The largest k with lower[k] <= key, 0 for NaN. */
__device__ __forceinline__ int32_t bin_by_bisection(const ghm_call &c, double key) {
  int32_t low = 0, high = c.bins;
  while (high - low > 1) {
    const int32_t middle = (low + high) / 2;
    if (key >= c.lower[middle])
      low = middle;
    else
      high = middle;
  }
  return low;
}

__device__ __forceinline__ double weight_of_key(const ghm_call &c, double key) {
  if (!c.exact) return c.state.inverse_density[bin_by_bisection(c, key)];
  const uint64_t count = *c.key_count;
  return count ? c.key_weights[place_of_key(c.keys, count, key)] : 0.0;
}

struct value {
  double loss, slope;
};

/** Far outside mu, where d*d could overflow or mu vanish beside d, the root is |d|: see core/losses/ghm_r.h. */
__device__ __forceinline__ value authentic_smooth_l1(double d, double mu) {
  const double magnitude = fabs(d);
  if (isinf(d)) return {magnitude, d < 0 ? -1.0 : 1.0};
  if (magnitude > 1e9 * mu) return {magnitude - mu, d / magnitude};
  const double root = sqrt(d * d + mu * mu);
  return {d * d / (root + mu), d / root};
}

/** Counts, collects or evaluates a row; returns its loss. */
template <typename T>
__device__ double row_of_thread(const ghm_call &c, const level &l, const tile &t, float factor, int32_t row) {
  const tare_array *array = l.view.array;
  const row_role r = look_at_row(c, l, t, row);
  report_if_invalid(c, l, t, row);
  if (r.cls < 0 && c.pass != ghm_pass::evaluate) return 0.0;
  double sum = 0;
  for (int64_t column = 0; column < c.classes; column++) {
    value v = {0.0, 0.0};
    if (r.cls >= 0) {
      const double d =
          double(to_float(static_cast<const T *>(array[TARE_LOGITS].data)[place(l, t, TARE_LOGITS, row, column)])) -
          read_as<double>(array[TARE_TARGETS].data, c.target_dtype, place(l, t, TARE_TARGETS, row, column));
      const double key = fabs(d);
      if (c.pass == ghm_pass::count) {
        atomic_add(reinterpret_cast<uint64_t *>(c.state.counts) + bin_by_bisection(c, key), uint64_t(1));
        atomic_add(reinterpret_cast<uint64_t *>(c.state.total), uint64_t(1));
        continue;
      }
      if (c.pass == ghm_pass::collect) {
        c.keys[atomic_add(c.key_count, uint64_t(1))] = key == key ? key : 0.0;
        continue;
      }
      const double weight = weight_of_key(c, key);
      v = authentic_smooth_l1(d, c.mu);
      v.loss *= weight;
      v.slope *= weight;
    }
    sum += v.loss;
    if (array[TARE_GRADIENT].data)
      static_cast<T *>(array[TARE_GRADIENT].data)[place(l, t, TARE_GRADIENT, row, column)] =
          from_float<T>(float(v.slope) * factor);
    if (array[TARE_ELEMENT_LOSS].data)
      static_cast<float *>(array[TARE_ELEMENT_LOSS].data)[place(l, t, TARE_ELEMENT_LOSS, row, column)] = float(v.loss);
  }
  if (array[TARE_ROW_LOSS].data)
    static_cast<float *>(array[TARE_ROW_LOSS].data)[place(l, t, TARE_ROW_LOSS, row, 0)] = float(sum);
  return sum;
}

template <typename T>
__global__ void __launch_bounds__(block_threads, 4) authentic(const TARE_GRID_CONSTANT ghm_call c) {
  const float factor = gradient_factor_of(c);
  for_each_tile(c, c.tile_count, &level::tiles, [&](const level &l, const tile &t) {
    double sum = 0;
    for (int32_t row = int32_t(thread_rank()); row < t.rows; row += block_threads)
      sum += row_of_thread<T>(c, l, t, factor, row);
    return sum;
  });
  if (c.pass == ghm_pass::evaluate) finish_loss(c);
}

template <typename T>
cudaError_t launch_type(const ghm_call &c, const launch_site &site) {
  return launch(authentic<T>, c.tile_count, site, c);
}

}  // namespace regression
}  // namespace tare

#endif
