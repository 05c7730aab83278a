/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GHM-C counts a tile with labels. Nearly all elements have the target 0, in rows that count. So all are counted as if
 * they were such, without a look at their rows; then what is otherwise is put right: labels, and rows that are skipped.
 */
#ifndef TARE_CUDA_GHM_C_TILES_CUH
#define TARE_CUDA_GHM_C_TILES_CUH

#include "ghm_counter.cuh"
#include "sigmoid.cuh"

namespace tare {
namespace sigmoid {

/** Of a tile, and so of what remembers their roles. */
template <int32_t walk>
constexpr int32_t most_rows_counted = walk == walk_flat   ? roles_of_flat_tile
                                      : walk == walk_nchw ? 256
                                                          : 1;

/** Which of the pieces of a tile a thread takes: `at` and every `step`-th one behind it, before `end`. In memory they
 *  are `stride` elements apart. */
struct share_of_pieces {
  int32_t at, step, end;
  int64_t stride;
};

/** Counts vectors as elements whose target is 0, but not in ghm_histogram::counted. Some are loaded at a time: they are
 *  waited for together. */
template <typename T>
__device__ __forceinline__ void count_vectors(counter &n, const T *from, share_of_pieces p) {
  constexpr int together = vector<T>::size == 4 ? 4 : 3; /* registers are few */
  float key[vector<T>::size];
  for (; p.at + (together - 1) * p.step < p.end; p.at += together * p.step) {
    vector<T> v[together];
#pragma unroll
    for (int k = 0; k < together; k++, from += p.stride) v[k] = load_vector(from);
#pragma unroll
    for (int k = 0; k < together; k++) {
      widen(v[k], key);
      n.add_to_bins(key);
    }
  }
#pragma unroll 1
  for (; p.at < p.end; p.at += p.step, from += p.stride) {
    widen(load_vector(from), key);
    n.add_to_bins(key);
  }
}

/** The same of single elements. */
template <typename T>
__device__ __forceinline__ void count_singles(counter &n, const T *from, share_of_pieces p) {
  constexpr int together = 8;
  for (; p.at + (together - 1) * p.step < p.end; p.at += together * p.step) {
    float key[together];
#pragma unroll
    for (int k = 0; k < together; k++, from += p.stride) key[k] = to_float(*from);
    n.add_to_bins(key);
  }
#pragma unroll 1
  for (; p.at < p.end; p.at += p.step, from += p.stride) {
    const float key[1] = {to_float(*from)};
    n.add_to_bins(key);
  }
}

/** Counts all elements of a tile whose rows follow each other. */
template <typename T>
__device__ __forceinline__ void count_flat(const level &l, const tile &t, int32_t classes, counter &n) {
  constexpr int32_t size = vector<T>::size, threads = int32_t(block_threads);
  const int32_t elements = t.rows * classes, rank = int32_t(thread_rank()), vectors = l.aligned ? elements / size : 0;
  const T *const logits = logits_of<T>(l, t);
  count_vectors(n, logits + rank * size, {rank, threads, vectors, threads * size});
  const int32_t first = vectors * size + rank;
  if (first < elements) count_singles(n, logits + first, {first, threads, elements, threads});
}

/** Counts all elements of an NCHW tile. */
template <typename T>
__device__ __forceinline__ void count_nchw(const level &l, const tile &t, int32_t classes, counter &n) {
  nchw_share p = share_of_thread<T>(t);
  if (!l.aligned) { /* a lane a row */
    p.step = block_threads / uint32_t(t.rows);
    p.first = thread_rank() / uint32_t(t.rows);
    p.row = int32_t(thread_rank() % uint32_t(t.rows));
    p.n = p.first < p.step;
  }
  if (p.n == 0) return;
  const tare_array &a = l.view.array[TARE_ARRAY_LOGITS];
  const T *const from = static_cast<const T *>(a.data) + place(l, t, TARE_ARRAY_LOGITS, p.row, p.first);
  const share_of_pieces pieces = {int32_t(p.first), int32_t(p.step), classes, p.step * a.cls};
  if (l.aligned && p.n == vector<T>::size) return count_vectors(n, from, pieces);
#pragma unroll 1
  for (int32_t k = 0; k < p.n; k++) count_singles(n, from + k, pieces);
}

/** Calls use(row, class, logit) for the elements of the rows that are wanted. A warp takes a row (`by_rows`), or a
 *  class of all rows. */
template <typename T, typename Wants, typename Use>
__device__ __forceinline__ void for_elements(const level &l, const tile &t, int32_t classes, bool by_rows,
                                             Wants &&wants, Use &&use) {
  constexpr int32_t warps = int32_t(block_threads / warp_size);
  const int32_t lines = by_rows ? t.rows : classes, along = by_rows ? classes : t.rows;
  const T *const logits = static_cast<const T *>(l.view.array[TARE_ARRAY_LOGITS].data);
  for (int32_t line = int32_t(thread_rank() / warp_size); line < lines; line += warps) {
    if (by_rows && !wants(line)) continue;
    for (int32_t i = int32_t(lane()); i < along; i += int32_t(warp_size)) {
      const int32_t row = by_rows ? line : i, cls = by_rows ? i : line;
      if (wants(row)) use(row, cls, to_float(logits[place(l, t, TARE_ARRAY_LOGITS, row, cls)]));
    }
  }
}

/** Looks at the rows of a tile. Returns how many are skipped. By all threads; it ends with a barrier. */
__device__ __forceinline__ int32_t look_at_rows(const call &c, const level &l, const tile &t, row_role *roles) {
  int mine = 0;
  for (int32_t row = int32_t(thread_rank()); row < t.rows; row += block_threads) {
    roles[row] = look_at_row(c, l, t, row);
    mine += roles[row].weight == 0.0f;
  }
  int32_t skipped = __syncthreads_count(mine > 0);
#pragma unroll 1
  for (int32_t k = 1; k * int32_t(block_threads) < t.rows; k++) skipped += __syncthreads_count(mine > k);
  return skipped;
}

/** Counts a tile with labels; `skipped`: as look_at_rows says. Where most rows are skipped, the others are counted one
 *  by one. The classes of an NCHW map's row are far apart in memory, but few rows are taken back. Many parameters: a
 *  tile is named by call and level, and its roles are in shared memory. */
template <typename T, int32_t walk>
__device__ __forceinline__ void count_tile(const call &c, const level &l, const tile &t, counter &n,
                                           const row_role *roles, int32_t skipped) {
  const int32_t classes = int32_t(c.classes);
  const bool all = skipped * 2 <= t.rows;
  if (all) {
    if constexpr (walk == walk_flat)
      count_flat<T>(l, t, classes, n);
    else
      count_nchw<T>(l, t, classes, n);
    if (thread_rank() == 0) n.histogram.counted += int64_t(t.rows) * classes;
  }
  if (skipped)
    for_elements<T>(
        l, t, classes, walk == walk_flat || all, [&](int32_t row) { return (roles[row].weight == 0.0f) == all; },
        [&](int32_t, int32_t, float x) { n.add(x, all ? -1 : 1); });
  for (int32_t row = int32_t(thread_rank()); row < t.rows; row += block_threads) {
    const row_role r = roles[row]; /* of this thread's own */
    if (r.cls < 0) continue;       /* as of a row that is skipped */
    const float x = to_float(
        static_cast<const T *>(l.view.array[TARE_ARRAY_LOGITS].data)[place(l, t, TARE_ARRAY_LOGITS, row, r.cls)]);
    n.add(x, -1);
    n.add(-x, 1);
  }
}

}  // namespace sigmoid
}  // namespace tare

#endif
