/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Losses of rows that follow each other. Threads take four elements at a time, whatever rows they are of, and leave
 * their losses in shared memory. Then eight lanes add each row, in the order in which a warp does (row_of_warp).
 */
#ifndef TARE_CUDA_SIGMOID_ROW_LOSSES_CUH
#define TARE_CUDA_SIGMOID_ROW_LOSSES_CUH

#include "sigmoid_pieces.cuh"

namespace tare {
namespace sigmoid {

constexpr int32_t part_size = 4;     /* elements that a thread takes at a time */
constexpr uint32_t lanes_of_row = 8; /* that add a row */

/** Elements that a thread takes, as they lie in memory. */
template <typename T>
struct part {
  using word = std::conditional_t<sizeof(T) == 4, uint4, uint2>;
  T at[part_size];
};

/** Those from `at` on; 0 behind the tile's end. */
template <typename T>
__device__ __forceinline__ part<T> load_part(const T *tile, int32_t at, int32_t elements) {
  part<T> p;
  if (elements - at >= part_size) {
    const typename part<T>::word bits = __ldcs(reinterpret_cast<const typename part<T>::word *>(tile + at));
    memcpy(static_cast<void *>(&p), &bits, sizeof p);
    return p;
  }
#pragma unroll
  for (int k = 0; k < part_size; k++) p.at[k] = at + k < elements ? tile[at + k] : from_float<T>(0.0f);
  return p;
}

template <typename T>
__device__ __forceinline__ void store_part(T *tile, int32_t at, int32_t elements, const float (&x)[part_size]) {
  part<T> p;
#pragma unroll
  for (int k = 0; k < part_size; k++) p.at[k] = from_float<T>(x[k]);
  if (elements - at >= part_size) {
    typename part<T>::word bits;
    memcpy(&bits, static_cast<const void *>(&p), sizeof bits);
    __stcs(reinterpret_cast<typename part<T>::word *>(tile + at), bits);
    return;
  }
#pragma unroll
  for (int k = 0; k < part_size; k++)
    if (at + k < elements) tile[at + k] = p.at[k];
}

/** What the elements of two rows are multiplied by, `left` of them of the first. */
struct factors_of_rows {
  float inside, outside[2], derivative[2];
  int32_t left;
};

/** Losses of negatives, as negative_of_row has them. Derivatives replace the logits. */
template <typename T, typename Loss, int power>
__device__ __forceinline__ void lose_to_power(const setting_of<Loss> &s, const factors_of_rows &f,
                                              float (&x)[part_size], float (&loss)[part_size], bool wants_gradient) {
#pragma unroll
  for (int k = 0; k < part_size; k++) {
    const exact::pair value = Loss::template negative<false>(s, x[k], f.inside, power);
    loss[k] = value.loss * (k < f.left ? f.outside[0] : f.outside[1]);
    if (sizeof(T) == 4) x[k] = value.derivative * (k < f.left ? f.derivative[0] : f.derivative[1]);
  }
  if constexpr (sizeof(T) == 2) {
    if (!wants_gradient) return;
#pragma unroll
    for (int k = 0; k < part_size; k++)
      x[k] = Loss::template negative<true>(s, x[k], f.inside, power).derivative *
             (k < f.left ? f.derivative[0] : f.derivative[1]);
  }
}

/** The same of two rows. Other powers have no code here: go_together lets none through. */
template <typename T, typename Loss>
__device__ __forceinline__ void lose_negatives(const setting_of<Loss> &s, const row_role (&r)[2], int32_t left,
                                               float (&x)[part_size], float (&loss)[part_size], bool wants_gradient) {
  factors_of_rows f;
  f.left = left;
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const weights w = make_weights_of<Loss>(r[i].weight, s.at_0);
    f.inside = w.inside;
    f.outside[i] = w.outside;
    f.derivative[i] = r[i].weight == 0.0f ? 0.0f : w.outside * s.factor; /* 0, and not -0 */
  }
  if (r[0].weight == 0.0f || r[1].weight == 0.0f) { /* nothing, even of a NaN */
#pragma unroll
    for (int k = 0; k < part_size; k++)
      if ((k < left ? r[0].weight : r[1].weight) == 0.0f) x[k] = Loss::nothing();
  }
  with_power_of<Loss>(s, [&](auto power) {
    if constexpr (decltype(power)::value <= TARE_POWER_2)
      lose_to_power<T, Loss, decltype(power)::value>(s, f, x, loss, wants_gradient);
  });
}

/** Loss, as an integer, and derivative of a row's label: kept behind the roles. */
__device__ __forceinline__ row_role &label_of_row(row_role *roles, int32_t row) {
  return roles[most_rows_with_losses + row];
}

/** A tile of rows with losses, and what its threads share. */
template <typename T>
struct rows_with_losses {
  const T *from;
  T *to; /* NULL: no gradient is wanted */
  float *row_loss;
  int64_t row_step; /* of row_loss */
  int32_t classes, elements;
  row_role *roles;
  float *losses; /* of elements, in shared memory */

