/* SPDX-License-Identifier: Apache-2.0 */
/* The tiles of rows whose losses are wanted and that follow each other: see sigmoid_row_losses.cuh. */
#ifndef TARE_CUDA_ROW_LOSSES_CUH
#define TARE_CUDA_ROW_LOSSES_CUH

#include "call.cuh"

namespace tare {

constexpr int32_t most_elements_with_losses = 4096; /* of a tile: their losses lie in shared memory */
constexpr int32_t most_rows_with_losses = most_flat_rows / 2;

}  // namespace tare

#endif
