/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sums of each class.
 *
 * The kernels of a loss know nothing of it. These two (a family each) evaluate every loss and every type of logits once
 * more, in f32. Loss and type are looked up at run time: an instance for each would multiply the library's size, and
 * few calls need it. A block takes a slice, tile by tile: it looks at the tile's rows, then its threads share rows and
 * classes. Each adds its own rows in double; their sums are added in the order of the threads, tiles and slices.
 */
#include "class_sums.cuh"

#include "ghm_c.cuh"
#include "sigmoid_columns.cuh"
#include "softmax_by_label.cuh"
#include "softmax_rows.cuh"
#include "softmax_smoothed.cuh"

namespace tare {
namespace class_sums {

/** How the threads of a block share rows and classes: neighbours lie side by side in memory. */
struct share {
  int32_t classes, rows; /* at a time */
  int32_t cls, row;      /* this thread's */
};

__device__ __forceinline__ share make_share(const call &c, const level &l) {
  share s;
  s.classes = 1;
  while (s.classes < 32 && s.classes < c.classes) s.classes *= 2;
  s.rows = block_threads / s.classes;
  const tare_array &logits = l.view.array[TARE_ARRAY_LOGITS];
  const int32_t rank = int32_t(thread_rank());
  const bool by_row = llabs(logits.stride[TARE_AXES - 1]) < llabs(logits.cls);
  s.row = by_row ? rank % s.rows : rank / s.classes;
  s.cls = by_row ? rank / s.rows : rank % s.classes;
  return s;
}

__device__ __forceinline__ void add(tare_class_sums *sum, const tare_class_sums &more) {
  sum->loss += more.loss;
  sum->positive_gradient += more.positive_gradient;
  sum->negative_gradient += more.negative_gradient;
  sum->count += more.count;
}

/** Adds |derivative| of an element with target t. A factor of 0 leaves nothing of a derivative that is not finite. */
__device__ __forceinline__ void add_gradient(tare_class_sums *sum, float t, float derivative) {
  const double size = double(fabsf(derivative)), target = double(t);
  if (t != 0.0f) sum->positive_gradient += target * size;
  if (t != 1.0f) sum->negative_gradient += (1.0 - target) * size;
}

/** Adds what the threads of a class have, in order, to `to`; by all threads. */
__device__ __forceinline__ void add_rows(const share &s, const tare_class_sums &mine, bool is_there,
                                         tare_class_sums *to) {
  TARE_SHARED(tare_class_sums[block_threads], part);
  part[s.row * s.classes + s.cls] = mine;
  __syncthreads();
  if (s.row == 0 && is_there) {
    tare_class_sums all = part[s.cls];
    for (int32_t i = 1; i < s.rows; i++) add(&all, part[i * s.classes + s.cls]);
    add(to, all);
  }
  __syncthreads();
}

/** Calls work(level, tile, sums) for the tiles of this block's slices, by all threads. */
template <typename Work>
__device__ __forceinline__ void for_each_tile_of_slices(const class_sums_call &c, Work &&work) {
  TARE_SHARED(tile, found);
  for (int32_t slice = int32_t(blockIdx.x); slice < c.slices; slice += int32_t(gridDim.x)) {
    tare_class_sums *const sums = slice ? c.room + (slice - 1) * c.classes : c.sums;
    if (slice || !c.follows)
      for (int64_t cls = thread_rank(); cls < c.classes; cls += block_threads) sums[cls] = {0, 0, 0, 0};
    const int64_t end = c.tile_count * (slice + 1) / c.slices;
    for (int64_t number = c.tile_count * slice / c.slices; number < end; number++) {
      __syncthreads();
      if (thread_rank() < warp_size) find_tile(c, number, &level::tiles, &found);
      __syncthreads();
      work(c.levels[found.level], static_cast<const tile &>(found), sums);
    }
  }
}

/** Calls add_element(row, cls, x, sum) for this thread's rows, class after class, and adds up. By all threads. */
template <typename Add>
__device__ __forceinline__ void sum_tile(const call &c, const level &l, const tile &t, tare_class_sums *sums,
                                         Add &&add_element) {
  const share s = make_share(c, l);
  for (int64_t first = 0; first < c.classes; first += s.classes) {
    const int64_t cls = first + s.cls;
    tare_class_sums mine = {0, 0, 0, 0};
    for (int32_t row = s.row; cls < c.classes && row < t.rows; row += s.rows) add_element(row, int32_t(cls), &mine);
    add_rows(s, mine, cls < c.classes, sums + cls);
  }
}

__device__ __forceinline__ float logit_at(const call &c, const level &l, const tile &t, int32_t row, int32_t cls) {
  return read_as<float>(l.view.array[TARE_ARRAY_LOGITS].data, c.dtype, place(l, t, TARE_ARRAY_LOGITS, row, cls));
}

/** Whether a row counts, whatever it weighs, unless a target or a score spoils it. */
__device__ __forceinline__ bool counts(const call &c, const level &l, const tile &t, int32_t row) {
  return role_of(c, find_class(c, l, t, row)) != row_skipped;
}

/* ---- The sigmoid family ------------------------------------------------------------------------------------------ */

using setting_type = sigmoid::ghm_c::setting_type; /* the widest */

__device__ __forceinline__ setting_type make_setting(const class_sums_call &c) {
  if (c.is_mask) return sigmoid::ghm_c::make(c);
  setting_type s = {};
  static_cast<sigmoid::setting &>(s) = sigmoid::make_shape_setting(c);
  return s;
}

/** What evaluates a loss of the family, with its power looked up. */
template <typename Loss, int32_t passes>
struct evaluator_of {
  using type = sigmoid::one_pass<Loss, -1>;
};
template <typename Loss>
struct evaluator_of<Loss, TARE_PASSES_DENSITY> {
  using type = typename sigmoid::by_density_of<Loss>::type;
};

/** element() for one loss. Many parameters: as sigmoid::element. */
template <typename Loss>
__device__ __forceinline__ exact::pair element_of(const class_sums_call &c, const level &l, const tile &t,
                                                  const setting_type &s, row_role r, int32_t row, int32_t cls,
                                                  float x) {
  if constexpr (Loss::is_shaped)
    return {NAN, NAN}; /* not reached */
  else if constexpr (Loss::can_have_scores)
    return sigmoid::element<float, sigmoid::score_pass_of<Loss>>(c, l, t, s, r, row, cls, x, c.soft);
  else
    return sigmoid::element<float, typename evaluator_of<Loss, Loss::passes>::type>(c, l, t, s, r, row, cls, x, c.soft);
}

/** Loss and gradient of an element, as its loss's own kernel has them before it rounds. */
__device__ __forceinline__ exact::pair element(const class_sums_call &c, const level &l, const tile &t,
                                               const setting_type &s, row_role r, int32_t row, int32_t cls) {
  const float x = logit_at(c, l, t, row, cls);
  if (c.shape != TARE_SHAPE_NONE)
    return sigmoid::element<float, sigmoid::shape_pass>(c, l, t, s, r, row, cls, x, c.soft);
  switch (c.kind) {
#define ELEMENT_OF_SIGMOID(KIND) \
  case losses::KIND::kind:       \
    return element_of<losses::KIND>(c, l, t, s, r, row, cls, x);
#define ELEMENT_OF_SOFTMAX(KIND)
#define ELEMENT_OF_REGRESSION(KIND)
#define TARE_LOSS(KIND, name, text, FAMILY, ...) ELEMENT_OF_##FAMILY(KIND)
#include "losses/losses.def"
#undef TARE_LOSS
#undef ELEMENT_OF_SIGMOID
#undef ELEMENT_OF_SOFTMAX
#undef ELEMENT_OF_REGRESSION
    default:
      return {NAN, NAN}; /* tare_check_class_sums lets no other kind through */
  }
}

__device__ __forceinline__ float target_of(const call &c, const level &l, const tile &t, row_role r, int32_t row,
                                           int32_t cls) {
  if (c.soft) return target_at(c, l, t, row, cls);
  if (cls != r.cls) return 0.0f;
  return c.has_scores ? sigmoid::clamped_score(c, l, t, row) : 1.0f;
}

struct element_row {
  row_role role;
  bool counts;
};

/** Dense targets are looked at by a whole warp. */
__device__ __forceinline__ element_row look(const call &c, const level &l, const tile &t, int32_t row) {
  const row_role r = look_at_row(c, l, t, row);
  bool spoilt = false;
  if (c.soft) spoilt = r.weight != 0.0f && c.checks_targets && has_invalid_target(c, l, t, row);
  if (c.has_scores) spoilt = r.weight != 0.0f && has_invalid_score(c, l, t, r, row);
  if (spoilt) return {{row_skipped, 0.0f}, false};
  return {r, counts(c, l, t, row)};
}

__device__ __forceinline__ void look_at_tile(const call &c, const level &l, const tile &t, element_row *rows) {
  const int32_t together = c.soft ? int32_t(warp_size) : 1, rank = int32_t(thread_rank());
  for (int32_t row = rank / together; row < t.rows; row += block_threads / together) {
    const element_row found = look(c, l, t, row);
    if (rank % together == 0) rows[row] = found;
  }
  __syncthreads();
}

/** value_of(level, tile, role, row, class): loss and gradient of an element. */
template <typename ValueOf>
__device__ __forceinline__ void sum_elements(const class_sums_call &c, element_row *rows, ValueOf &&value_of) {
  for_each_tile_of_slices(c, [&](const level &l, const tile &t, tare_class_sums *sums) {
    look_at_tile(c, l, t, rows);
    sum_tile(c, l, t, sums, [&](int32_t row, int32_t cls, tare_class_sums *sum) {
      const element_row r = rows[row];
      if (is_masked(l, t, row, cls)) return;
      sum->count += r.counts;
      if (r.role.weight == 0.0f) return;
      const exact::pair value = value_of(l, t, r.role, row, cls);
      sum->loss += double(value.loss);
      add_gradient(sum, target_of(c, l, t, r.role, row, cls), value.derivative);
    });
  });
}

__global__ void __launch_bounds__(block_threads, 2) sum_sigmoid_classes(const TARE_GRID_CONSTANT class_sums_call c) {
  TARE_SHARED(element_row[rows_summed], rows);
  const setting_type s = make_setting(c);
  sum_elements(c, rows, [&](const level &l, const tile &t, row_role r, int32_t row, int32_t cls) {
    return element(c, l, t, s, r, row, cls);
  });
}

/** Of a call with columns. */
__global__ void __launch_bounds__(block_threads, 2) sum_column_classes(const TARE_GRID_CONSTANT class_sums_call c) {
  TARE_SHARED(element_row[rows_summed], rows);
  const sigmoid::setting s = sigmoid::make_common_setting(c);
  sum_elements(c, rows, [&](const level &l, const tile &t, row_role r, int32_t row, int32_t cls) {
    return sigmoid::column_element<float>(c, l, t, s, r, row, cls, logit_at(c, l, t, row, cls));
  });
}

/* ---- The softmax family ------------------------------------------------------------------------------------------ */

struct softmax_row {
  int32_t cls;     /* below 0: the row adds nothing */
  int32_t counted; /* the class that it counts in; below 0: none */
  float maximum;
  softmax::label_adjustment by;      /* of a loss whose logits depend on the label */
  softmax::smoothed_outcome outcome; /* without label smoothing: with nothing taken */
};

/** `r`: its class and its adjustment are known. */
__device__ __forceinline__ float adjusted_at(const call &c, const level &l, const tile &t, int32_t row,
                                             const softmax_row &r, int32_t cls) {
  const float x = logit_at(c, l, t, row, cls);
  if (c.adjusts_by_label) return softmax::adjusted(c, r.by, r.cls, cls, x);
  return softmax::is_adjusted(c) ? softmax::adjust(c.adjusts, r.cls, cls, x) : x;
}

/** What finishes the rows of a call, with or without label smoothing. */
struct softmax_setting {
  softmax::setting plain;
  softmax::smoothing_setting smoothed;
};

__device__ __forceinline__ softmax::smoothed_outcome finish(const call &c, const softmax_setting &s, row_role role,
                                                            float label_x, float maximum, softmax::smoothed_sums of) {
  if (c.has_row_terms) return softmax::finish_smoothed_row(c, s.smoothed, role.weight, label_x, maximum, of);
  const softmax::outcome o = softmax::finish_row(c, s.plain, role.weight, label_x, maximum, of.sum, role.cls);
  return {o, 0.0f, -o.derivative};
}

/** Of a row whose maximum is in `r`: the sums over its other classes. By a warp. */
__device__ __forceinline__ softmax::smoothed_sums sums_of_row(const call &c, const level &l, const tile &t,
                                                              const softmax_row &r, int32_t row) {
  softmax::running_sum sum = {0.0f, 0.0f};
  softmax::spread_sum spread = {0.0f, 0.0f};
  for (int32_t cls = int32_t(lane()); cls < c.classes; cls += warp_size) {
    if (cls == r.cls) continue;
    const float x = adjusted_at(c, l, t, row, r, cls);
    sum.add(softmax::exp_adjusted<float, true>(c.adjusts, x, r.maximum));
    spread.add(x, r.maximum);
  }
  return {softmax::sum_all<warp_size>(sum.sum - sum.lost), softmax::sum_all<warp_size>(spread.sum - spread.lost)};
}

__device__ __forceinline__ float maximum_of_row(const call &c, const level &l, const tile &t, const softmax_row &r,
                                                int32_t row) {
  float maximum = -INFINITY;
  for (int32_t cls = int32_t(lane()); cls < c.classes; cls += warp_size)
    if (cls != r.cls) maximum = fmaxf(maximum, adjusted_at(c, l, t, row, r, cls));
  return softmax::max_all<warp_size>(maximum);
}

/** By a warp. A row whose logits depend on their own softmax is looked at twice. */
__device__ __forceinline__ softmax_row look_at_softmax_row(const call &c, const softmax_setting &s, const level &l,
                                                           const tile &t, int32_t row) {
  const row_role role = softmax::weigh_row(c, l, t, row);
  softmax_row r = {row_skipped, role_of(c, find_taken_class(c, l, t, row)), 0.0f, softmax::no_adjustment(), {}};
  if (role.weight == 0.0f) return r;
  r.cls = role.cls;
  softmax::smoothed_sums all = {1.0f, 0.0f};
  for (int sweep = softmax::looks_twice(c) ? 0 : 1; sweep < 2; sweep++) {
    r.maximum = maximum_of_row(c, l, t, r, row);
    all = sums_of_row(c, l, t, r, row);
    if (sweep == 0) r.by = softmax::adjust_by(c, r.cls, logit_at(c, l, t, row, r.cls), r.maximum, all.sum);
  }
  const float label_x = adjusted_at(c, l, t, row, r, r.cls);
  r.outcome = finish(c, s, role, label_x, r.maximum, all);
  return r;
}

__device__ __forceinline__ void add_softmax_element(const call &c, const level &l, const tile &t, const softmax_row &r,
                                                    int32_t row, int32_t cls, tare_class_sums *sum) {
  sum->count += cls == r.counted;
  if (r.cls < 0) return;
  if (cls == r.cls) {
    sum->loss += double(r.outcome.row.loss) * double(softmax::loss_unit);
    add_gradient(sum, 1.0f, softmax::smoothed_gradient<float>(c, r.outcome, true, 0.0f));
    return;
  }
  const float x = adjusted_at(c, l, t, row, r, cls), e = softmax::exp_adjusted<float, true>(c.adjusts, x, r.maximum);
  add_gradient(sum, 0.0f, softmax::smoothed_gradient<float>(c, r.outcome, false, e));
}

__global__ void __launch_bounds__(block_threads, 2) sum_softmax_classes(const TARE_GRID_CONSTANT class_sums_call c) {
  TARE_SHARED(softmax_row[rows_summed], found);
  const softmax_setting s = {softmax::make_setting(c), softmax::make_smoothing_setting(c)};
  for_each_tile_of_slices(c, [&](const level &l, const tile &t, tare_class_sums *sums) {
    for (int32_t row = int32_t(thread_rank() / warp_size); row < t.rows; row += block_threads / int32_t(warp_size)) {
      const softmax_row r = look_at_softmax_row(c, s, l, t, row);
      if (lane() == 0) found[row] = r;
    }
    __syncthreads();
    sum_tile(c, l, t, sums, [&](int32_t row, int32_t cls, tare_class_sums *sum) {
      add_softmax_element(c, l, t, found[row], row, cls, sum);
    });
  });
}

/* ---- Slices ------------------------------------------------------------------------------------------------------ */

__global__ void __launch_bounds__(block_threads)
    add_class_sums(tare_class_sums *sums, const tare_class_sums *room, int32_t slices, int64_t classes) {
  for (int64_t cls = blockIdx.x * int64_t(block_threads) + thread_rank(); cls < classes;
       cls += gridDim.x * int64_t(block_threads)) {
    tare_class_sums all = sums[cls];
    for (int32_t slice = 1; slice < slices; slice++) add(&all, room[(slice - 1) * classes + cls]);
    sums[cls] = all;
  }
}

}  // namespace class_sums

cudaError_t launch_class_sums(const class_sums_call &c, const launch_site &site) {
  const auto kernel = c.family == TARE_LOSS_FAMILY_SOFTMAX ? class_sums::sum_softmax_classes
                      : c.has_columns                      ? class_sums::sum_column_classes
                                                           : class_sums::sum_sigmoid_classes;
  const cudaError_t status = launch(kernel, c.slices, site, c);
  if (status != cudaSuccess || c.slices == 1) return status;
  const int64_t blocks = (c.classes + block_threads - 1) / block_threads;
  const tare_class_sums *const room = c.room;
  return launch(class_sums::add_class_sums, blocks, site, c.sums, room, c.slices, c.classes);
}

cudaError_t load_class_sums() {
  return load_kernels(class_sums::sum_sigmoid_classes, class_sums::sum_column_classes, class_sums::sum_softmax_classes,
                      class_sums::add_class_sums);
}

}  // namespace tare
