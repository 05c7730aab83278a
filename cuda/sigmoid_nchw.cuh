/* SPDX-License-Identifier: Apache-2.0 */
/* The sigmoid family along rows, class after class (NCHW): a thread takes 16 bytes and looks at their labels once. */
#ifndef TARE_CUDA_SIGMOID_NCHW_CUH
#define TARE_CUDA_SIGMOID_NCHW_CUH

#include "sigmoid_nchw_lanes.cuh"
#include "vector_queue.cuh"

namespace tare {
namespace sigmoid {

/** The labels' elements of a score_pass in one class of a vector of rows, one by one: their formulas are long. `from`
 *  has their logits; `to` takes their gradient, or is NULL. Adds their loss. Many parameters: as element(). */
template <typename T, typename Loss>
__device__ __forceinline__ void nchw_labels(const call &c, const level &l, const tile &t, const setting &s,
                                            const row_role (&r)[vector<T>::size], int32_t row, int64_t cls,
                                            const vector<T> &from, T *to, loss_sum &sum) {
#pragma unroll 1
  for (int k = 0; k < vector<T>::size; k++) {
    row_role of = r[0];
    float x = to_float(from.at[0]);
#pragma unroll
    for (int j = 1; j < vector<T>::size; j++)
      if (j == k) of = r[j], x = to_float(from.at[j]);
    if (of.cls != cls) continue;
    const exact::pair value = scored_element<T, Loss>(c, l, t, s, of, row + k, cls, x, false);
    sum.add(value.loss);
    if (to) to[k] = from_float<T>(value.derivative);
    store_element_loss(l, t, row + k, cls, value.loss);
  }
}

/** An element of one class of a vector of rows; of a score_pass only if it is not the label's. Many parameters: as
 *  element(). */
template <typename T, typename Loss>
__device__ __forceinline__ exact::pair nchw_element(const call_of<Loss> &c, const level &l, const tile &t,
                                                    const setting_of<Loss> &s, row_role r, int32_t row, int64_t cls,
                                                    float x) {
  if constexpr (Loss::scored)
    return element_off_label<T, Loss>(c, l, t, s, r, row, cls, x);
  else
    return element<T, Loss>(c, l, t, s, r, row, cls, x, false);
}

/** Adds the loss of one class of up to a vector of rows. Many parameters: as element(). */
template <typename T, typename Loss>
__device__ __forceinline__ void nchw_piece(const call_of<Loss> &c, const level &l, const tile &t,
                                           const setting_of<Loss> &s, const row_role (&r)[vector<T>::size], int32_t row,
                                           int64_t cls, int n, loss_sum &sum) {
  const tare_array &logits = l.view.array[TARE_ARRAY_LOGITS], &gradient = l.view.array[TARE_ARRAY_GRADIENT];
  const T *const from = static_cast<const T *>(logits.data) + place(l, t, TARE_ARRAY_LOGITS, row, cls);
  T *const to = gradient.data ? static_cast<T *>(gradient.data) + place(l, t, TARE_ARRAY_GRADIENT, row, cls) : nullptr;
  const bool whole = l.aligned && n == vector<T>::size;
  vector<T> v;
  if (whole)
    v = load_vector<cache::once>(from);
  else
    for (int k = 0; k < vector<T>::size; k++) v.at[k] = k < n ? from[k] : from_float<T>(0.0f);
  const vector<T> logits_of_rows = v;
  bool has_label = false;
#pragma unroll
  for (int k = 0; k < vector<T>::size; k++)
    if (k < n && Loss::scored && r[k].cls == cls) {
      has_label = true;
    } else if (k < n) {
      const exact::pair value = nchw_element<T, Loss>(c, l, t, s, r[k], row + k, cls, to_float(v.at[k]));
      sum.add(value.loss);
      v.at[k] = from_float<T>(value.derivative);
      store_element_loss(l, t, row + k, cls, value.loss);
    }
  if (to && whole)
    store_vector<cache::once>(to, v);
  else if (to)
#pragma unroll
    for (int k = 0; k < vector<T>::size; k++)
      if (k < n) to[k] = v.at[k];
  if constexpr (Loss::scored)
    if (has_label) nchw_labels<T, Loss>(c, l, t, s, r, row, cls, logits_of_rows, to, sum);
}

template <typename T>
__device__ __forceinline__ nchw_share share_of_thread(const tile &t) {
  constexpr int size = vector<T>::size;
  const uint32_t across = uint32_t(t.rows + size - 1) / size;
  nchw_share p;
  p.step = across < block_threads ? block_threads / across : 1;
  p.first = thread_rank() / across;
  p.row = int32_t(thread_rank() % across) * size;
  p.n = p.first < p.step ? min(t.rows - p.row, size) : 0;
  return p;
}

/** The queue of such a share. */
template <cache hint, typename T>
struct nchw_queue : vector_queue<hint, T> {
  const T *ahead;
  int64_t step; /* of `ahead`, from turn to turn */

