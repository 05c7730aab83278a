/* SPDX-License-Identifier: Apache-2.0 */
/* The fused head's own kernels as its host side sees them: what has to be done between cuBLAS's products. */
#ifndef TARE_CUDA_LINEAR_CUH
#define TARE_CUDA_LINEAR_CUH

#include "kernels.cuh"

namespace tare {

constexpr int64_t strip_rows = 128; /* of a chunk: together they make one partial sum of the bias's gradient */

/** A chunk's gradient by the logits, and what is made of it before the products. */
struct chunk_gradient {
  const float *logits_gradient; /* [rows, classes] */
  int64_t rows;
  int32_t classes, follows; /* follows: not the first chunk */
  double *sums;             /* [strips, classes], by class; each strip adds to its own, chunk after chunk; or NULL */
  void *narrowed;           /* [rows, narrowed_stride] of the features' type, for the products; or NULL */
  int64_t narrowed_stride;
  device_record *record;
};

inline int64_t strips_of(int64_t rows) { return (rows + strip_rows - 1) / strip_rows; }

/** The bias in every row of [rows, classes] logits. */
cudaError_t launch_broadcast_bias(const void *bias, int32_t dtype, float *logits, int64_t rows, int32_t classes,
                                  const launch_site &site);

/** Adds up the columns, and rounds to `dtype` what is to be narrowed. f16 has a short range: it is scaled first, by a
 *  power of two that takes the chunk's largest element near its top. The record gets the inverse of that power. */
cudaError_t launch_reduce_columns(const chunk_gradient &g, int32_t dtype, const launch_site &site);

/** The gradient's scale on the device: what is formed without it where it is not finite (call::scale_follows). */
struct late_scale {
  double host;
  const float *device; /* NULL: the scale is finite */
};

/** The strips' sums, in order, into [classes], or added to what stands there. */
cudaError_t launch_reduce_strips(const double *sums, int64_t strips, int32_t classes, bool add, float *to,
                                 const late_scale &scale, const launch_site &site);

/** Multiplies [rows, columns] of `dtype` with this row stride by a scale that is not finite. 0 stays 0. */
cudaError_t launch_apply_late_scale(const late_scale &scale, int32_t dtype, void *data, int64_t rows, int64_t columns,
                                    int64_t stride, const launch_site &site);

/** Adds `count` numbers, multiplied by a scale that is not finite. */
cudaError_t launch_add_late_scaled(const late_scale &scale, const float *apart, float *to, int64_t count,
                                   const launch_site &site);

}  // namespace tare

#endif
