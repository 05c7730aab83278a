/* SPDX-License-Identifier: Apache-2.0 */
/* The sigmoid family along rows that are not a whole number of vectors: a lane takes a row, class after class. */
#ifndef TARE_CUDA_SIGMOID_NCHW_LANES_CUH
#define TARE_CUDA_SIGMOID_NCHW_LANES_CUH

#include "sigmoid_negatives.cuh"

namespace tare {
namespace sigmoid {

/** A thread's share of an NCHW tile: a vector of rows, and every `step`-th class. */
struct nchw_share {
  int32_t row, n; /* n: how many of the rows there are; 0 for a thread without a share */
  uint32_t first, step;
};

/** The logits or gradients of a row, some classes apart. */
template <typename T>
struct nchw_row {
  T *at;
  int64_t step;

  __device__ __forceinline__ nchw_row(const level &l, const tile &t, int name, const nchw_share &p)
      : at(nullptr), step(p.step * l.view.array[name].cls) {
    const tare_array &a = l.view.array[name];
    if (a.data)
      at = static_cast<T *>(const_cast<void *>(static_cast<const void *>(a.data))) + place(l, t, name, p.row, p.first);
  }
  template <int many>
  __device__ __forceinline__ void load(T (&to)[many]) {
#pragma unroll
    for (int k = 0; k < many; k++, at += step) to[k] = *at;
  }
  template <int many>
  __device__ __forceinline__ void store(const float (&from)[many]) {
#pragma unroll
    for (int k = 0; k < many; k++, at += step) *at = from_float<T>(from[k]);
  }
};

/** Loss and gradient of a row's label, `hit` of these classes; its logit becomes one whose loss as a negative is 0.
 *  Many parameters: as element(). */
template <typename T, typename Loss, int many>
__device__ __forceinline__ exact::pair take_label(const call_of<Loss> &c, const level &l, const tile &t,
                                                  const setting_of<Loss> &s, row_role r, int32_t row, int32_t hit,
                                                  float (&x)[many]) {
  float taken = 0.0f;
#pragma unroll
  for (int k = 0; k < many; k++)
    if (k == hit) taken = x[k], x[k] = Loss::nothing();
  if constexpr (Loss::scored)
    return scored_element<T, Loss>(c, l, t, s, r, row, r.cls, taken, false);
  else
    return label_element<Loss>(s, r, taken);
}

/** Adds the loss of some classes of a row; derivatives replace the logits. Many parameters: as element(). */
template <typename T, typename Loss, int many>
__device__ __forceinline__ void row_piece(const call_of<Loss> &c, const level &l, const tile &t,
                                          const setting_of<Loss> &s, row_role r, const nchw_share &p, int32_t cls,
                                          const T (&logits)[many], nchw_row<T> &to, loss_sum &sum) {
  float x[many] = {};
  if (r.weight != 0.0f) { /* else nothing, even of a NaN */
    const int32_t beyond = r.cls - cls, step = int32_t(p.step);
    int32_t hit = many;
    if (uint32_t(beyond) < uint32_t(many * step) && beyond % step == 0) hit = beyond / step;
    const bool apart = hit < many;
#pragma unroll
    for (int k = 0; k < many; k++) x[k] = to_float(logits[k]);
    exact::pair label = {0.0f, 0.0f};
    if (apart) {
      label = take_label<T, Loss>(c, l, t, s, r, p.row, hit, x);
      sum.add(label.loss);
    }
    const row_role one[1] = {r};
    sum.add_shrunk(negatives<Loss, sizeof(T) == 2>(s, one, x));
#pragma unroll
    for (int k = 0; k < many; k++)
      if (apart && k == hit) x[k] = label.derivative;
  }
  if (to.at) to.store(x);
}

/** A lane takes a row of a map whose rows are not a whole number of vectors, and some of its classes at a time: lanes
 *  read and write side by side. The level allows it, and so do the weights of the tile's rows. Many parameters: as
 *  element(). */
template <typename T, typename Loss>
__device__ __forceinline__ void lean_row(const call_of<Loss> &c, const level &l, const tile &t,
                                         const setting_of<Loss> &s, row_role r, const nchw_share &p, loss_sum &sum) {
  constexpr int many = 8;
  nchw_row<T> from(l, t, TARE_ARRAY_LOGITS, p), to(l, t, TARE_ARRAY_GRADIENT, p);
  const int32_t classes = int32_t(c.classes), turn = many * int32_t(p.step), last = classes - turn + int32_t(p.step);
  int32_t cls = int32_t(p.first);
  T next[many];
  if (cls < last) from.load(next);
  for (; cls < last; cls += turn) {
    T now[many];
#pragma unroll
    for (int k = 0; k < many; k++) now[k] = next[k];
    if (cls + turn < last) from.load(next); /* before this turn's are computed */
    row_piece<T, Loss>(c, l, t, s, r, p, cls, now, to, sum);
  }
#pragma unroll 1
  for (; cls < classes; cls += int32_t(p.step)) {
    T one[1];
    from.load(one);
    row_piece<T, Loss>(c, l, t, s, r, p, cls, one, to, sum);
  }
}

/** A tile of a level that allows lanes along rows. Returns false, and does nothing, where a row's weight does not. By
 *  all threads. */
template <typename T, typename Loss>
__device__ __forceinline__ bool rows_of_lanes(const call_of<Loss> &c, const level &l, const tile &t,
                                              const setting_of<Loss> &s, loss_sum &sum) {
  nchw_share p;
  p.step = block_threads / uint32_t(t.rows);
  p.first = thread_rank() / uint32_t(t.rows);
  p.row = int32_t(thread_rank() % uint32_t(t.rows));
  p.n = p.first < p.step;
  row_role r = {row_skipped, 0.0f};
  if (p.n) r = look_at_scored_row<Loss>(c, l, t, p.row, false);
  if (__syncthreads_or(!is_lean<Loss>(s, r.weight))) return false;
  if (!p.n) return true;
  if (p.first == 0) {
    look_at_scored_row<Loss>(c, l, t, p.row, true);
    report_if_invalid(c, l, t, p.row);
  }
  lean_row<T, Loss>(c, l, t, s, r, p, sum);
  return true;
}

}  // namespace sigmoid

}  // namespace tare

#endif
