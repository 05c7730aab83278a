/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernel of the softmax family a call takes: 13 for each type of logits, two with label smoothing, two for logits
 * that depend on the label, and three for targets between bins. */
#ifndef TARE_CUDA_SOFTMAX_LAUNCH_CUH
#define TARE_CUDA_SOFTMAX_LAUNCH_CUH

#include "softmax_by_label.cuh"
#include "softmax_nchw.cuh"
#include "softmax_registers.cuh"
#include "softmax_rows.cuh"
#include "softmax_smoothed.cuh"
#include "softmax_two_hot.cuh"

namespace tare {
namespace softmax {

template <typename T, int index>
cudaError_t launch_registers(const call &c, const launch_site &site) {
  constexpr row_shape shape = row_shape_at(index, int(sizeof(T)));
  return launch(softmax_registers<T, shape.lanes, shape.vectors>, c.tile_count, site, c);
}

template <typename T, int index>
cudaError_t load_registers() {
  constexpr row_shape shape = row_shape_at(index, int(sizeof(T)));
  return load_kernels(softmax_registers<T, shape.lanes, shape.vectors>);
}

template <typename T>
cudaError_t load_type() {
  static_assert(row_shapes == 5, "all of them below");
  cudaError_t status = load_registers<T, 0>();
  if (status == cudaSuccess) status = load_registers<T, 1>();
  if (status == cudaSuccess) status = load_registers<T, 2>();
  if (status == cudaSuccess) status = load_registers<T, 3>();
  if (status == cudaSuccess) status = load_registers<T, 4>();
  if (status != cudaSuccess) return status;
  constexpr row_shape bins = two_hot_shape(int(sizeof(T)));
  return load_kernels(softmax_rows<T, block_threads, true, true>, softmax_rows<T, block_threads, true, false>,
                      softmax_rows<T, block_threads, false, false>, softmax_rows<T, 32, true, true>,
                      softmax_rows<T, 32, true, false>, softmax_rows<T, 32, false, false>, softmax_nchw<T, reread>,
                      softmax_nchw<T, held>, softmax_smoothed_rows<T>, softmax_smoothed_nchw<T>,
                      softmax_by_label_rows<T>, softmax_by_label_nchw<T>,
                      two_hot_registers<T, bins.lanes, bins.vectors>, two_hot_rows<T>, two_hot_nchw<T>);
}

template <typename T, bool soft, bool adjusts>
cudaError_t launch_rows(const call &c, const launch_site &site) {
  return c.classes > most_classes_of_warp ? launch(softmax_rows<T, block_threads, soft, adjusts>, c.tile_count, site, c)
                                          : launch(softmax_rows<T, 32, soft, adjusts>, c.tile_count, site, c);
}

template <typename T>
cudaError_t launch_flat(const call &c, const launch_site &site) {
  switch (choose_row_shape(c.classes, int(sizeof(T)))) {
    case 0:
      return launch_registers<T, 0>(c, site);
    case 1:
      return launch_registers<T, 1>(c, site);
    case 2:
      return launch_registers<T, 2>(c, site);
    case 3:
      return launch_registers<T, 3>(c, site);
    default:
      return launch_registers<T, 4>(c, site);
  }
}

template <typename T>
cudaError_t launch_two_hot(const call &c, const launch_site &site) {
  constexpr row_shape shape = two_hot_shape(int(sizeof(T)));
  const int32_t walk = c.levels[0].walk;
  return launch(walk == walk_flat   ? two_hot_registers<T, shape.lanes, shape.vectors>
                : walk == walk_nchw ? two_hot_nchw<T>
                                    : two_hot_rows<T>,
                c.tile_count, site, c);
}

template <typename T>
cudaError_t launch_walk(const call &c, const launch_site &site) {
  if (c.bin_numbers) return launch_two_hot<T>(c, site);
  if (c.has_row_terms)
    return launch(c.levels[0].walk == walk_nchw ? softmax_smoothed_nchw<T> : softmax_smoothed_rows<T>, c.tile_count,
                  site, c);
  if (c.adjusts_by_label)
    return launch(c.levels[0].walk == walk_nchw ? softmax_by_label_nchw<T> : softmax_by_label_rows<T>, c.tile_count,
                  site, c);
  switch (c.levels[0].walk) { /* all levels go the same way */
    case walk_flat:
      return launch_flat<T>(c, site);
    case walk_nchw:
      return c.classes > most_classes_of_nchw ? launch(softmax_nchw<T, reread>, c.tile_count, site, c)
                                              : launch(softmax_nchw<T, held>, c.tile_count, site, c);
    default:
      if (!c.soft) return launch_rows<T, false, false>(c, site);
      return is_adjusted(c) ? launch_rows<T, true, true>(c, site) : launch_rows<T, true, false>(c, site);
  }
}

/** Which loss it is, the kernels look up: formula_of. */
template <typename T>
cudaError_t launch_type(const call &c, const launch_site &site) {
  return with_loss<TARE_LOSS_FAMILY_SOFTMAX, TARE_PASSES_ONE>(c.kind, [&](auto) { return launch_walk<T>(c, site); });
}

}  // namespace softmax
}  // namespace tare

#endif
