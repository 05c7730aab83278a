/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bins of GHM-C's keys by a table, without a norm and without a choice. From the first to the last end of a bin,
 * keys are cut into cells of one length, so short that at most one bin begins in each. A cell has the first key of that
 * bin, so bins are exact whatever rounding does: the cell of a key never falls while the key grows, and that is enough.
 */
#ifndef TARE_CUDA_GHM_TABLE_CUH
#define TARE_CUDA_GHM_TABLE_CUH

#include "ghm.cuh"

namespace tare {

constexpr uint32_t key_cells = 512; /* and one for the last end. With more than 190 bins or so they are too few */

/** What the keys of a cell need: loaded at once. */
struct alignas(8) key_cell {
  float end;      /* the first key of the bin that begins here, or NaN */
  uint32_t below; /* the place among the counts, in bytes, of the bin before it */
};

/** Where a key lies between the first end and the last. */
struct key_scale {
  float scale, offset;

  /** The cell, counted from first_cell. It is that for what is below the first end, and for NaN. */
  __device__ __forceinline__ uint32_t cell_of(float key) const {
    const float behind = float(1 << 23) / float(key_cells); /* floats there are 1/key_cells apart */
    return __float_as_uint(__saturatef(fmaf(key, scale, offset)) + behind);
  }
  __device__ __forceinline__ uint32_t first_cell() const { return cell_of(-INFINITY); }
};

struct key_table {
  key_scale scale;
  shared_place cells;     /* where cell 0 would lie, if they were counted from it */
  shared_place counts[2]; /* this lane's copy of the first bin's count, and of the second's */
  bool serves;            /* else bins are too many */

  /** The count of a key's bin. That of the first bin is a place as well: a condition would cost a branch. */
  __device__ __forceinline__ shared_place count_of(float key) const {
    const uint2 cell = load_8_bytes(cells + scale.cell_of(key) * uint32_t(sizeof(key_cell)));
    return (key >= __uint_as_float(cell.x) ? counts[1] : counts[0]) + cell.y;
  }
};

/** By all threads, behind a barrier after make_bins and make_histogram. It ends with a barrier. */
__device__ __forceinline__ key_table make_key_table(const ghm_bins &bins, const ghm_histogram &h) {
  TARE_SHARED(key_cell[key_cells + 1], cells);
  const float first = bins.second, last = bins.count > 1 ? bins.lower[bins.count - 1] : first;
  key_table t;
  t.scale.scale = last > first ? rcp_approx(last - first) : 1.0f;
  t.scale.offset = -first * t.scale.scale;
  const uint32_t first_cell = t.scale.first_cell();
  int several = 0;
  for (uint32_t cell = thread_rank(); cell <= key_cells; cell += block_threads) {
    int32_t low = 0, high = bins.count; /* the last bin that begins before this cell */
    while (high - low > 1) {
      const int32_t middle = (low + high) / 2;
      if (t.scale.cell_of(bins.lower[middle]) - first_cell < cell)
        low = middle;
      else
        high = middle;
    }
    const auto begins = [&](int32_t bin) {
      return bin < bins.count && t.scale.cell_of(bins.lower[bin]) - first_cell == cell;
    };
    several |= begins(low + 2);
    cells[cell] = {begins(low + 1) ? bins.lower[low + 1] : NAN, uint32_t(low << h.shift) * uint32_t(sizeof *h.counts)};
  }
  t.serves = !__syncthreads_or(several);
  t.cells = place_in_shared(cells) - first_cell * uint32_t(sizeof(key_cell));
  t.counts[0] = place_in_shared(h.counts + h.copy);
  t.counts[1] = place_in_shared(h.counts + h.copy + (1 << h.shift));
  return t;
}

}  // namespace tare

#endif
