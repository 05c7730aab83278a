/* SPDX-License-Identifier: Apache-2.0 */
/* How the blocks share the tiles of a call, and how the partial sums become the loss. */
#ifndef TARE_CUDA_TILES_CUH
#define TARE_CUDA_TILES_CUH

#include "scales.cuh"

namespace tare {

/** 2^this many tiles share a partial sum. */
__host__ __device__ __forceinline__ int tiles_of_partial(int64_t tiles) {
  int shift = 0;
  while (tiles >> shift >= most_partials) shift++;
  return shift;
}
__host__ __device__ __forceinline__ int64_t partials_of(int64_t tiles) {
  const int shift = tiles_of_partial(tiles);
  return (tiles + (int64_t(1) << shift) - 1) >> shift;
}

/** A block's share of the groups of tiles: every gridDim.x-th, from the first to the last, or backwards. */
template <bool backwards>
struct group_walk {
  uint32_t groups, rounds, round;

  __device__ __forceinline__ uint32_t place() const {
    return blockIdx.x + gridDim.x * (backwards ? rounds - 1 - round : round);
  }
  __device__ __forceinline__ bool is_over() const { return round >= rounds; }
  __device__ __forceinline__ void skip_missing() { /* the last round is not one of all blocks */
    if (!is_over() && place() >= groups) round++;
  }
  __device__ __forceinline__ void next() {
    round++;
    skip_missing();
  }
};

/** Calls `work(level, tile)` for this block's share of the tiles, or for the same tiles from the last to the first.
 *  What it returns, if it returns anything, is added over the block's threads, then over the tiles of a group, and put
 *  in the group's place. By all threads. The place of the next tile is found before the work on one begins, so that
 *  only the first is waited for. */
template <bool backwards = false, typename Work>
__device__ __forceinline__ void for_each_tile(const call &c, int64_t tiles, tiling level::*which, Work &&work) {
  TARE_SHARED(tile[2], found);
  constexpr bool adds = !std::is_void<decltype(work(c.levels[0], static_cast<const tile &>(found[0])))>::value;
  const int64_t each = int64_t(1) << tiles_of_partial(tiles);
  const uint32_t groups = uint32_t(partials_of(tiles));
  group_walk<backwards> walk = {groups, (groups + gridDim.x - 1) / gridDim.x, 0};
  walk.skip_missing();
  if (walk.is_over()) return;
  int64_t number = walk.place() * each;
  if (thread_rank() < warp_size) find_tile(c, number, which, &found[0]);
  __syncthreads();
  double sum = 0;
  for (uint32_t now = 0; !walk.is_over(); now ^= 1) {
    const uint32_t place = walk.place();
    const bool ends_group = number + 1 == (place + 1) * each || number + 1 == tiles;
    if (ends_group) walk.next();
    number = ends_group ? walk.place() * each : number + 1;
    if (!walk.is_over() && thread_rank() < warp_size) find_tile(c, number, which, &found[now ^ 1]);
    const tile &t = found[now];
    if constexpr (adds) {
      sum += block_sum<block_threads>(double(work(c.levels[t.level], t))); /* ends with a barrier */
      if (ends_group && thread_rank() == 0) c.partials[place] = sum;
      if (ends_group) sum = 0;
    } else {
      work(c.levels[t.level], t);
      __syncthreads();
    }
  }
}

/** Adds the partial sums of `tiles` tiles. The order depends on their number alone. Thread 0 has the result. */
__device__ __forceinline__ double sum_of_partials(const call &c, int64_t tiles) {
  const int64_t count = partials_of(tiles), each = (count + block_threads - 1) / block_threads;
  const int64_t first = thread_rank() * each, end = first + each < count ? first + each : count;
  double mine = 0;
  for (int64_t i = first; i < end; i++) mine += __ldcg(c.partials + i);
  return block_sum<block_threads>(mine);
}

/** The last block to come here writes the loss. By all threads, once a kernel. */
__device__ __forceinline__ void finish_loss(const call &c) {
  if (!last_block(&c.record->ticket)) return;
  double sum = sum_of_partials(c, c.tile_count);
  if (thread_rank() != 0 || !c.loss) return;
  if (c.follows) sum += c.record->loss_so_far;
  if (c.goes_on) {
    c.record->loss_so_far = sum;
    return;
  }
  const double loss = sum * inverse_divisor_of(c);
  if (c.loss_dtype == TARE_DTYPE_F64)
    *static_cast<double *>(c.loss) = loss;
  else
    *static_cast<float *>(c.loss) = float(loss);
}

}  // namespace tare

#endif
