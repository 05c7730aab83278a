/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Softmax rows with contiguous classes on their way through shared memory, as floats. A warp brings some rows at a time
 * to its room, 16 bytes at a time where they follow each other, and sends their gradients back the same way. Nothing
 * outside the rows is touched. Rows that are a whole number of vectors lie in chunks, with a gap that keeps the banks
 * apart. Others follow each other as they do in memory.
 */
#ifndef TARE_CUDA_SOFTMAX_ROOM_CUH
#define TARE_CUDA_SOFTMAX_ROOM_CUH

#include "softmax.cuh"

namespace tare {
namespace softmax {

/** Rows of a tile that a warp takes together. */
template <typename T>
struct row_group {
  T *at; /* the first */
  int64_t stride;
  int32_t rows, classes;

  __device__ __forceinline__ bool is_run() const { return stride == classes || rows == 1; }
  __device__ __forceinline__ int32_t elements() const { return rows * classes; }
  /** Elements between the first row and the last address before it that is a vector's. */
  __device__ __forceinline__ int32_t phase() const {
    return int32_t(reinterpret_cast<uintptr_t>(at) / sizeof(T) % vector<T>::size);
  }
};

/** How the rows of a group lie in a room: float k of row r is start + r*pitch + k. */
struct room_layout {
  int32_t start, pitch;
  bool has_gaps;

