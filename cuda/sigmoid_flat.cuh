/* SPDX-License-Identifier: Apache-2.0 */
/* The sigmoid family along classes: a thread takes 16 bytes, and the row follows from the index. */
#ifndef TARE_CUDA_SIGMOID_FLAT_CUH
#define TARE_CUDA_SIGMOID_FLAT_CUH

#include "sigmoid_dense.cuh"
#include "sigmoid_weighted.cuh"

namespace tare {
namespace sigmoid {

/** x, from the lane itself. The compiler computes what it knows again in every turn where it is short of registers, and
 *  does not know this. By all lanes. */
__device__ __forceinline__ uint32_t held(uint32_t x) { return __shfl_sync(~0u, x, int(lane())); }

/** Where the vectors of a thread lie in one row, as far as the whole warp knows without asking: a branch that all lanes
 *  take alike costs one side. Weighted levels have no such vectors. */
struct rows_alone {
  int32_t first;
  uint32_t count; /* of the first classes of such vectors, from `first` on */

  __device__ __forceinline__ bool has(int32_t cls) const { return uint32_t(cls - first) < count; }
};

/** The same in one register, which is held. */
struct held_rows_alone {
  uint32_t packed;

  __device__ __forceinline__ explicit held_rows_alone(rows_alone r)
      : packed(held(min(r.count, 0xffffffu) << 8 | uint32_t(r.first))) {} /* a lane's first class is below 256 */
  __device__ __forceinline__ bool has(int32_t cls) const { return uint32_t(cls) - (packed & 0xffu) < packed >> 8; }
};

template <int size>
__device__ __forceinline__ rows_alone find_rows_alone(int32_t classes, bool lean, bool weighted) {
  const bool apart = classes % size != 0;
  const int32_t spare = classes - int32_t(warp_size) * size + 1; /* first classes of a warp that stays in a row */
  const uint32_t count = !apart ? 0x7fffffffu : spare > 0 ? uint32_t(spare) : 0;
  return {in_register(apart ? int32_t(lane()) * size : 0),
          uint32_t(in_register(lean && !weighted ? int32_t(count) : 0))};
}

/** Whether a kernel takes dense targets four at a time. Of GHM registers are too few. */
template <typename Loss, bool always_soft>
constexpr bool has_dense_pieces = always_soft && !Loss::backwards;

/** The loss of this thread's share of a tile. Whole vectors go the lean way if the level allows it: with the weights of
 *  their row, of two rows, or of each element. Other elements go one by one, and all with always_soft. Many parameters:
 *  the ways share the tile's roles, steps and queue. Long: as a list of them. */
template <typename T, typename Loss, bool always_soft>
__device__ __forceinline__ double flat_tile(const call_of<Loss> &c, const level &l, const tile &t,
                                            const setting_of<Loss> &s, row_role *roles, float *derivatives, bool soft,
                                            bool lean, const flat_steps &steps, flat_queue<cache::once, T> &queue) {
  constexpr uint32_t size = vector<T>::size;
  const tare_array &logits = l.view.array[TARE_ARRAY_LOGITS], &gradient = l.view.array[TARE_ARRAY_GRADIENT];
  const int32_t wants_gradient = in_register(int32_t(gradient.data != nullptr));
  T *const to =
      in_register(static_cast<T *>(wants_gradient ? gradient.data : logits.data) + t.offset[TARE_ARRAY_GRADIENT]);
  const int32_t classes = Loss::scored ? int32_t(c.classes) : in_register(int32_t(c.classes)); /* as rows_alone_type */
  const int32_t elements = in_register(t.rows * classes);
  const bool weighted = is_weighted(l.allows_lean_way);
  constexpr bool hot = has_alphas_in_room<Loss> && !always_soft;
  const int32_t way = lean ? l.allows_lean_way : lean_never; /* of hot kernels */
  constexpr bool dense = has_dense_pieces<Loss, always_soft>;
  using rows_alone_type = std::conditional_t<Loss::scored || Loss::backwards || (hot && size > 4), held_rows_alone,
                                             rows_alone>; /* those lack registers */
  const rows_alone_type alone{find_rows_alone<size>(classes, lean, weighted || soft)};
  const shared_place first_role = place_in_shared(roles);
  shared_place role = first_role + uint32_t(steps.row) * sizeof(row_role);
  loss_sum sum;
  int32_t cls = int32_t(thread_rank() * size) - steps.row * classes; /* again, to save a register */
  for (int32_t at = int32_t(thread_rank() * size); at < elements; at += int32_t(block_threads * size)) {
    queue.turn_to(at);
    const auto take_weighted = [&] {
      if constexpr (!hot)
        return weighted_piece<T, Loss>(c, l, t, s, role, at, cls, queue, to + at, wants_gradient, sum);
      else if (way == lean_alphas)
        return hot_weighted_piece<false, T, Loss>(c, l, t, s, derivatives, role, at, cls, way, queue, to + at,
                                                  wants_gradient, sum);
      else
        return hot_weighted_piece<true, T, Loss>(c, l, t, s, derivatives, role, at, cls, way, queue, to + at,
                                                 wants_gradient, sum);
    };
    const auto row = [=] { return int32_t((role - first_role) / sizeof(row_role)); }; /* few ask */
    if (!always_soft && alone.has(cls)) {
      lean_piece<T, Loss>(s, load_role(role), derivatives, row(), cls, queue, to + at, wants_gradient, sum);
    } else { /* nothing of what follows is asked of the vectors above, of which there are most */
      const bool some = hot ? way != lean_never : (!always_soft || dense) && lean;
      const bool in_vectors = some && elements - at >= int32_t(size);
      const bool whole = !always_soft && in_vectors && (!soft || has_zero_targets<T>(c, l, t, at));
      if (dense && in_vectors && classes >= int32_t(size) - 1) {
        if constexpr (dense)
          dense_piece<T, Loss>(c, l, t, s, role, at, classes - cls, queue, to + at, wants_gradient, sum);
      } else if (whole && (hot ? way == lean_plain : !weighted && classes >= int32_t(size) - 1))
        crossing_piece<T, Loss>(s, role, derivatives, row(), cls, classes, queue, to + at, wants_gradient, sum);
      else if (!always_soft && !Loss::backwards && whole && (hot ? way == lean_short : !weighted))
        short_rows_piece<T, Loss>(s, role, derivatives, row(), cls, classes, queue, to + at, wants_gradient, sum);
      else if (always_soft || !whole || !take_weighted())
        flat_piece<T, Loss>(c, l, t, s, roles, Loss::scored && lean && !weighted && !soft ? derivatives : nullptr, at,
                            row(), cls, min(int32_t(size), elements - at), soft, sum);
    }
    queue.end_turn();
    role += uint32_t(steps.rows) * sizeof(row_role);
    cls += steps.classes;
    if (cls >= classes) cls -= classes, role += sizeof(row_role);
  }
  return sum.all();
}

/** Skips the rows of a tile that a dense target spoils, before anything of them is computed. `all_soft`: few targets
 *  are 0. By all threads, between two barriers; ends with a third. */
template <typename T, bool all_soft = false>
__device__ __forceinline__ void skip_invalid_rows(const call &c, const level &l, const tile &t, row_role *roles,
                                                  bool reports) {
  const uint32_t elements = uint32_t(t.rows) * uint32_t(c.classes);
  const uint32_t each = l.allows_lean_way == lean_zeros ? vector<T>::size : 1;
  for (uint32_t at = thread_rank() * each; at < elements; at += block_threads * each) {
    if (each > 1 && elements - at >= each &&
        (all_soft ? has_plain_targets<T>(c, l, t, int32_t(at)) : has_zero_targets<T>(c, l, t, int32_t(at))))
      continue;
#pragma unroll 1
    for (uint32_t i = at; i < at + each && i < elements; i++) {
      int32_t row, cls;
      split(c, l, i, &row, &cls);
      if (roles[row].weight != 0.0f && is_invalid_target(c, l, t, row, cls)) roles[row].cls = row_invalid;
    }
  }
  __syncthreads();
  for (int32_t row = int32_t(thread_rank()); row < t.rows; row += block_threads) {
    if (roles[row].cls != row_invalid) continue;
    roles[row] = {row_skipped, 0.0f};
    if (reports) report_target(c, l, t, row);
  }
  __syncthreads();
}

/** Of a block: derivatives of the labels of a tile with scores, or alphas of classes. */
template <typename Loss>
constexpr int32_t room_of_numbers = Loss::scored               ? most_flat_rows
                                    : has_alphas_in_room<Loss> ? most_alphas
                                                               : 1;

/** Evaluates all tiles, by labels or by dense targets (`soft`). */
template <typename T, typename Loss, bool always_soft, int slots>
__device__ __forceinline__ void flat_pass(const call_of<Loss> &c, const setting_of<Loss> &s, row_role *roles,
                                          vector<T> (&room)[slots], bool soft) {
  const flat_steps steps = make_flat_steps(c, vector<T>::size);
  TARE_SHARED(float[room_of_numbers<Loss>], numbers);
  if (has_alphas_in_room<Loss> && !always_soft) collect_alphas<vector<T>::size>(c, numbers);
  for_each_tile<Loss::backwards>(c, c.tile_count, &level::tiles, [&](const level &l, const tile &t) {
    const int32_t whole = l.allows_lean_way ? t.rows * int32_t(c.classes) : 0;
    flat_queue<cache::once, T> queue(room, logits_of<T>(l, t), whole);
    loss_sum of_labels;
    int wide = 0;
    for (int32_t row = int32_t(thread_rank()); row < t.rows; row += block_threads) {
      const row_role r = look_at_scored_row<Loss>(c, l, t, row, true);
      if constexpr (has_dense_pieces<Loss, always_soft>)
        wide |= !Loss::has_lean_way(s) || !has_soft_factor(s, r.weight);
      else
        wide |= !is_lean<Loss>(s, is_weighted(l.allows_lean_way) ? 0.0f : r.weight);
      roles[row] = r;
      if constexpr (Loss::scored) {
        if (is_plain(l.allows_lean_way) && !soft && r.cls >= 0) {
          const exact::pair value = scored_label<T, Loss>(c, l, t, s, r, row);
          of_labels.add(value.loss);
          numbers[row] = value.derivative;
        }
      }
      report_if_invalid(c, l, t, row);
    }
    const bool lean = !__syncthreads_or(wide) && l.allows_lean_way;
    if (soft) skip_invalid_rows<T, has_dense_pieces<Loss, always_soft>>(c, l, t, roles, true);
    const double sum = flat_tile<T, Loss, always_soft>(c, l, t, s, roles, numbers, soft, lean, steps, queue);
    return Loss::scored && lean && !soft ? sum + of_labels.all() : sum;
  });
}

template <typename T, typename Loss, bool soft>
__global__ void __launch_bounds__(block_threads, 4) sigmoid_flat(const TARE_GRID_CONSTANT call_of<Loss> c) {
  TARE_SHARED(row_role[roles_of_flat_tile], roles);
  TARE_SHARED(vector<T>[queue_slots], room);
  const setting_of<Loss> s = Loss::make(c);
  flat_pass<T, Loss, soft>(c, s, roles, room, soft);
  finish_loss(c);
}

}  // namespace sigmoid

}  // namespace tare

#endif
