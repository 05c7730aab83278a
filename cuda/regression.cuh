/* SPDX-License-Identifier: Apache-2.0 */
/* GHM-R: prediction - target, a thread a row. In double: rows with a class are few, and the difference of two floats is
 * then exact, so that bins are too. */
#ifndef TARE_CUDA_REGRESSION_CUH
#define TARE_CUDA_REGRESSION_CUH

#include "ghm.cuh"
#include "losses.cuh"

namespace tare {
namespace regression {

/** The formula in double; of losses/formulas.h it needs the pair alone. */
namespace in_double {

typedef double real;
#define LARGEST DBL_MAX
#define ROOT_IS_MAGNITUDE 1e9

struct pair {
  double loss, derivative;
};

TARE_INLINE double square_root(double x) { return sqrt(x); }

#include "losses/ghm_r.h"

#undef LARGEST
#undef ROOT_IS_MAGNITUDE

}  // namespace in_double

/** The formula of a loss by difference, weight and mu. */
template <typename Loss>
struct formula;

#define FORMULA_OF_SIGMOID(KIND, name)
#define FORMULA_OF_SOFTMAX(KIND, name)
#define FORMULA_OF_REGRESSION(KIND, name)                                                                  \
  template <>                                                                                              \
  struct formula<losses::KIND> {                                                                           \
    __device__ __forceinline__ static in_double::pair exact(double difference, double weight, double mu) { \
      return in_double::name(difference, weight, mu);                                                      \
    }                                                                                                      \
  };
#define TARE_LOSS(KIND, name, text, FAMILY, ...) FORMULA_OF_##FAMILY(KIND, name)
#include "losses/losses.def"
#undef TARE_LOSS
#undef FORMULA_OF_SIGMOID
#undef FORMULA_OF_SOFTMAX
#undef FORMULA_OF_REGRESSION

/** The largest k with lower[k] <= key, 0 for NaN. */
__device__ __forceinline__ int32_t bin_by_bisection(const ghm_call &c, double key) {
  int32_t low = 0, high = c.ghm.bins;
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
  if (c.ghm.density != TARE_GHM_DENSITY_EXACT) return __ldcg(c.state.inverse_density + bin_by_bisection(c, key));
  const uint64_t count = *c.key_count;
  return count ? c.key_weights[place_of_key(c.keys, count, key)] : 0.0;
}

template <typename T>
__device__ __forceinline__ double difference_at(const ghm_call &c, const level &l, const tile &t, int32_t row,
                                                int64_t column) {
  const tare_array &predictions = l.view.array[TARE_ARRAY_LOGITS], &targets = l.view.array[TARE_ARRAY_TARGETS];
  return double(to_float(static_cast<const T *>(predictions.data)[place(l, t, TARE_ARRAY_LOGITS, row, column)])) -
         read_as<double>(targets.data, c.target_dtype, place(l, t, TARE_ARRAY_TARGETS, row, column));
}

/** Counts or collects a row. */
template <typename T>
__device__ __forceinline__ void count_row(const ghm_call &c, const level &l, const tile &t, ghm_histogram &h,
                                          int32_t row) {
  const row_role r = look_at_row(c, l, t, row);
  if (c.pass == ghm_pass::count && !c.updates) report_if_invalid(c, l, t, row);
  for (int64_t column = 0; column < c.classes; column++) {
    const double key = r.cls >= 0 ? fabs(difference_at<T>(c, l, t, row, column)) : 0.0;
    if (c.pass == ghm_pass::collect)
      collect_key(c, l, t, row, column, r.cls >= 0, key, 0.0);
    else if (r.cls >= 0)
      h.add(bin_by_bisection(c, key));
  }
}

/** Evaluates a row; returns its loss. */
template <typename T, typename Loss>
__device__ __forceinline__ double evaluate_row(const ghm_call &c, const level &l, const tile &t, float factor,
                                               int32_t row) {
  const tare_array *array = l.view.array;
  const row_role r = look_at_row(c, l, t, row);
  report_if_invalid(c, l, t, row);
  double sum = 0;
  for (int64_t column = 0; column < c.classes; column++) {
    in_double::pair v = {0.0, 0.0};
    if (r.cls >= 0) {
      const double d = difference_at<T>(c, l, t, row, column);
      const double weight = weight_of_key(c, fabs(d));
      if (weight != 0.0) v = formula<Loss>::exact(d, weight, c.ghm.mu);
    }
    sum += v.loss;
    if (array[TARE_ARRAY_GRADIENT].data)
      static_cast<T *>(array[TARE_ARRAY_GRADIENT].data)[place(l, t, TARE_ARRAY_GRADIENT, row, column)] =
          finished<T>(c, factor, float(v.derivative));
    if (array[TARE_ARRAY_ELEMENT_LOSS].data)
      static_cast<float *>(array[TARE_ARRAY_ELEMENT_LOSS].data)[place(l, t, TARE_ARRAY_ELEMENT_LOSS, row, column)] =
          float(v.loss);
  }
  if (array[TARE_ARRAY_ROW_LOSS].data)
    static_cast<float *>(array[TARE_ARRAY_ROW_LOSS].data)[place(l, t, TARE_ARRAY_ROW_LOSS, row, 0)] = float(sum);
  return sum;
}

/** Every pass, by ghm_call::pass. */
template <typename T, typename Loss>
__global__ void __launch_bounds__(block_threads, 4) ghm_r(const TARE_GRID_CONSTANT ghm_call c) {
  if (c.pass != ghm_pass::evaluate) {
    ghm_histogram h = make_histogram(c);
    __syncthreads();
    for_each_tile(c, c.tile_count, &level::tiles, [&](const level &l, const tile &t) {
      for (int32_t row = int32_t(thread_rank()); row < t.rows; row += block_threads) count_row<T>(c, l, t, h, row);
    });
    if (c.pass != ghm_pass::collect) finish_histogram(c, h);
  }
  if (c.pass == ghm_pass::count || c.pass == ghm_pass::collect) return;
  const float factor = gradient_factor_of(c);
  for_each_tile<true>(c, c.tile_count, &level::tiles, [&](const level &l, const tile &t) {
    double sum = 0;
    for (int32_t row = int32_t(thread_rank()); row < t.rows; row += block_threads)
      sum += evaluate_row<T, Loss>(c, l, t, factor, row);
    return sum;
  });
  finish_loss(c);
}

template <typename T>
cudaError_t load_type() {
  return for_each_loss<TARE_LOSS_FAMILY_REGRESSION, TARE_PASSES_DENSITY>(
      [](auto loss) { return load_kernels(ghm_r<T, decltype(loss)>); });
}

template <typename T>
cudaError_t launch_type(const ghm_call &c, const launch_site &site) {
  return with_loss<TARE_LOSS_FAMILY_REGRESSION, TARE_PASSES_DENSITY>(c.kind, [&](auto loss) {
    return launch_as(c.pass == ghm_pass::fused, ghm_r<T, decltype(loss)>, c.tile_count, site, c);
  });
}

}  // namespace regression
}  // namespace tare

#endif
