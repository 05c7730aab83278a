/* SPDX-License-Identifier: Apache-2.0 */
/* The sigmoid family along classes: a thread takes 16 bytes, and the row follows from the index. */
#ifndef TARE_CUDA_SIGMOID_FLAT_CUH
#define TARE_CUDA_SIGMOID_FLAT_CUH

#include "sigmoid_elements.cuh"
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
  __device__ __forceinline__ flat_queue(vector<T> (&room)[queue_slots], const T *tile, int32_t whole)
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

/** A thread's first element in a tile whose rows follow each other, and how far it is to the next: divided once. */
struct flat_steps {
  int32_t row, cls, rows, classes;
};

__device__ __forceinline__ flat_steps make_flat_steps(const call &c, uint32_t size) {
  const uint32_t classes = uint32_t(c.classes), first = thread_rank() * size, step = block_threads * size;
  return {int32_t(first / classes), int32_t(first % classes), int32_t(step / classes), int32_t(step % classes)};
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

/** Whether a row's elements can go the lean way. */
template <typename Loss>
__device__ __forceinline__ bool is_lean(const setting_of<Loss> &s, float of_row) {
  if (Loss::scored && !has_factor(s, of_row * s.at_1)) return false;
  return Loss::has_lean_way(s) && has_factor(s, of_row * (Loss::uses_base_weight ? 1.0f : s.at_0));
}

/** Loss of a vector of negatives times `shrink`, without choices; they are of one row, or each of its own. Derivatives
 *  replace the logits. */
template <typename Loss, bool rough, int power, int rows, int size>
__device__ __forceinline__ float negatives_to_power(const setting_of<Loss> &s, const row_role (&row)[rows],
                                                    float (&x)[size]) {
  const float shared = Loss::uses_base_weight ? 1.0f : s.at_0;
  float sum = 0.0f;
#pragma unroll
  for (int k = 0; k < size; k++) {
    const float own = row[rows == 1 ? 0 : k].weight;
    const exact::pair value = Loss::template negative<rough>(s, x[k], Loss::uses_base_weight ? s.at_0 : 1.0f, power);
    sum = rows == 1 ? fmaf(value.loss, shrink, sum) : fmaf(own * shrink, value.loss, sum);
    x[k] = value.derivative * (own * shared * s.factor);
  }
  return (rows == 1 ? sum * row[0].weight : sum) * shared;
}

/** One choice of power for a whole vector. */
template <typename Loss, bool rough, int rows, int size>
__device__ __forceinline__ float negatives(const setting_of<Loss> &s, const row_role (&row)[rows], float (&x)[size]) {
  switch (Loss::power_of(s)) {
    case TARE_POWER_0:
      return negatives_to_power<Loss, rough, TARE_POWER_0>(s, row, x);
    case TARE_POWER_1:
      return negatives_to_power<Loss, rough, TARE_POWER_1>(s, row, x);
    case TARE_POWER_2:
      return negatives_to_power<Loss, rough, TARE_POWER_2>(s, row, x);
    case TARE_POWER_HALF:
      return negatives_to_power<Loss, rough, TARE_POWER_HALF>(s, row, x);
    case TARE_POWER_3_HALVES:
      return negatives_to_power<Loss, rough, TARE_POWER_3_HALVES>(s, row, x);
    default:
      return negatives_to_power<Loss, rough, TARE_POWER_GENERAL>(s, row, x);
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
    const weights w = make_weights_of<Loss>(r.weight, s.at_1);
    const exact::pair value = Loss::template hard<false>(s, taken, true, w.inside);
    return {value.loss * w.outside, -value.derivative * (w.outside * s.factor)};
  }
}

__device__ __forceinline__ row_role load_role(shared_place at) {
  const uint2 bits = load_8_bytes(at);
  return {int32_t(bits.x), __uint_as_float(bits.y)};
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
  float x[vector<T>::size];
  widen(queue.vector_of_turn(), x);
  const int32_t hit = r.cls - cls;
  const bool apart = uint32_t(hit) < uint32_t(vector<T>::size);
  T *to_hit = nullptr;
  float derivative_of_hit = 0.0f;
  if (apart) {
    const exact::pair value = take_hit<Loss>(s, r, derivatives, row, hit, x);
    if (!Loss::scored) sum.add(value.loss);
    derivative_of_hit = value.derivative;
    to_hit = to + hit;
  }
  const row_role one[1] = {r};
  sum.add_shrunk(negatives<Loss, sizeof(T) == 2>(s, one, x));
  if (wants_gradient) {
    store_floats<cache::once>(to, x);
    if (apart) *to_hit = from_float<T>(derivative_of_hit);
  }
}

/** The loss of this thread's share of a tile. A vector goes the lean way if the level allows it and the vector lies in
 *  one row; other elements go one by one. With always_soft no vector goes the lean way. Many parameters: the two ways
 *  share the tile's roles, steps and queue. */
template <typename T, typename Loss, bool always_soft>
__device__ __forceinline__ double flat_tile(const call_of<Loss> &c, const level &l, const tile &t,
                                            const setting_of<Loss> &s, row_role *roles, const float *derivatives,
                                            bool soft, bool lean, const flat_steps &steps,
                                            flat_queue<cache::once, T> &queue) {
  constexpr uint32_t size = vector<T>::size;
  const tare_array &logits = l.view.array[TARE_ARRAY_LOGITS], &gradient = l.view.array[TARE_ARRAY_GRADIENT];
  const int32_t wants_gradient = in_register(int32_t(gradient.data != nullptr));
  T *const to =
      in_register(static_cast<T *>(wants_gradient ? gradient.data : logits.data) + t.offset[TARE_ARRAY_GRADIENT]);
  const int32_t classes = in_register(int32_t(c.classes)), elements = in_register(t.rows * classes);
  const int32_t last = in_register(lean ? classes - int32_t(size) : -1); /* where a vector ends its row */
  const shared_place first_role = place_in_shared(roles);
  shared_place role = first_role + uint32_t(steps.row) * sizeof(row_role);
  loss_sum sum;
  int32_t cls = steps.cls;
  for (int32_t at = int32_t(thread_rank() * size); at < elements; at += int32_t(block_threads * size)) {
    queue.turn_to(at);
    if (!always_soft && cls <= last)
      lean_piece<T, Loss>(s, load_role(role), derivatives, int32_t((role - first_role) / sizeof(row_role)), cls, queue,
                          to + at, wants_gradient, sum);
    else
      flat_piece<T, Loss>(c, l, t, s, roles, Loss::scored && lean ? derivatives : nullptr, at,
                          int32_t((role - first_role) / sizeof(row_role)), cls, min(int32_t(size), elements - at), soft,
                          sum);
    queue.end_turn();
    role += uint32_t(steps.rows) * sizeof(row_role);
    cls += steps.classes;
    if (cls >= classes) cls -= classes, role += sizeof(row_role);
  }
  return sum.all();
}

/** Skips the rows of a tile that a dense target spoils, before anything of them is computed. By all threads, between
 *  two barriers; ends with a third. */
__device__ __forceinline__ void skip_invalid_rows(const call &c, const level &l, const tile &t, row_role *roles,
                                                  bool reports) {
  const uint32_t elements = uint32_t(t.rows) * uint32_t(c.classes);
  for (uint32_t at = thread_rank(); at < elements; at += block_threads) {
    int32_t row, cls;
    split(c, l, at, &row, &cls);
    if (roles[row].weight != 0.0f && is_invalid_target(c, l, t, row, cls)) roles[row].cls = row_invalid;
  }
  __syncthreads();
  for (int32_t row = int32_t(thread_rank()); row < t.rows; row += block_threads) {
    if (roles[row].cls != row_invalid) continue;
    roles[row] = {row_skipped, 0.0f};
    if (reports) report_target(c, l, t, row);
  }
  __syncthreads();
}

/** Evaluates all tiles, by labels or by dense targets (`soft`). */
template <typename T, typename Loss, bool always_soft>
__device__ __forceinline__ void flat_pass(const call_of<Loss> &c, const setting_of<Loss> &s, row_role *roles,
                                          vector<T> (&room)[queue_slots], bool soft) {
  const flat_steps steps = make_flat_steps(c, vector<T>::size);
  for_each_tile<Loss::backwards>(c, c.tile_count, &level::tiles, [&](const level &l, const tile &t) {
    const int32_t whole = !soft && l.allows_lean_way ? t.rows * int32_t(c.classes) : 0;
    flat_queue<cache::once, T> queue(room, logits_of<T>(l, t), whole);
    TARE_SHARED(float[Loss::scored ? most_flat_rows : 1], derivatives);
    loss_sum of_labels;
    int wide = 0;
    for (int32_t row = int32_t(thread_rank()); row < t.rows; row += block_threads) {
      const row_role r = look_at_scored_row<Loss>(c, l, t, row, true);
      wide |= !is_lean<Loss>(s, r.weight);
      roles[row] = r;
      if constexpr (Loss::scored) {
        if (l.allows_lean_way && !soft && r.cls >= 0) {
          const exact::pair value = scored_label<T, Loss>(c, l, t, s, r, row);
          of_labels.add(value.loss);
          derivatives[row] = value.derivative;
        }
      }
      report_if_invalid(c, l, t, row);
    }
    const bool lean = !__syncthreads_or(wide) && l.allows_lean_way && !soft;
    if (soft) skip_invalid_rows(c, l, t, roles, true);
    const double sum = flat_tile<T, Loss, always_soft>(c, l, t, s, roles, derivatives, soft, lean, steps, queue);
    return Loss::scored && lean ? sum + of_labels.all() : sum;
  });
}

template <typename T, typename Loss, bool soft>
__global__ void __launch_bounds__(block_threads, 4) sigmoid_flat(const TARE_GRID_CONSTANT call_of<Loss> c) {
  TARE_SHARED(row_role[most_flat_rows], roles);
  TARE_SHARED(vector<T>[queue_slots], room);
  const setting_of<Loss> s = Loss::make(c);
  flat_pass<T, Loss, soft>(c, s, roles, room, soft);
  finish_loss(c);
}

}  // namespace sigmoid

}  // namespace tare

#endif
