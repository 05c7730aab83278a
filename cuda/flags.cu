/* SPDX-License-Identifier: Apache-2.0 */
/* Sets the flags of a gradient and a loss that are not finite, after the loss's own kernel has written them. */
#include "kernels.cuh"

namespace tare {
namespace {

__device__ bool is_nonfinite(const call &c, const level &l, const tile &t, int32_t row, int64_t cls) {
  const float x =
      read_as<float>(l.view.array[TARE_ARRAY_GRADIENT].data, c.dtype, place(l, t, TARE_ARRAY_GRADIENT, row, cls));
  return !(fabsf(x) <= FLT_MAX);
}

/** Lanes share what lies side by side: classes, or rows. */
__device__ bool any_of_tile(const call &c, const level &l, const tile &t) {
  const tare_array &gradient = l.view.array[TARE_ARRAY_GRADIENT];
  constexpr int32_t warps = block_threads / int32_t(warp_size);
  const int32_t warp = int32_t(thread_rank() / warp_size), mine = int32_t(lane());
  bool any = false;
  if (llabs(gradient.stride[TARE_AXES - 1]) < llabs(gradient.cls)) {
    for (int64_t cls = warp; cls < c.classes; cls += warps)
      for (int32_t row = mine; row < t.rows; row += int32_t(warp_size)) any = any || is_nonfinite(c, l, t, row, cls);
  } else {
    for (int32_t row = warp; row < t.rows; row += warps)
      for (int64_t cls = mine; cls < c.classes; cls += warp_size) any = any || is_nonfinite(c, l, t, row, cls);
  }
  return any;
}

__global__ void __launch_bounds__(block_threads)
    set_flags(const TARE_GRID_CONSTANT call c, float *gradient_flag, float *loss_flag) {
  if (loss_flag && blockIdx.x == 0 && thread_rank() == 0) {
    const double loss = read_as<double>(c.loss, c.loss_dtype, 0);
    if (!(fabs(loss) <= DBL_MAX)) *loss_flag = 1.0f;
  }
  if (!gradient_flag) return;
  for_each_tile(c, c.count_tile_count, &level::count_tiles, [&](const level &l, const tile &t) {
    if (l.view.array[TARE_ARRAY_GRADIENT].data && any_of_tile(c, l, t)) *gradient_flag = 1.0f; /* by any thread */
  });
}

}  // namespace

cudaError_t launch_flags(const call &c, float *gradient_flag, float *loss_flag, const launch_site &site) {
  return launch(set_flags, gradient_flag ? c.count_tile_count : 1, site, c, gradient_flag, loss_flag);
}

cudaError_t load_flags() { return load_kernels(set_flags); }

}  // namespace tare
