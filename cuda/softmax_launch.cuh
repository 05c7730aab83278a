/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernel of the softmax family a call takes: nine for each type of logits, and three each with label smoothing,
 * for logits that depend on the label, and for targets between bins. */
#ifndef TARE_CUDA_SOFTMAX_LAUNCH_CUH
#define TARE_CUDA_SOFTMAX_LAUNCH_CUH

#include "softmax_by_label.cuh"
#include "softmax_nchw.cuh"
#include "softmax_rows.cuh"
#include "softmax_smoothed.cuh"
#include "softmax_staged.cuh"
#include "softmax_two_hot.cuh"

namespace tare {
namespace softmax {

template <typename T>
cudaError_t load_type() {
  return load_kernels(
      softmax_staged<T>, softmax_rows<T, block_threads, true, true>, softmax_rows<T, block_threads, true, false>,
      softmax_rows<T, block_threads, false, false>, softmax_rows<T, 32, true, true>, softmax_rows<T, 32, true, false>,
      softmax_rows<T, 32, false, false>, softmax_nchw<T, reread>, softmax_nchw<T, held>, softmax_smoothed_staged<T>,
      softmax_smoothed_rows<T>, softmax_smoothed_nchw<T>, softmax_by_label_staged<T>, softmax_by_label_rows<T>,
      softmax_by_label_nchw<T>, two_hot_staged<T>, two_hot_rows<T>, two_hot_nchw<T>);
}

template <typename T, bool soft, bool adjusts>
cudaError_t launch_rows(const call &c, const launch_site &site) {
  return c.classes > most_classes_of_warp ? launch(softmax_rows<T, block_threads, soft, adjusts>, c.tile_count, site, c)
                                          : launch(softmax_rows<T, 32, soft, adjusts>, c.tile_count, site, c);
}

/** Of kernels for each walk, the one that all levels take. */
template <typename Kernel>
Kernel by_walk(const call &c, Kernel staged, Kernel nchw, Kernel rows) {
  const int32_t walk = c.levels[0].walk;
  return walk == walk_flat ? staged : walk == walk_nchw ? nchw : rows;
}

template <typename T>
cudaError_t launch_plain(const call &c, const launch_site &site) {
  switch (c.levels[0].walk) {
    case walk_flat:
      return launch(softmax_staged<T>, c.tile_count, site, c);
    case walk_nchw:
      return c.classes > most_classes_of_nchw ? launch(softmax_nchw<T, reread>, c.tile_count, site, c)
                                              : launch(softmax_nchw<T, held>, c.tile_count, site, c);
    default:
      if (!c.soft) return launch_rows<T, false, false>(c, site);
      return is_adjusted(c) ? launch_rows<T, true, true>(c, site) : launch_rows<T, true, false>(c, site);
  }
}

template <typename T>
cudaError_t launch_walk(const call &c, const launch_site &site) {
  using kernel = void (*)(const call);
  if (c.bin_numbers)
    return launch(by_walk<kernel>(c, two_hot_staged<T>, two_hot_nchw<T>, two_hot_rows<T>), c.tile_count, site, c);
  if (c.has_row_terms)
    return launch(by_walk<kernel>(c, softmax_smoothed_staged<T>, softmax_smoothed_nchw<T>, softmax_smoothed_rows<T>),
                  c.tile_count, site, c);
  if (c.adjusts_by_label)
    return launch(by_walk<kernel>(c, softmax_by_label_staged<T>, softmax_by_label_nchw<T>, softmax_by_label_rows<T>),
                  c.tile_count, site, c);
  return launch_plain<T>(c, site);
}

/** Which loss it is, the kernels look up: formula_of. */
template <typename T>
cudaError_t launch_type(const call &c, const launch_site &site) {
  return with_loss<TARE_LOSS_FAMILY_SOFTMAX, TARE_PASSES_ONE>(c.kind, [&](auto) { return launch_walk<T>(c, site); });
}

}  // namespace softmax
}  // namespace tare

#endif