  __device__ __forceinline__ nchw_queue(vector<T> (&room)[queue_slots], const call &c, const level &l, const tile &t,
                                        const nchw_share &p)
      : vector_queue<hint, T>(room), step(p.step * l.view.array[TARE_ARRAY_LOGITS].cls) {
    ahead =
        static_cast<const T *>(l.view.array[TARE_ARRAY_LOGITS].data) + place(l, t, TARE_ARRAY_LOGITS, p.row, p.first);
    for (int k = 0; k < copies_ahead; k++, ahead += step) this->begin(k, ahead, p.first + k * p.step < c.classes);
  }
  __device__ __forceinline__ void turn_to(const call &c, const nchw_share &p, int64_t cls) {
    this->begin_turn(ahead, cls + copies_ahead * p.step < c.classes);
    ahead += step;
  }
};

/** Adds the loss of a share of whole vectors in a level that allows it (level::allows_lean_way). All elements are
 *  computed as negatives; a vector that holds its row's class goes the general way. Many parameters: the queue's room
 *  is in shared memory, and the roles are in registers. */
template <typename T, typename Loss>
__device__ __forceinline__ void lean_nchw(const call_of<Loss> &c, const level &l, const tile &t,
                                          const setting_of<Loss> &s, const row_role (&r)[vector<T>::size],
                                          const nchw_share &p, vector<T> (&room)[queue_slots], loss_sum &sum) {
  constexpr int size = vector<T>::size;
  const tare_array &gradient = l.view.array[TARE_ARRAY_GRADIENT];
  nchw_queue<cache::once, T> queue(room, c, l, t, p);
  T *to = nullptr;
  if (gradient.data) to = static_cast<T *>(gradient.data) + place(l, t, TARE_ARRAY_GRADIENT, p.row, p.first);
  const int64_t to_step = to ? p.step * gradient.cls : 0;
  bool all_count = true;
#pragma unroll
  for (int k = 0; k < size; k++) all_count = all_count && r[k].weight != 0.0f;
  for (int32_t cls = int32_t(p.first); cls < int32_t(c.classes); cls += int32_t(p.step)) {
    queue.turn_to(c, p, cls);
    bool has_no_hit = true;
#pragma unroll
    for (int k = 0; k < size; k++) has_no_hit = has_no_hit && r[k].cls != cls;
    if (has_no_hit || Loss::scored) {
      float x[size];
      widen(queue.vector_of_turn(), x);
      if (!all_count || !has_no_hit) {
#pragma unroll
        for (int k = 0; k < size; k++) x[k] = r[k].weight == 0.0f || r[k].cls == cls ? Loss::nothing() : x[k];
      }
      sum.add_shrunk(negatives<Loss, sizeof(T) == 2>(s, r, x));
      if (to) store_floats<cache::once>(to, x);
      if constexpr (Loss::scored)
        if (!has_no_hit) nchw_labels<T, Loss>(c, l, t, s, r, p.row, cls, queue.vector_of_turn(), to, sum);
    } else {
      nchw_piece<T, Loss>(c, l, t, s, r, p.row, cls, size, sum);
    }
    queue.end_turn();
    to += to_step;
  }
}

/** Threads share the rows of a tile, a vector each, and its classes: see nchw_share. */
template <typename T, typename Loss>
__device__ __forceinline__ double nchw_tile(const call_of<Loss> &c, const level &l, const tile &t,
                                            const setting_of<Loss> &s, vector<T> (&room)[queue_slots]) {
  constexpr int size = vector<T>::size;
  const nchw_share p = share_of_thread<T>(t);
  loss_sum sum;
  if constexpr (!std::is_same_v<Loss, shape_pass>) /* whose formulas leave too few registers */
    if (l.allows_lean_way == lean_rows && rows_of_lanes<T, Loss>(c, l, t, s, sum)) return sum.all();
  if (p.n == 0) return 0.0;
  row_role r[size];
  bool lean = l.allows_lean_way == lean_plain && p.n == size;
#pragma unroll
  for (int k = 0; k < size; k++) {
    r[k] = k < p.n ? look_at_scored_row<Loss>(c, l, t, p.row + k, p.first == 0) : row_role{row_skipped, 0.0f};
    if (k < p.n && p.first == 0) report_if_invalid(c, l, t, p.row + k);
    lean = lean && is_lean<Loss>(s, r[k].weight);
  }
  if (lean) {
    lean_nchw<T, Loss>(c, l, t, s, r, p, room, sum);
    return sum.all();
  }
  for (int64_t cls = p.first; cls < c.classes; cls += p.step) nchw_piece<T, Loss>(c, l, t, s, r, p.row, cls, p.n, sum);
  return sum.all();
}

template <typename T, typename Loss>
__device__ __forceinline__ void nchw_pass(const call_of<Loss> &c, const setting_of<Loss> &s,
                                          vector<T> (&room)[queue_slots]) {
  for_each_tile<Loss::backwards>(c, c.tile_count, &level::tiles,
                                 [&](const level &l, const tile &t) { return nchw_tile<T, Loss>(c, l, t, s, room); });
}

template <typename T, typename Loss>
__global__ void __launch_bounds__(block_threads, 2) sigmoid_nchw(const TARE_GRID_CONSTANT call_of<Loss> c) {
  TARE_SHARED(vector<T>[queue_slots], room);
  const setting_of<Loss> s = Loss::make(c);
  nchw_pass<T, Loss>(c, s, room);
  finish_loss(c);
}

}  // namespace sigmoid

}  // namespace tare

#endif
