/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sigmoid family: loss and gradient in one launch, one read and one write of memory an element.
 *
 * Blocks go from tile to tile. An element is computed by its signed logit u (x where the target is 0, -x where it is
 * 1), so both cases are the same formula and a target of 1 costs two signs. Three walks over a tile:
 *   flat     a thread takes 16 bytes along the classes; the row follows from the index
 *   NCHW     a thread takes 16 bytes along the rows, looks at their labels once, and goes from class to class
 *   rows     a warp takes a row, element by element: any strides, and row losses
 *
 * A loss has two kernels for each type of logits: sigmoid_nchw, and sigmoid_flat_or_rows, which looks the walk up. The
 * instances that most train with have a kernel for each walk: is_hot.
 */
#ifndef TARE_CUDA_SIGMOID_CUH
#define TARE_CUDA_SIGMOID_CUH

#include "sigmoid_columns.cuh"
#include "sigmoid_flat.cuh"
#include "sigmoid_nchw.cuh"
#include "sigmoid_rows.cuh"

namespace tare {
namespace sigmoid {

/** The walks flat and rows, by labels or dense targets. */
template <typename T, typename Loss>
__global__ void __launch_bounds__(block_threads, 4) sigmoid_flat_or_rows(const TARE_GRID_CONSTANT call_of<Loss> c) {
  TARE_SHARED(row_role[roles_of_flat_tile], roles);
  TARE_SHARED(vector<T>[slots_for_both], room);
  if (c.levels[0].walk == walk_flat)
    flat_pass<T, Loss, false>(c, Loss::make(c), roles, room, c.soft != 0);
  else if constexpr (std::is_same_v<Loss, shape_pass>) /* whose formulas leave too few registers */
    rows_pass<T, Loss>(c, Loss::make(c), c.soft != 0);
  else
    rows_pass<T, Loss>(c, Loss::make(c), c.soft != 0, roles, reinterpret_cast<float *>(room));
  finish_loss(c);
}

/** An instance with a kernel for each walk, and for labels and dense targets apart. */
template <typename T, typename Loss>
cudaError_t launch_hot(const call_of<Loss> &c, const launch_site &site) {
  switch (c.levels[0].walk) { /* all levels go the same way */
    case walk_flat:
      return c.soft ? launch(sigmoid_flat<T, Loss, true>, c.tile_count, site, c)
                    : launch(sigmoid_flat<T, Loss, false>, c.tile_count, site, c);
    case walk_nchw:
      return launch(sigmoid_nchw<T, Loss>, c.tile_count, site, c);
    default:
      if constexpr (Loss::goes_by_score_rows)
        return launch(sigmoid_flat_or_rows<T, typename Loss::score_kernels>, c.tile_count, site, c);
      else
        return c.soft ? launch(sigmoid_rows<T, Loss, true>, c.tile_count, site, c)
                      : launch(sigmoid_rows<T, Loss, false>, c.tile_count, site, c);
  }
}

/** Any other has two kernels for each type of logits. */
template <typename T, typename Loss>
cudaError_t launch_loss(const call_of<Loss> &c, const launch_site &site) {
  if constexpr (Loss::is_hot)
    return launch_hot<T, Loss>(c, site);
  else
    return c.levels[0].walk == walk_nchw ? launch(sigmoid_nchw<T, Loss>, c.tile_count, site, c)
                                         : launch(sigmoid_flat_or_rows<T, Loss>, c.tile_count, site, c);
}

template <typename T, typename Loss>
cudaError_t load_loss() {
  if constexpr (!Loss::is_hot) {
    return load_kernels(sigmoid_flat_or_rows<T, Loss>, sigmoid_nchw<T, Loss>);
  } else {
    const cudaError_t status =
        load_kernels(sigmoid_flat<T, Loss, true>, sigmoid_flat<T, Loss, false>, sigmoid_nchw<T, Loss>);
    if constexpr (Loss::goes_by_score_rows)
      return status;
    else
      return status == cudaSuccess ? load_kernels(sigmoid_rows<T, Loss, true>, sigmoid_rows<T, Loss, false>) : status;
  }
}

/** Calls use(instance) with the instance of a loss for a power: a hot one, or one that looks the power up. */
template <typename Loss, typename Use>
cudaError_t with_power(int32_t power, Use &&use) {
  if constexpr (!Loss::has_power) return use(one_pass<Loss, TARE_POWER_0>());
  if constexpr (hot_power<Loss> >= 0)
    if (power == hot_power<Loss>) return use(one_pass<Loss, hot_power<Loss>>());
  if constexpr (Loss::has_power && !Loss::can_have_scores) return use(one_pass<Loss, -1>());
  return cudaErrorInvalidValue;
}

/** Calls use(instance) with the instance that computes a call. Without scores a hot loss has one of its own. */
template <typename Loss, typename Use>
cudaError_t with_instance(bool has_scores, int32_t power, Use &&use) {
  if constexpr (Loss::can_have_scores)
    if (has_scores || hot_power<Loss> < 0 || power != hot_power<Loss>) return use(score_pass_of<Loss>());
  if constexpr (!Loss::can_have_scores || hot_power<Loss> >= 0) return with_power<Loss>(power, use);
  return cudaErrorInvalidValue;
}

template <typename T>
cudaError_t load_type() {
  const cudaError_t columns = load_kernels(sigmoid_columns<T>);
  if (columns != cudaSuccess) return columns;
  return for_each_loss<TARE_LOSS_FAMILY_SIGMOID, TARE_PASSES_ONE>([](auto loss) {
    using Loss = decltype(loss);
    const auto load = [](auto instance) { return load_loss<T, decltype(instance)>(); };
    cudaError_t status = with_instance<Loss>(Loss::can_have_scores, TARE_POWER_GENERAL, load);
    if (status == cudaSuccess) status = with_instance<Loss>(false, TARE_POWER_GENERAL, load);
    return status == cudaSuccess ? with_instance<Loss>(false, hot_power<Loss>, load) : status;
  });
}

template <typename T>
cudaError_t launch_type(const call &c, const launch_site &site) {
  if (c.has_columns) return launch(sigmoid_columns<T>, c.tile_count, site, c);
  return with_loss<TARE_LOSS_FAMILY_SIGMOID, TARE_PASSES_ONE>(c.kind, [&](auto loss) {
    if (c.shape != TARE_SHAPE_NONE) return launch_loss<T, shape_pass>(c, site);
    return with_instance<decltype(loss)>(c.has_scores != 0, c.power,
                                         [&](auto instance) { return launch_loss<T, decltype(instance)>(c, site); });
  });
}

}  // namespace sigmoid

}  // namespace tare

#endif
