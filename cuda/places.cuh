/* SPDX-License-Identifier: Apache-2.0 */
/* Where a tile and its elements lie in the arrays of a level. */
#ifndef TARE_CUDA_PLACES_CUH
#define TARE_CUDA_PLACES_CUH

#include "call.cuh"

namespace tare {

/** Where a tile lies: the element offset of its first row in every array, and its length. */
struct tile {
  int32_t level, rows;
  int64_t offset[TARE_ARRAY_COUNT];
  const float *element_weights; /* where these begin, for kernels that go from element to element; and targets, of */
  const void *targets;          /* f32 or 16 bits */
};

/** The first warp fills it, a lane for each array. The other warps read it after a barrier. */
__device__ __forceinline__ void find_tile(const call &c, int64_t number, tiling level::*which, tile *found) {
  int index = 0;
  while (index + 1 < c.level_count && number >= (c.levels[index + 1].*which).first) index++;
  const tare_view &view = c.levels[index].view;
  const tiling &tiles = c.levels[index].*which;
  uint64_t at[TARE_AXES];
  uint64_t rest = tiles.chunks.divide(uint64_t(number - tiles.first), &at[3]);
  at[3] *= uint64_t(tiles.rows);
  rest = tiles.dim_2.divide(rest, &at[2]);
  at[0] = tiles.dim_1.divide(rest, &at[1]);
  const int64_t left = view.dim[3] - int64_t(at[3]);
  if (lane() == 0) {
    found->level = index;
    found->rows = int32_t(left < tiles.rows ? left : tiles.rows);
  }
  static_assert(TARE_ARRAY_COUNT <= warp_size, "a lane each");
  if (lane() < TARE_ARRAY_COUNT) {
    const int64_t *stride = view.array[lane()].stride;
    found->offset[lane()] = int64_t(at[0]) * stride[0] + int64_t(at[1]) * stride[1] + int64_t(at[2]) * stride[2] +
                            int64_t(at[3]) * stride[3];
    const void *const data = view.array[lane()].data;
    if (lane() == TARE_ARRAY_ELEMENT_WEIGHTS)
      found->element_weights = static_cast<const float *>(data) + found->offset[lane()];
    if (lane() == TARE_ARRAY_TARGETS)
      found->targets =
          static_cast<const char *>(data) + found->offset[lane()] * (c.target_dtype == TARE_DTYPE_F32 ? 4 : 2);
  }
}

/** Where an element of a tile lies in an array, in elements. */
__device__ __forceinline__ int64_t place(const level &l, const tile &t, int name, int32_t row, int64_t cls) {
  const tare_array &a = l.view.array[name];
  return t.offset[name] + row * a.stride[TARE_AXES - 1] + cls * a.cls;
}

/** Whether the mask of a row's image leaves a class out. */
__device__ __forceinline__ bool is_masked(const level &l, const tile &t, int32_t row, int64_t cls) {
  const uint8_t *const mask = static_cast<const uint8_t *>(l.view.array[TARE_ARRAY_CLASS_MASK].data);
  return mask && __ldg(mask + place(l, t, TARE_ARRAY_CLASS_MASK, row, cls)) == 0;
}

/** An element of an array whose type is known at run time; `Number` is float or double. */
template <typename Number>
__device__ __forceinline__ Number read_as(const void *data, int32_t dtype, int64_t at) {
  switch (dtype) {
    case TARE_DTYPE_F16:
      return Number(to_float(static_cast<const __half *>(data)[at]));
    case TARE_DTYPE_BF16:
      return Number(to_float(static_cast<const __nv_bfloat16 *>(data)[at]));
    case TARE_DTYPE_F64:
      return Number(static_cast<const double *>(data)[at]);
    default:
      return Number(static_cast<const float *>(data)[at]);
  }
}

}  // namespace tare

#endif