  __device__ __forceinline__ rows_with_losses(const call &c, const level &l, const tile &t, row_role *of_rows,
                                              float *of_elements)
      : from(logits_of<T>(l, t)), roles(of_rows), losses(of_elements) {
    const tare_array &gradient = l.view.array[TARE_ARRAY_GRADIENT], &rows = l.view.array[TARE_ARRAY_ROW_LOSS];
    to = gradient.data ? static_cast<T *>(gradient.data) + t.offset[TARE_ARRAY_GRADIENT] : nullptr;
    row_loss = rows.data ? static_cast<float *>(rows.data) + t.offset[TARE_ARRAY_ROW_LOSS] : nullptr;
    row_step = rows.stride[TARE_AXES - 1];
    classes = int32_t(c.classes);
    elements = t.rows * classes;
  }
  __device__ __forceinline__ void put_label(int32_t row, int32_t cls) const {
    const row_role value = label_of_row(roles, row);
    losses[row * classes + cls] = __int_as_float(value.cls);
    if (to) to[row * classes + cls] = from_float<T>(value.weight);
  }
  __device__ __forceinline__ void put_sum(int32_t row, float sum) const {
    if (row_loss) row_loss[row * row_step] = sum;
  }
};

/** Losses of all elements, and gradients, as if no row had a label. Returns whether a loss may be large. */
template <typename T, typename Loss>
__device__ __forceinline__ bool lose_elements(const setting_of<Loss> &s, const tile &t, const rows_with_losses<T> &rows,
                                              uint32_t magic) {
  const shared_place first_role = place_in_shared(rows.roles);
  bool large = false;
  for (int32_t at = int32_t(thread_rank()) * part_size; at < rows.elements; at += block_threads * part_size) {
    const part<T> logits = load_part(rows.from, at, rows.elements);
    float x[part_size], loss[part_size];
#pragma unroll
    for (int k = 0; k < part_size; k++) x[k] = to_float(logits.at[k]);
    const int32_t row = int32_t(__umulhi(uint32_t(at), magic)), left = (row + 1) * rows.classes - at;
    const shared_place role = first_role + uint32_t(row) * sizeof(row_role);
    const row_role r[2] = {load_role(role),
                           load_role(left < part_size && row + 1 < t.rows ? role + sizeof(row_role) : role)};
    lose_negatives<T, Loss>(s, r, left, x, loss, rows.to != nullptr);
    large = large || !((fabsf(loss[0]) + fabsf(loss[1])) + (fabsf(loss[2]) + fabsf(loss[3])) <= largest_addend);
    vector<float> kept;
#pragma unroll
    for (int k = 0; k < part_size; k++) kept.at[k] = loss[k];
    store_vector(rows.losses + at, kept);
    if (rows.to) store_part(rows.to, at, rows.elements, x);
  }
  return large;
}

/** Adds each row, as the lanes of a warp with a class each would. Returns this thread's share of all. */
template <typename T>
__device__ __forceinline__ double add_rows(const tile &t, const rows_with_losses<T> &rows) {
  constexpr int32_t apart = int32_t(lanes_of_row), together = int32_t(warp_size) / apart;
  const int32_t mine = int32_t(lane()) % apart;
  double sum = 0.0;
  for (int32_t first = int32_t(thread_rank() / warp_size) * together; first < t.rows;
       first += block_threads / int32_t(warp_size) * together) {
    const int32_t row = first + int32_t(lane()) / apart;
    const bool is_there = row < t.rows, first_of_row = is_there && mine == 0;
    if (first_of_row && rows.roles[row].cls >= 0) rows.put_label(row, rows.roles[row].cls);
    __syncwarp();
    const int32_t end = is_there ? rows.classes : 0;
    const float *const of_row = rows.losses + row * rows.classes;
    float lanes[together] = {}; /* of lanes mine, mine + 8, ... of a warp */
    int32_t cls = mine;
    for (; cls + (together - 1) * apart < end; cls += int32_t(warp_size))
#pragma unroll
      for (int k = 0; k < together; k++) lanes[k] += of_row[cls + k * apart];
#pragma unroll
    for (int k = 0; k < together; k++)
      if (cls + k * apart < end) lanes[k] += of_row[cls + k * apart];
    static_assert(together == 4, "the steps of warp_sum from 16 to 8");
    const float all = warp_sum<apart>((lanes[0] + lanes[2]) + (lanes[1] + lanes[3]));
    if (!first_of_row) continue;
    sum += double(all);
    rows.put_sum(row, all);
  }
  return sum;
}

/** Over a warp, in float where that is enough. */
__device__ __forceinline__ double sum_over_warp(const loss_sum &mine) {
  if (__any_sync(full_mask, mine.large != 0.0f)) return warp_sum(mine.all());
  return double(warp_sum(mine.small));
}

/** add_rows where losses may be large: a warp for each row. */
template <typename T>
__device__ __forceinline__ double add_large_rows(const tile &t, const rows_with_losses<T> &rows) {
  double sum = 0.0;
  for (int32_t row = int32_t(thread_rank() / warp_size); row < t.rows; row += block_threads / int32_t(warp_size)) {
    if (lane() == 0 && rows.roles[row].cls >= 0) rows.put_label(row, rows.roles[row].cls);
    __syncwarp();
    loss_sum mine;
    for (int32_t cls = int32_t(lane()); cls < rows.classes; cls += int32_t(warp_size))
      mine.add(rows.losses[row * rows.classes + cls]);
    const double all = sum_over_warp(mine);
    if (lane() != 0) continue;
    sum += all;
    rows.put_sum(row, float(all));
  }
  return sum;
}

}  // namespace sigmoid

}  // namespace tare

#endif
