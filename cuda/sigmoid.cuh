/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sigmoid family: loss and gradient in one launch, one read and one write of memory an element.
 *
 * Blocks go from tile to tile. An element is computed by its signed logit u (x where the target is 0, -x where it is 1),
 * so both cases are the same formula and a target of 1 costs two signs. Three walks over a tile:
 *   flat     a thread takes 16 bytes along the classes; the row follows from the index
 *   planes   a thread takes 16 bytes along the rows, looks at their labels once, and goes from class to class (NCHW)
 *   rows     a warp takes a row, element by element: any strides, and row losses
 */
#ifndef TARE_CUDA_SIGMOID_CUH
#define TARE_CUDA_SIGMOID_CUH

#include "sigmoid_flat.cuh"
#include "sigmoid_planes.cuh"
#include "sigmoid_rows.cuh"

namespace tare {
namespace sigmoid {

template <typename T, typename Loss>
cudaError_t launch_loss(const call_of<Loss> &c, const launch_site &site) {
  switch (c.levels[0].walk) { /* all levels go the same way */
    case walk_flat:
      return c.soft ? launch(flat<T, Loss, true>, c.tile_count, site, c)
                    : launch(flat<T, Loss, false>, c.tile_count, site, c);
    case walk_planes:
      return launch(planes<T, Loss>, c.tile_count, site, c);
    default:
      if constexpr (Loss::goes_by_score_rows)
        return launch(rows<T, score_pass, true>, c.tile_count, site, c);
      else
        return c.soft ? launch(rows<T, Loss, true>, c.tile_count, site, c)
                      : launch(rows<T, Loss, false>, c.tile_count, site, c);
  }
}

/** By labels whatever their targets are, and by dense targets where a label has a formula of its own. */
template <typename T>
cudaError_t launch_scores(const call &c, const launch_site &site) {
  switch (c.levels[0].walk) {
    case walk_flat:
      return launch(flat<T, score_pass, false>, c.tile_count, site, c);
    case walk_planes:
      return launch(planes<T, score_pass>, c.tile_count, site, c);
    default:
      return launch(rows<T, score_pass, true>, c.tile_count, site, c);
  }
}

template <typename T>
cudaError_t load_scores() {
  return load_kernels(flat<T, score_pass, false>, planes<T, score_pass>, rows<T, score_pass, true>);
}

template <typename T, typename Loss>
cudaError_t load_loss() {
  const cudaError_t status = load_kernels(flat<T, Loss, true>, flat<T, Loss, false>, planes<T, Loss>);
  if constexpr (Loss::goes_by_score_rows)
    return status;
  else
    return status == cudaSuccess ? load_kernels(rows<T, Loss, true>, rows<T, Loss, false>) : status;
}

/** Calls use(instance) with the instance of a loss for a power. Focal loss has one for gamma 2, which most train with. */
template <typename Loss, typename Use>
cudaError_t with_power(int32_t power, Use &&use) {
  if constexpr (!Loss::has_power) {
    return use(one_pass<Loss, TARE_POWER_0>());
  } else {
    if constexpr (Loss::kind == TARE_LOSS_SIGMOID_FOCAL)
      if (power == TARE_POWER_2) return use(one_pass<Loss, TARE_POWER_2>());
    return use(one_pass<Loss, -1>());
  }
}

template <typename T>
cudaError_t load_type() {
  const cudaError_t loaded = load_scores<T>();
  if (loaded != cudaSuccess) return loaded;
  return for_each_loss<TARE_SHAPE_SIGMOID, TARE_PASSES_ONE>([](auto loss) {
    if constexpr (decltype(loss)::labels_apart) {
      return cudaSuccess;
    } else {
      const auto load = [](auto instance) { return load_loss<T, decltype(instance)>(); };
      const cudaError_t status = with_power<decltype(loss)>(TARE_POWER_2, load);
      return status == cudaSuccess ? with_power<decltype(loss)>(TARE_POWER_GENERAL, load) : status;
    }
  });
}

template <typename T>
cudaError_t launch_type(const call &c, const launch_site &site) {
  return with_loss<TARE_SHAPE_SIGMOID, TARE_PASSES_ONE>(c.kind, [&](auto loss) {
    if constexpr (decltype(loss)::labels_apart) {
      return launch_scores<T>(c, site);
    } else {
      if (c.has_scores) return launch_scores<T>(c, site);
      return with_power<decltype(loss)>(c.power,
                                        [&](auto instance) { return launch_loss<T, decltype(instance)>(c, site); });
    }
  });
}

}  // namespace sigmoid

}  // namespace tare

#endif
