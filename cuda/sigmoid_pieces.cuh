/* SPDX-License-Identifier: Apache-2.0 */
/* Vectors of a tile whose rows follow each other, as a thread takes them: element by element, or without choices. */
#ifndef TARE_CUDA_SIGMOID_PIECES_CUH
#define TARE_CUDA_SIGMOID_PIECES_CUH

#include "sigmoid_negatives.cuh"
#include "vector_queue.cuh"

namespace tare {
namespace sigmoid {

/** The queue of a tile whose rows follow each other: a thread takes a vector in each turn of its block. */
template <cache hint, typename T>
struct flat_queue : vector_queue<hint, T> {
  static constexpr int32_t step = block_threads * vector<T>::size; /* elements from one turn to the next */

  const T *ahead; /* a turn copies what lies so far from its own */
  int32_t end;    /* the first element of a turn that copies nothing */

  /** `whole`: the number of elements of the tile that are taken as full vectors. */
  template <int slots>
  __device__ __forceinline__ flat_queue(vector<T> (&room)[slots], const T *tile, int32_t whole)
      : vector_queue<hint, T>(room) {
    const int32_t mine = int32_t(thread_rank()) * vector<T>::size, last = whole - vector<T>::size;
    for (int k = 0; k < copies_ahead; k++) this->begin(k, tile + mine + k * step, mine + k * step <= last);
    ahead = in_register(tile + copies_ahead * step);
    end = in_register(last + 1 - copies_ahead * step);
  }
  __device__ __forceinline__ void turn_to(int32_t at) { this->begin_turn(ahead + at, at < end); }
};

/** Row and class of an element of a tile whose rows follow each other. */
__device__ __forceinline__ void split(const call &c, const level &l, uint32_t at, int32_t *row, int32_t *cls) {
  const uint32_t classes = uint32_t(c.classes);
  const uint32_t quotient = l.magic ? __umulhi(at, l.magic) : at / classes;
  *row = int32_t(quotient);
  *cls = int32_t(at - quotient * classes);
}

/** The row of a thread's first element in a tile whose rows follow each other, and how far it is to the next: divided
 *  once. */
struct flat_steps {
  int32_t row, rows, classes;
};

__device__ __forceinline__ flat_steps make_flat_steps(const call &c, uint32_t size) {
  const uint32_t classes = uint32_t(c.classes), first = thread_rank() * size, step = block_threads * size;
  return {int32_t(first / classes), int32_t(step / classes), int32_t(step % classes)};
}
/** Of GHM, which lacks registers: the host has divided. */
__device__ __forceinline__ flat_steps make_flat_steps(const ghm_call &c, uint32_t size) {
  return {int32_t(thread_rank() * size / uint32_t(c.classes)), c.rows_of_turn, c.classes_of_turn};
}

/** Adds the loss of `n` elements from element `at` of the tile, in order of rows, then classes. Many parameters: the
 *  place is given as a number, a row and a class, because a division is dearer than two registers.
 *  `derivatives`: of labels whose loss is in the sum already; or NULL. */
template <typename T, typename Loss>
__device__ __forceinline__ void flat_piece(const call_of<Loss> &c, const level &l, const tile &t,
                                           const setting_of<Loss> &s, const row_role *roles, const float *derivatives,
                                           uint32_t at, int32_t row, int32_t cls, int n, bool soft, loss_sum &sum) {
  const tare_array &logits = l.view.array[TARE_ARRAY_LOGITS], &gradient = l.view.array[TARE_ARRAY_GRADIENT];
  const T *const from = static_cast<const T *>(logits.data) + t.offset[TARE_ARRAY_LOGITS] + at;
  T *const to = static_cast<T *>(gradient.data) + t.offset[TARE_ARRAY_GRADIENT] + at;
#pragma unroll 1
  for (int k = 0; k < n; k++) {
    const exact::pair value = derivatives && cls == roles[row].cls
                                  ? exact::pair{0.0f, derivatives[row]}
                                  : element<T, Loss>(c, l, t, s, roles[row], row, cls, to_float(from[k]), soft);
    sum.add(value.loss);
    if (gradient.data) to[k] = from_float<T>(value.derivative);
    store_element_loss(l, t, row, cls, value.loss);
    if (++cls == c.classes) cls = 0, row++;
  }
}

/** Loss and gradient of a label's element in a level that allows the lean way. */
template <typename T, typename Loss>
__device__ __forceinline__ exact::pair scored_label(const call &c, const level &l, const tile &t, const setting &s,
                                                    row_role r, int32_t row) {
  const float x = to_float(logits_of<T>(l, t)[int64_t(row) * c.classes + r.cls]), score = clamped_score(c, l, t, row);
  const float weight = r.weight * (target_of_alpha(c, score, true) == 0.0f ? s.at_0 : s.at_1);
  const exact::pair value = Loss::template at_target<false>(c, s, x, score, is_negative(c, score, true));
  return {value.loss * weight, value.derivative * (weight * s.factor)};
}

/** Loss and gradient of element `hit`, the class of its row. Its logit becomes one whose loss as a negative is 0. The
 *  loss of a label with a score is in the sum already. */
template <typename Loss, int size>
__device__ __forceinline__ exact::pair take_hit(const setting_of<Loss> &s, row_role r, const float *derivatives,
                                                int32_t row, int32_t hit, float (&x)[size]) {
  float taken = 0.0f;
#pragma unroll
  for (int k = 0; k < size; k++)
    if (k == hit) taken = x[k], x[k] = Loss::nothing();
  if constexpr (Loss::scored) {
    (void)taken;
    return {0.0f, derivatives[row]};
  } else {
    return label_element<Loss>(s, r, taken);
  }
}

__device__ __forceinline__ row_role load_role(shared_place at) {
  const uint2 bits = load_8_bytes(at);
  return {int32_t(bits.x), __uint_as_float(bits.y)};
}

/** As take_hit, where the vector waits in shared memory and is loaded later: GHM has no register for a copy of it. */
template <typename T, typename Loss>
__device__ __forceinline__ exact::pair take_hit_in_room(const setting_of<Loss> &s, row_role r, shared_place vector,
                                                        int32_t hit) {
  static_assert(sizeof(T) == sizeof(float), "f32");
  const shared_place at = vector + uint32_t(hit) * uint32_t(sizeof(float));
  const exact::pair value = label_element<Loss>(s, r, load_4_bytes(at));
  store_4_bytes(at, Loss::nothing());
  return value;
}

/** Adds the loss of a whole vector in one row. The level allows it (level::allows_lean_way): a row's elements have one
 *  of two weights, neither is 0, and only loss and gradient are wanted. Nearly all elements of most batches are such.
 *  All are computed as negatives. The row's class is rarely one of them, and take_hit computes it. Many parameters: as
 *  flat_piece. */
template <typename T, typename Loss>
__device__ __forceinline__ void lean_piece(const setting_of<Loss> &s, row_role r, const float *derivatives, int32_t row,
                                           int32_t cls, const flat_queue<cache::once, T> &queue, T *to,
                                           int32_t wants_gradient, loss_sum &sum) {
  if (r.weight == 0.0f) { /* nothing, even of a NaN */
    if (wants_gradient) store_vector<cache::once>(to, vector<T>{});
    return;
  }
  constexpr bool in_room = Loss::backwards && sizeof(T) == sizeof(float);
  float x[vector<T>::size];
  if (!in_room) widen(queue.vector_of_turn(), x);
  const int32_t hit = r.cls - cls;
  const bool apart = uint32_t(hit) < uint32_t(vector<T>::size);
  float derivative_of_hit = any_float();
  if (apart) {
    exact::pair value;
    if constexpr (in_room)
      value = take_hit_in_room<T, Loss>(s, r, queue.now, hit);
    else
      value = take_hit<Loss>(s, r, derivatives, row, hit, x);
    if (!Loss::scored) sum.add(value.loss);
    derivative_of_hit = value.derivative;
  }
  if (in_room) widen(queue.vector_of_turn(), x);
  const row_role one[1] = {r};
  sum.add_shrunk(negatives<Loss, sizeof(T) == 2>(s, one, x));
  if (wants_gradient) {
    store_floats<cache::once>(to, x);
    if (apart) to[hit] = from_float<T>(derivative_of_hit);
  }
}

/** Adds the loss of the labels of a vector whose other elements are done, and stores their gradient. `hit`: their
 *  places in the vector, or what is none. Many parameters: as flat_piece. */
template <typename T, typename Loss>
__device__ __forceinline__ void labels_of_pair(const setting_of<Loss> &s, const row_role (&r)[2],
                                               const int32_t (&hit)[2], const float *derivatives, int32_t row,
                                               const flat_queue<cache::once, T> &queue, T *to, int32_t wants_gradient,
                                               loss_sum &sum) {
#pragma unroll 1
  for (int which = 0; which < 2; which++) {
    const int32_t at = which ? hit[1] : hit[0];
    if (uint32_t(at) >= uint32_t(vector<T>::size)) continue;
    float x[vector<T>::size];
    widen(queue.vector_of_turn(), x);
    const exact::pair value = take_hit<Loss>(s, which ? r[1] : r[0], derivatives, row + which, at, x);
    if (!Loss::scored) sum.add(value.loss);
    if (wants_gradient) to[at] = from_float<T>(value.derivative);
  }
}

/** Adds the loss of a whole vector of a row and, from the row's end on, of the next one, as lean_piece does. The warp's
 *  other vectors may lie in one row. Many parameters: as flat_piece. */
template <typename T, typename Loss>
__device__ __forceinline__ void crossing_piece(const setting_of<Loss> &s, shared_place role, const float *derivatives,
                                               int32_t row, int32_t cls, int32_t classes,
                                               const flat_queue<cache::once, T> &queue, T *to, int32_t wants_gradient,
                                               loss_sum &sum) {
  constexpr int size = vector<T>::size;
  const int32_t left = classes - cls; /* elements of the first row */
  const row_role r[2] = {load_role(role), load_role(role + sizeof(row_role))};
  const int32_t hit[2] = {r[0].cls - cls, left < size && r[1].cls >= 0 ? r[1].cls + left : -1};
  const bool has_hit = uint32_t(hit[0]) < uint32_t(size) || uint32_t(hit[1]) < uint32_t(size);
  float x[size];
  widen(queue.vector_of_turn(), x);
  if (has_hit || r[0].weight == 0.0f || r[1].weight == 0.0f) {
#pragma unroll
    for (int k = 0; k < size; k++)
      if (k == hit[0] || k == hit[1] || (k < left ? r[0].weight : r[1].weight) == 0.0f) x[k] = Loss::nothing();
  }
  sum.add_shrunk(weighed_negatives<Loss, sizeof(T) == 2>(s, weights_of_pair<Loss, sizeof(T) == 4>(s, r, left), x));
  if (wants_gradient) store_floats<cache::once>(to, x);
  if (has_hit) labels_of_pair<T, Loss>(s, r, hit, derivatives, row, queue, to, wants_gradient, sum);
}

/** The labels of a vector of rows that are shorter than it, one by one; the other elements are done. Many parameters:
 *  as flat_piece. */
template <typename T, typename Loss>
__device__ __forceinline__ void labels_of_short_rows(const setting_of<Loss> &s, shared_place role,
                                                     const float *derivatives, int32_t row, int32_t cls,
                                                     int32_t classes, const flat_queue<cache::once, T> &queue, T *to,
                                                     int32_t wants_gradient, loss_sum &sum) {
#pragma unroll 1
  for (int k = 0; k < vector<T>::size; k++) {
    const row_role r = load_role(role);
    if (r.cls == cls) {
      float x[vector<T>::size];
      widen(queue.vector_of_turn(), x);
      const exact::pair value = take_hit<Loss>(s, r, derivatives, row, k, x);
      if (!Loss::scored) sum.add(value.loss);
      if (wants_gradient) to[k] = from_float<T>(value.derivative);
    }
    if (++cls == classes) cls = 0, row++, role += sizeof(row_role);
  }
}

/** A whole vector of rows that are shorter than it: each element has the weight of its row. Many parameters: as
 *  flat_piece. */
template <typename T, typename Loss>
__device__ __forceinline__ void short_rows_piece(const setting_of<Loss> &s, shared_place role, const float *derivatives,
                                                 int32_t row, int32_t cls, int32_t classes,
                                                 const flat_queue<cache::once, T> &queue, T *to, int32_t wants_gradient,
                                                 loss_sum &sum) {
  constexpr int size = vector<T>::size;
  float x[size];
  widen(queue.vector_of_turn(), x);
  weights_of_rows<Loss, size> w(s);
  shared_place next = role;
  int32_t of = cls;
  bool has_hit = false;
#pragma unroll
  for (int k = 0; k < size; k++) {
    const row_role r = load_role(next);
    w.own[k] = r.weight;
    if (r.cls == of || r.weight == 0.0f) x[k] = Loss::nothing();
    has_hit = has_hit || r.cls == of;
    if (++of == classes) of = 0, next += sizeof(row_role);
  }
  sum.add_shrunk(weighed_negatives<Loss, sizeof(T) == 2>(s, w, x));
  if (wants_gradient) store_floats<cache::once>(to, x);
  if (has_hit) labels_of_short_rows<T, Loss>(s, role, derivatives, row, cls, classes, queue, to, wants_gradient, sum);
}

/** crossing_piece in a level with weights of elements or an alpha of each class. Returns false, and does nothing, where
 *  the vector has a label or a weight that is too large to be a factor. Many parameters: as flat_piece. */
template <typename T, typename Loss>
__device__ __forceinline__ bool weighted_piece(const call_of<Loss> &c, const level &l, const tile &t,
                                               const setting_of<Loss> &s, shared_place role, int32_t at, int32_t cls,
                                               const flat_queue<cache::once, T> &queue, T *to, int32_t wants_gradient,
                                               loss_sum &sum) {
  constexpr int size = vector<T>::size;
  if (Loss::backwards || (size > 4 && !Loss::is_hot)) return false; /* never with GHM; else too few registers */
  const int32_t left = int32_t(c.classes) - cls;
  const row_role r[2] = {load_role(role), load_role(role + sizeof(row_role))};
  if (uint32_t(r[0].cls - cls) < uint32_t(size) || uint32_t(r[1].cls) < uint32_t(max(size - left, 0))) return false;
  element_weights<Loss, size> w(c, s, r, left, cls);
  const tare_array &by_element = l.view.array[TARE_ARRAY_ELEMENT_WEIGHTS];
  if (by_element.data)
    w.multiply(static_cast<const float *>(by_element.data) + t.offset[TARE_ARRAY_ELEMENT_WEIGHTS] + at);
  if (!w.finish(s)) return false;
  float x[size];
  widen(queue.vector_of_turn(), x);
#pragma unroll
  for (int k = 0; k < size; k++)
    if (w.outside[k] == 0.0f) x[k] = Loss::nothing();
  sum.add_shrunk(weighed_negatives<Loss, sizeof(T) == 2>(s, w, x));
  if (wants_gradient) store_floats<cache::once>(to, x);
  return true;
}

/** Whether all dense targets of a vector of a level of lean_zeros are 0 or -0. */
template <typename T>
__device__ __forceinline__ bool has_zero_targets(const call &c, const level &l, const tile &t, int32_t at) {
  const bool is_wide = c.target_dtype == TARE_DTYPE_F32;
  const int64_t first = (t.offset[TARE_ARRAY_TARGETS] + at) * (is_wide ? 4 : 2);
  const uint32_t sign = is_wide ? 0x80000000u : 0x80008000u;
  const uint4 *const words =
      reinterpret_cast<const uint4 *>(static_cast<const char *>(l.view.array[TARE_ARRAY_TARGETS].data) + first);
  uint32_t any = 0;
  for (int k = 0; k < (is_wide ? vector<T>::size / 4 : 1); k++) {
    const uint4 bits = __ldg(words + k);
    any |= bits.x | bits.y | bits.z | bits.w;
  }
  return (any & ~sign) == 0;
}

}  // namespace sigmoid

}  // namespace tare

#endif
