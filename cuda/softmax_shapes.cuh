/* SPDX-License-Identifier: Apache-2.0 */
/* How a warp takes softmax rows in shared memory: for the kernels, and for the host, which cuts tiles by it. */
#ifndef TARE_CUDA_SOFTMAX_SHAPES_CUH
#define TARE_CUDA_SOFTMAX_SHAPES_CUH

#include <stdint.h>

#ifdef __CUDACC__
#define TARE_SHAPE constexpr __host__ __device__ __forceinline__
#else
#define TARE_SHAPE constexpr inline
#endif

namespace tare {
namespace softmax {

/** Classes that lie together in a lane. */
constexpr int chunk = 4;

/** Room of a warp for logits as floats: 47 KB of a block. */
constexpr int room_floats = 1504;

/** All but one of the elements of a vector may lie before the first row. */
constexpr int64_t most_classes_of_room = room_floats - 8;

/** Floats from a row to the next where rows begin at 16 bytes: so many that eight lanes together read all banks. */
TARE_SHAPE int32_t padded_pitch(int32_t classes, int32_t lanes) {
  const int32_t chunks = classes / chunk;
  return (chunks + (lanes < 8 ? (lanes - chunks) & (2 * lanes - 1) : 0)) * chunk;
}

TARE_SHAPE bool fit_room(int32_t classes, int32_t lanes) {
  const int32_t rows = 32 / lanes;
  return rows * classes + 7 <= room_floats &&
         (classes % chunk != 0 || rows * padded_pitch(classes, lanes) <= room_floats);
}

/** Lanes that share a row of up to most_classes_of_room classes: so few that 32 lanes' rows have room. It is the same
 *  for all types, for it says in which order a row is added up. */
TARE_SHAPE int32_t lanes_of_row(int32_t classes) {
  int32_t lanes = 1;
  while (lanes < 32 && !fit_room(classes, lanes)) lanes *= 2;
  return lanes;
}

/** Beyond this many classes the general walk gives a row a block instead of a warp. */
constexpr int64_t most_classes_of_warp = 1024;

/** Rows that a block has in its registers at a time, over all its classes. */
constexpr int rows_of_nchw = 32;

/** Classes up to which the classes of those rows stay in registers. */
constexpr int64_t most_classes_of_nchw = 128;

}  // namespace softmax
}  // namespace tare

#undef TARE_SHAPE

#endif
