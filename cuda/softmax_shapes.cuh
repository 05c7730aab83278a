/* SPDX-License-Identifier: Apache-2.0 */
/* How many lanes a softmax row takes, and how many vectors each of them holds: for the kernels' instances, and for the
 * host, which cuts tiles by it. */
#ifndef TARE_CUDA_SOFTMAX_SHAPES_CUH
#define TARE_CUDA_SOFTMAX_SHAPES_CUH

#include <stdint.h>

namespace tare {
namespace softmax {

struct row_shape {
  int lanes, vectors;
};

constexpr int row_shapes = 5;

/** They hold up to 13, 93, 189, 509 and 1533 classes of 4 bytes, or 25, 121, 249, 761 and 1529 of 2 bytes. */
constexpr row_shape row_shape_at(int index, int bytes) {
  constexpr row_shape of_4[row_shapes] = {{2, 2}, {8, 3}, {8, 6}, {32, 4}, {32, 12}};
  constexpr row_shape of_2[row_shapes] = {{2, 2}, {4, 4}, {8, 4}, {32, 3}, {32, 6}};
  return bytes == 4 ? of_4[index] : of_2[index];
}

/** Classes that fit whatever the row's first address: all but one of the elements of a vector may lie before it. */
constexpr int64_t classes_that_fit(row_shape shape, int bytes) {
  return int64_t(shape.lanes) * shape.vectors * (16 / bytes) - (16 / bytes - 1);
}

/** The first shape that holds a row; row_shapes if none does. */
constexpr int choose_row_shape(int64_t classes, int bytes) {
  int index = 0;
  while (index < row_shapes && classes > classes_that_fit(row_shape_at(index, bytes), bytes)) index++;
  return index;
}

/** The shape of rows with a target between two bins: there are 16 to 33 as a rule. */
constexpr row_shape two_hot_shape(int bytes) { return row_shape_at(1, bytes); }

/** Beyond this many classes the general walk gives a row a block instead of a warp. */
constexpr int64_t most_classes_of_warp = 1024;

/** Rows that a block has in its registers at a time, over all its classes. */
constexpr int rows_of_nchw = 32;

/** Classes up to which the classes of those rows stay in registers. */
constexpr int64_t most_classes_of_nchw = 128;

}  // namespace softmax
}  // namespace tare

#endif