  /** Whether rows begin at 16 bytes. */
  __device__ __forceinline__ bool in_chunks() const { return (start | pitch) % chunk == 0; }
};

/** Of a warp, in shared memory. */
struct alignas(16) warp_room {
  float at[room_floats];
};

/** What is the same for all groups. */
struct room_setting {
  int32_t lanes, padded;
  uint32_t magic; /* of a division by the vectors of a row; 0: there is one */
};

template <typename T>
__device__ __forceinline__ room_setting make_room_setting(const call &c) {
  const uint32_t vectors = max(uint32_t(c.classes) / vector<T>::size, 1u);
  return {c.label_lanes, padded_pitch(int32_t(c.classes), c.label_lanes), 0xffffffffu / vectors + 1};
}

template <typename T>
__device__ __forceinline__ room_layout lay_out(const room_setting &s, const row_group<const T> &g) {
  const int32_t start = g.is_run() ? g.phase() : 0;
  const bool has_gaps = start == 0 && g.classes % vector<T>::size == 0;
  return {start, has_gaps ? s.padded : g.classes, has_gaps};
}

/* ---- 16 bytes, from and to a room -------------------------------------------------------------------------------- */

__device__ __forceinline__ void bring_vector(float *room, const float *from) {
  start_copy<cache::once>(place_in_shared(room), from);
}
template <typename T>
__device__ __forceinline__ void bring_vector(float *room, const T *from) {
  float x[vector<T>::size];
  widen(load_vector<cache::once>(from), x);
#pragma unroll
  for (int i = 0; i < vector<T>::size; i += chunk) {
    vector<float> part;
#pragma unroll
    for (int k = 0; k < chunk; k++) part.at[k] = x[i + k];
    store_vector(room + i, part);
  }
}

template <typename T>
__device__ __forceinline__ void send_vector(T *to, const float *room) {
  float x[vector<T>::size];
#pragma unroll
  for (int i = 0; i < vector<T>::size; i += chunk) {
    const vector<float> part = load_vector(room + i);
#pragma unroll
    for (int k = 0; k < chunk; k++) x[i + k] = part.at[k];
  }
  store_floats<cache::once>(to, x);
}

/** Calls whole(element, place) for each vector of a lane's share, and single(element, place) for what is left at both
 *  ends. The rows follow each other. */
template <typename T, typename Whole, typename Single>
__device__ __forceinline__ void go_along(const room_setting &s, const row_group<T> &g, const room_layout &in,
                                         Whole &&whole, Single &&single) {
  constexpr int32_t size = vector<T>::size;
  const int32_t count = g.elements(), me = int32_t(lane());
  if (in.has_gaps) {
    const int32_t gap = in.pitch - g.classes;
#pragma unroll(16 / size)
    for (int32_t at = me; at < count / size; at += int32_t(warp_size)) {
      const int32_t row = s.magic ? int32_t(__umulhi(uint32_t(at), s.magic)) : at;
      whole(at * size, at * size + row * gap);
    }
    return;
  }
  const int32_t head = min((size - in.start) % size, count), vectors = (count - head) / size;
#pragma unroll(16 / size)
  for (int32_t at = me; at < vectors; at += int32_t(warp_size)) whole(head + at * size, in.start + head + at * size);
  const int32_t rest = count - head - vectors * size;
  if (me < head) single(me, in.start + me);
  if (me < rest) single(count - rest + me, in.start + count - rest + me);
}

/** Element by element, for rows that do not follow each other, or not as the room has them. */
template <typename T, typename Single>
__device__ __forceinline__ void go_over(const row_group<T> &g, const room_layout &in, Single &&single) {
  for (int32_t row = 0; row < g.rows; row++)
#pragma unroll 2
    for (int32_t cls = int32_t(lane()); cls < g.classes; cls += int32_t(warp_size))
      single(row * g.stride + cls, in.start + row * in.pitch + cls);
}

/** Rows that do not follow each other: four at a time, so that their loads are on the way together. */
template <typename T>
__device__ __forceinline__ void bring_apart(const row_group<const T> &g, const room_layout &in, float *room) {
  constexpr int32_t together = 4;
  for (int32_t row = 0; row < g.rows; row += together)
    for (int32_t cls = int32_t(lane()); cls < g.classes; cls += int32_t(warp_size)) {
      T x[together];
#pragma unroll
      for (int32_t k = 0; k < together; k++) x[k] = g.at[min(row + k, g.rows - 1) * g.stride + cls];
#pragma unroll
      for (int32_t k = 0; k < together; k++)
        if (row + k < g.rows) room[in.start + (row + k) * in.pitch + cls] = to_float(x[k]);
    }
}

/** By a warp, which has left its room before. */
template <typename T>
__device__ __forceinline__ void bring_rows(const room_setting &s, const row_group<const T> &g, const room_layout &in,
                                           float *room) {
  const auto single = [&](int64_t from, int32_t to) { room[to] = to_float(g.at[from]); };
  if (g.is_run())
    go_along(
        s, g, in, [&](int32_t from, int32_t to) { bring_vector(room + to, g.at + from); }, single);
  else
    bring_apart(g, in, room);
  close_copies();
  wait_for_copies<0>();
  __syncwarp();
}

/** By a warp, after a barrier. */
template <typename T>
__device__ __forceinline__ void send_rows(const room_setting &s, const row_group<T> &g, const room_layout &in,
                                          const float *room) {
  const auto single = [&](int64_t to, int32_t from) { g.at[to] = from_float<T>(room[from]); };
  if (g.is_run() && g.phase() == in.start && (in.has_gaps || in.pitch == g.classes))
    go_along(
        s, g, in, [&](int32_t to, int32_t from) { send_vector(g.at + to, room + from); }, single);
  else
    go_over(g, in, single);
}

/* ---- A row, as one of its lanes sees it -------------------------------------------------------------------------- */

struct staged_row {
  float *at;
  int32_t n;           /* classes, 0 where there is nothing to look at */
  int32_t first, step; /* this lane has the chunks of classes first, first + step, ... */
  bool in_chunks;
};

/** Calls work(k, cls, x) for all of a lane's classes: k is a constant, the class's place in its chunk. With `stores`
 *  the room gets what becomes of x. */
template <bool stores, typename Work>
__device__ __forceinline__ void sweep(const staged_row &r, Work &&work) {
  int32_t cls = r.first;
  if (r.in_chunks) {
#pragma unroll 2
    for (; cls < r.n; cls += r.step) {
      vector<float> x = load_vector(r.at + cls);
#pragma unroll
      for (int k = 0; k < chunk; k++) work(k, cls + k, x.at[k]);
      if (stores) store_vector(r.at + cls, x);
    }
    return;
  }
#pragma unroll 2
  for (; cls + chunk <= r.n; cls += r.step) {
    float x[chunk];
#pragma unroll
    for (int k = 0; k < chunk; k++) x[k] = r.at[cls + k];
#pragma unroll
    for (int k = 0; k < chunk; k++) {
      work(k, cls + k, x[k]);
      if (stores) r.at[cls + k] = x[k];
    }
  }
#pragma unroll
  for (int k = 0; k < chunk - 1; k++)
    if (cls + k < r.n) {
      float x = r.at[cls + k];
      work(k, cls + k, x);
      if (stores) r.at[cls + k] = x;
    }
}

/** The same for what few rows need: less code. */
template <typename Work>
__device__ __forceinline__ void sweep_rarely(const staged_row &r, Work &&work) {
#pragma unroll 1
  for (int32_t cls = r.first / chunk; cls < r.n; cls += r.step / chunk) {
    float x = r.at[cls];
    work(cls, x);
    r.at[cls] = x;
  }
}

/** Takes the warps of a block over its tiles. one_row(level, tile, row, staged row, whether it is there) leaves the
 *  gradient in the room if one is wanted, and returns the loss in the row's first lane. By all threads. */
template <typename T, typename OneRow>
__device__ __forceinline__ void staged_pass(const call &c, warp_room (&rooms)[block_threads / 32], OneRow &&one_row) {
  const room_setting s = make_room_setting<T>(c);
  const int32_t together = int32_t(warp_size) / s.lanes, mine = int32_t(lane()) / s.lanes;
  const int32_t warp = int32_t(thread_rank() / warp_size), classes = int32_t(c.classes);
  float *const room = rooms[warp].at;
  for_each_tile(c, c.tile_count, &level::tiles, [&](const level &l, const tile &t) {
    const tare_array &logits = l.view.array[TARE_ARRAY_LOGITS], &gradient = l.view.array[TARE_ARRAY_GRADIENT];
    float sum = 0.0f;
    for (int32_t first = warp * together; first < t.rows; first += block_threads / int32_t(warp_size) * together) {
      const int32_t rows = min(together, t.rows - first);
      const row_group<const T> from = {logits_at<T>(l, t, first), logits.stride[TARE_AXES - 1], rows, classes};
      const room_layout in = lay_out<T>(s, from);
      __syncwarp(); /* the rows before have left the room */
      bring_rows<T>(s, from, in, room);
      const bool is_there = mine < rows;
      const staged_row r = {room + in.start + (is_there ? mine : 0) * in.pitch, is_there ? classes : 0,
                            int32_t(lane()) % s.lanes * chunk, s.lanes * chunk, in.in_chunks()};
      sum += one_row(l, t, first + (is_there ? mine : 0), r, is_there);
      __syncwarp();
      const row_group<T> to = {gradient_at<T>(l, t, first), gradient.stride[TARE_AXES - 1], rows, classes};
      if (to.at) send_rows<T>(s, to, in, room);
    }
    return double(sum) * loss_unit;
  });
  finish_loss(c);
}

}  // namespace softmax
}  // namespace tare

#endif
