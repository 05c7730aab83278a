/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a kernel gets: the whole call by value, cut into tiles, and a tile's place in it; and what labels and weights
 * make of a row.
 *
 * A tile is some rows, consecutive along the last axis of a level's view, with all their classes. Its size depends on the
 * shape alone; a group of tiles (of one, but for the largest batches) has a place for its partial sum, and the last block
 * adds those in order, so that the result depends on neither the grid nor the order of blocks.
 */
#ifndef TARE_CUDA_CALL_CUH
#define TARE_CUDA_CALL_CUH

#include <float.h>

#include <type_traits>

#include "device.cuh"

extern "C" {
#include "core/problem.h"
#include "losses/ghm.h"
}

#ifdef TARE_EMULATED
#define TARE_GRID_CONSTANT
#else
#define TARE_GRID_CONSTANT __grid_constant__
#endif

namespace tare {

constexpr int block_threads = 256;
constexpr int32_t most_flat_rows = 1024; /* of a tile that goes along classes */
constexpr int64_t most_partials = 16384; /* places for partial sums in a context; the last block waits for them all */

/** How the kernels go over a level. */
enum walk : int32_t {
  walk_flat,   /* along classes, 16 bytes at a time */
  walk_planes, /* along rows, class after class: NCHW */
  walk_rows    /* a warp a row, any strides */
};

/** Softmax rows with labels that lanes do not share: see call::label_lanes. */
enum : int32_t { label_by_warps = 0 /* walk_planes */, label_by_row = -1 /* walk_rows */ };

/** Division of numbers below 2^62 by one known before the launch: the device's own 64-bit division is a call, around
 *  which registers are spilled. */
struct divider {
  uint64_t by, reciprocal; /* floor((2^64-1)/by) */
  __device__ __forceinline__ uint64_t divide(uint64_t x, uint64_t *rest) const {
    uint64_t quotient = __umul64hi(x, reciprocal);
    *rest = x - quotient * by;
    if (*rest >= by) {
      quotient++;
      *rest -= by;
    }
    return quotient;
  }
};

inline divider make_divider(int64_t by) { return {uint64_t(by), ~uint64_t(0) / uint64_t(by)}; }

/** Tiles of a level: `chunks` along the last axis, `rows` rows each but the last, for each place on the axes before. */
struct tiling {
  int64_t first;
  divider chunks, dim_2, dim_1;
  int32_t rows, reserved;
};

struct level {
  tare_view view;
  tiling tiles;       /* of the loss kernels */
  tiling count_tiles; /* of the label kernel */
  int32_t walk;
  int32_t aligned; /* logits and gradient can be read and written in vectors */
  int32_t plain;   /* aligned, and no weight of an element or a class, and no other output than the gradient */
  uint32_t magic;  /* ceil(2^32/classes), or 0 where that does not divide a tile's elements exactly */
};

/** What a softmax loss adds to the logits of a row, by label and class: see adjust() in softmax.cuh. */
struct adjustment {
  const float *class_offset; /* NULL: nothing is added */
};

/** What a context keeps on the device. */
struct device_record {
  uint64_t invalid_rows, first_invalid;   /* by their label, since the last check; first_invalid is a row's number */
  uint64_t invalid_targets, first_target; /* the same, by a dense target */
  uint64_t rows, counted, positives, background, ignored, invalid; /* being counted; 0 between launches */
  double inverse_divisor;
  uint32_t ticket;
  uint32_t largest; /* the fused head's: bits of the largest |gradient| of a chunk; 0 between launches */
  grid_barrier_state barrier;
  uint64_t histogram[TARE_MAX_BINS]; /* of gradient norms, being counted; 0 between launches */

  /* The fused head's: the loss of the chunks before, and numbers that cuBLAS reads on the device. */
  double loss_so_far;
  float one, zero, unscale;
};

struct call {
  int32_t kind, shape, power, soft;
  int32_t dtype, label_dtype, target_dtype, level_count;
  int64_t classes, first_label, background_label, ignore_label;
  int32_t background_class; /* softmax: the class that the background label is itself, or -1 */
  int32_t is_mask;          /* GHM: row weights only select */
  int32_t label_lanes;      /* softmax: lanes that share a row with a label, or one of the next two */
  float alpha, alpha_of_0;  /* of targets 1 and 0, each rounded once from double */
  float background_weight, gamma_hi, gamma_lo, epsilon;
  int32_t has_alpha;
  const float *alpha_per_class, *class_weights, *positive_weights;
  adjustment adjusts;
  float target_least, target_most; /* of dense targets of elements that count */
  int32_t checks_targets;
  int32_t has_scores, score_dtype; /* of labels; has_scores: any level has some */
  int32_t labels_apart;            /* as in tare_problem */
  float score_least, score_most;
  float slope_gamma; /* gamma of the gradient: 0 where the modulator is detached */

  int32_t normalizer, loss_dtype;
  double inverse_divisor; /* of a host value; used where the next two are not */
  const float *divisor_pointer;
  int32_t divisor_counted; /* the label kernel leaves it in the record */
  int32_t scale_follows;   /* a gradient scale that is not finite is applied after the products of a fused head */
  double gradient_scale;
  const float *gradient_scale_pointer;
  void *loss;
  int32_t follows, goes_on; /* one of several launches that share a loss: not the first, not the last */
  tare_counts *counts;
  int64_t *per_class;

  device_record *record;
  double *partials;
  int64_t tile_count, count_tile_count;
  level levels[TARE_MAX_LEVELS];
};

/** What a launch of a GHM loss is for. `at_once` counts and evaluates, in a cooperative launch. */
enum class ghm_pass : int32_t { count, collect, evaluate, at_once };

/** The call of a GHM loss. */
struct ghm_call : call {
  ghm_pass pass;
  int32_t updates; /* the density follows the counts, and the loss follows that */
  int32_t fresh;   /* the state has no past: what stands in it is not read */
  int32_t reserved_;
  tare_ghm_parameters ghm;
  tare_ghm_state state;
  double *keys, *key_weights; /* of the exact density, in the workspace */
  uint64_t *key_count;
  union {                            /* as in tare_bins */
    double lower[TARE_MAX_BINS + 1]; /* GHM-R: first |difference| of each bin */
    struct {
      float lower[TARE_MAX_BINS + 1]; /* first signed logit */
      float norm[TARE_MAX_BINS + 1];  /* first g of a target between 0 and 1 */
    } ghm_c;
  };
};

/** Where a tile lies: the element offset of its first row in every array, and its length. */
struct tile {
  int32_t level, rows;
  int64_t offset[TARE_ARRAYS];
};

/** By the first warp, a lane for each array; the others read it after a barrier. */
__device__ __forceinline__ void find_tile(const call &c, int64_t number, tiling level::*which, tile *found) {
  int index = 0;
  while (index + 1 < c.level_count && number >= (c.levels[index + 1].*which).first) index++;
  const tare_view &view = c.levels[index].view;
  const tiling &tiles = c.levels[index].*which;
  uint64_t at[TARE_AXES];
  uint64_t rest = tiles.chunks.divide(uint64_t(number - tiles.first), &at[3]);
  at[3] *= uint64_t(tiles.rows);
  rest = tiles.dim_2.divide(rest, &at[2]);
  at[0] = tiles.dim_1.divide(rest, &at[1]);
  const int64_t left = view.dim[3] - int64_t(at[3]);
  if (lane() == 0) {
    found->level = index;
    found->rows = int32_t(left < tiles.rows ? left : tiles.rows);
  }
  static_assert(TARE_ARRAYS <= warp_size, "a lane each");
  if (lane() < TARE_ARRAYS) {
    const int64_t *stride = view.array[lane()].stride;
    found->offset[lane()] = int64_t(at[0]) * stride[0] + int64_t(at[1]) * stride[1] + int64_t(at[2]) * stride[2] +
                            int64_t(at[3]) * stride[3];
  }
}

/** Where an element of a tile lies in an array, in elements. */
__device__ __forceinline__ int64_t place(const level &l, const tile &t, int name, int32_t row, int64_t cls) {
  const tare_array &a = l.view.array[name];
  return t.offset[name] + row * a.stride[TARE_AXES - 1] + cls * a.cls;
}

/** An element of an array whose type is known at run time; `Number` is float or double. */
template <typename Number>
__device__ __forceinline__ Number read_as(const void *data, int32_t dtype, int64_t at) {
  switch (dtype) {
    case TARE_DTYPE_F16:
      return Number(to_float(static_cast<const __half *>(data)[at]));
    case TARE_DTYPE_BF16:
      return Number(to_float(static_cast<const __nv_bfloat16 *>(data)[at]));
    case TARE_DTYPE_F64:
      return Number(static_cast<const double *>(data)[at]);
    default:
      return Number(static_cast<const float *>(data)[at]);
  }
}

/** A row's class where it has none. */
constexpr int32_t row_background = -1, row_skipped = -2, row_invalid = -3, row_ignored = -4;

__device__ __forceinline__ int64_t label_at(const call &c, const level &l, const tile &t, int32_t row) {
  const tare_array &labels = l.view.array[TARE_LABELS];
  const int64_t at = t.offset[TARE_LABELS] + row * labels.stride[TARE_AXES - 1];
  return c.label_dtype == TARE_LABEL_DTYPE_I64 ? __ldg(static_cast<const long long *>(labels.data) + at)
                                               : __ldg(static_cast<const int *>(labels.data) + at);
}

/** Class, row_background, row_ignored or row_invalid; range-checked in 64 bits before it is narrowed. */
__device__ __forceinline__ int32_t classify(const call &c, int64_t label) {
  if (label == c.ignore_label) return row_ignored;
  if (label == c.background_label) return row_background;
  if (label < c.first_label) return row_invalid;
  if (c.shape == TARE_SHAPE_REGRESSION) return 0;
  const uint64_t cls = uint64_t(label) - uint64_t(c.first_label);
  return cls < uint64_t(c.classes) ? int32_t(cls) : row_invalid;
}

__device__ __forceinline__ int32_t find_class(const call &c, const level &l, const tile &t, int32_t row) {
  if (l.view.array[TARE_LABELS].data) return classify(c, label_at(c, l, t, row));
  return c.shape == TARE_SHAPE_REGRESSION ? 0 : row_background;
}

/** What the loss makes of it: its class or row_background, or row_skipped. */
__device__ __forceinline__ int32_t role_of(const call &c, int32_t found) {
  if (found == row_ignored || found == row_invalid) return row_skipped;
  if (c.soft && c.shape != TARE_SHAPE_REGRESSION) return row_background;
  if (found != row_background) return found;
  if (c.shape == TARE_SHAPE_REGRESSION) return row_skipped;
  if (c.shape == TARE_SHAPE_SOFTMAX && c.background_class < 0) return row_skipped;
  return c.background_class;
}

__device__ __forceinline__ float row_weight_at(const level &l, const tile &t, int32_t row) {
  const tare_array &weights = l.view.array[TARE_ROW_WEIGHTS];
  if (!weights.data) return 1.0f;
  return __ldg(static_cast<const float *>(weights.data) + t.offset[TARE_ROW_WEIGHTS] +
               row * weights.stride[TARE_AXES - 1]);
}

__device__ __forceinline__ float class_weight_of(const call &c, int32_t cls) {
  if (c.soft) return 1.0f;
  if (cls < 0) return c.background_weight;
  return c.class_weights ? __ldg(c.class_weights + cls) : 1.0f;
}

/** A row of a loss: its class or row_background or row_skipped, and row weight x class weight (0 where skipped). */
struct row_role {
  int32_t cls;
  float weight;
};

__device__ __forceinline__ row_role look_at_row(const call &c, const level &l, const tile &t, int32_t row) {
  row_role r;
  r.cls = role_of(c, find_class(c, l, t, row));
  r.weight = row_weight_at(l, t, row);
  if (c.is_mask) r.weight = r.weight > 0.0f ? 1.0f : 0.0f;
  r.weight *= class_weight_of(c, r.cls);
  if (r.weight == 0.0f) r.cls = row_skipped;
  if (r.cls == row_skipped) r.weight = 0.0f;
  return r;
}

/** A row's number in row order. */
__device__ __forceinline__ int64_t row_number(const level &l, const tile &t, int32_t row) {
  return l.view.first_row + t.offset[TARE_ROW_INDEX] + row * l.view.array[TARE_ROW_INDEX].stride[TARE_AXES - 1];
}

/** A row whose label is none is remembered for tare_context_synchronize; called for one element of each row. */
__device__ __forceinline__ void report_if_invalid(const call &c, const level &l, const tile &t, int32_t row) {
  if (!l.view.array[TARE_LABELS].data || find_class(c, l, t, row) != row_invalid) return;
  atomic_add(&c.record->invalid_rows, uint64_t(1));
  atomic_min(&c.record->first_invalid, uint64_t(row_number(l, t, row)));
}

/** Whether a dense target is one that no formula takes, of an element that has a weight. */
__device__ __forceinline__ bool is_invalid_target(const call &c, const level &l, const tile &t, int32_t row,
                                                  int64_t cls) {
  const float target =
      read_as<float>(l.view.array[TARE_TARGETS].data, c.target_dtype, place(l, t, TARE_TARGETS, row, cls));
  if (target >= c.target_least && target <= c.target_most) return false;
  const float *const weights = static_cast<const float *>(l.view.array[TARE_ELEMENT_WEIGHTS].data);
  return !weights || __ldg(weights + place(l, t, TARE_ELEMENT_WEIGHTS, row, cls)) != 0.0f;
}

/** Whether a row has one; by a whole warp. */
__device__ __forceinline__ bool has_invalid_target(const call &c, const level &l, const tile &t, int32_t row) {
  bool any = false;
  for (int64_t cls = lane(); cls < c.classes; cls += warp_size) any = any || is_invalid_target(c, l, t, row, cls);
  return __any_sync(full_mask, any);
}

/** Remembers such a row for tare_context_synchronize; called once for each. */
__device__ __forceinline__ void report_target(const call &c, const level &l, const tile &t, int32_t row) {
  atomic_add(&c.record->invalid_targets, uint64_t(1));
  atomic_min(&c.record->first_target, uint64_t(row_number(l, t, row)));
}

/** A dense target of a loss that takes none outside [0,1]; by rounding, or without a weight, it may be. */
__device__ __forceinline__ float target_at(const call &c, const level &l, const tile &t, int32_t row, int64_t cls) {
  const float target =
      read_as<float>(l.view.array[TARE_TARGETS].data, c.target_dtype, place(l, t, TARE_TARGETS, row, cls));
  return fminf(fmaxf(target, 0.0f), 1.0f); /* NaN becomes 0 */
}

/** The score of a row with a class, as it stands; 1 in a level without scores. */
__device__ __forceinline__ float score_at(const call &c, const level &l, const tile &t, int32_t row) {
  const tare_array &scores = l.view.array[TARE_SCORES];
  return scores.data ? read_as<float>(scores.data, c.score_dtype, place(l, t, TARE_SCORES, row, 0)) : 1.0f;
}

/** Whether a row's score is one that no formula takes, of a label whose element has a weight. */
__device__ __forceinline__ bool has_invalid_score(const call &c, const level &l, const tile &t, row_role r,
                                                  int32_t row) {
  if (r.cls < 0) return false;
  const float score = score_at(c, l, t, row);
  if (score >= c.score_least && score <= c.score_most) return false;
  const float *const weights = static_cast<const float *>(l.view.array[TARE_ELEMENT_WEIGHTS].data);
  return !weights || __ldg(weights + place(l, t, TARE_ELEMENT_WEIGHTS, row, r.cls)) != 0.0f;
}

/** 1/x to within a rounding or two, without the call that a division in double is; Newton's steps from a float. A power
 *  of two keeps any float's reciprocal a float that is not flushed. */
__device__ __forceinline__ double reciprocal(double x) {
  const double size = fabs(x), scale = size > 1e30 ? 0x1p-64 : size < 1e-30 ? 0x1p64 : 1.0, y = x * scale;
  double r = double(rcp_approx(float(y)));
  if (!(fabs(y) > 1e-36 && fabs(y) < 1e36)) return r; /* 0, infinity, NaN, and what no float is */
  r = fma(fma(-y, r, 1.0), r, r);
  r = fma(fma(-y, r, 1.0), r, r);
  return fma(fma(-y, r, 1.0), r, r) * scale;
}

__device__ __forceinline__ double inverse_divisor_of(const call &c) {
  if (c.divisor_counted) return c.record->inverse_divisor;
  return c.divisor_pointer ? reciprocal(double(*c.divisor_pointer)) : c.inverse_divisor;
}

/* ---- The gradient's scale: cpu/scale.h says what holds ------------------------------------------------------------ */

__device__ __forceinline__ bool is_finite(double x) { return fabs(x) <= DBL_MAX; }

/** Of the kernels of a fused head one that is not finite is left to what follows its products. */
__device__ __forceinline__ double gradient_scale_of(const call &c) {
  const double scale = c.gradient_scale * (c.gradient_scale_pointer ? double(*c.gradient_scale_pointer) : 1.0);
  return c.scale_follows && !is_finite(scale) ? 1.0 : scale;
}

/** Scale over divisor; to be multiplied by if it is ordinary, else a slope is `rescaled`. */
__device__ __forceinline__ float gradient_factor_of(const call &c) {
  return float(gradient_scale_of(c) * inverse_divisor_of(c));
}
__device__ __forceinline__ bool is_ordinary(float factor) {
  return fabsf(factor) >= FLT_MIN && fabsf(factor) <= FLT_MAX;
}

/** A slope times weight, scale and 1/divisor. One that is 0 without the scale, as it would be written, stays 0. */
template <typename T>
__device__ __forceinline__ float rescaled(const call &c, float slope, float weight = 1.0f) {
  if (slope == 0.0f) return 0.0f;
  const double scale = gradient_scale_of(c), inverse = inverse_divisor_of(c), weighted = double(slope) * double(weight);
  if (is_finite(scale)) return float(weighted * (scale * inverse));
  const float unscaled = to_float(from_float<T>(float(weighted * inverse)));
  return unscaled == 0.0f ? 0.0f : unscaled * float(scale);
}

/** A slope as it is written. */
template <typename T>
__device__ __forceinline__ T finished(const call &c, float factor, float slope) {
  return from_float<T>(is_ordinary(factor) ? slope * factor : rescaled<T>(c, slope));
}

/* ---- Sums of the loss -------------------------------------------------------------------------------------------- */

constexpr float largest_addend = 1e30f; /* so many floats can be added that no thread has more */
constexpr float shrink = 0x1p-8f;       /* a vector's losses are added so much smaller */

/** What a thread adds up: apart, and in a larger unit, what might leave a float's range. */
struct loss_sum {
  float small = 0.0f, shrunk = 0.0f, large = 0.0f; /* in units of 1, 1/shrink, 2^40 */
  __device__ __forceinline__ void add(float loss) {
    if (fabsf(loss) <= largest_addend)
      small += loss;
    else
      large += loss * 0x1p-40f;
  }
  __device__ __forceinline__ void add_shrunk(float loss) {
    if (fabsf(loss) <= largest_addend)
      shrunk += loss;
    else
      large += loss * float(0x1p-40 / shrink);
  }
  __device__ __forceinline__ double all() const {
    return double(small) + double(shrunk) / double(shrink) + double(large) * 0x1p40;
  }
};

/** 2^this many tiles share a partial sum. */
__host__ __device__ __forceinline__ int tiles_of_partial(int64_t tiles) {
  int shift = 0;
  while (tiles >> shift >= most_partials) shift++;
  return shift;
}
__host__ __device__ __forceinline__ int64_t partials_of(int64_t tiles) {
  const int shift = tiles_of_partial(tiles);
  return (tiles + (int64_t(1) << shift) - 1) >> shift;
}

/** A block's share of the groups of tiles: every so many, or the same from the last to the first. */
template <bool backwards>
struct group_walk {
  uint32_t groups, rounds, round;

  __device__ __forceinline__ uint32_t place() const {
    return blockIdx.x + gridDim.x * (backwards ? rounds - 1 - round : round);
  }
  __device__ __forceinline__ bool is_over() const { return round >= rounds; }
  __device__ __forceinline__ void skip_missing() { /* the last round is not one of all blocks */
    if (!is_over() && place() >= groups) round++;
  }
  __device__ __forceinline__ void next() {
    round++;
    skip_missing();
  }
};

/** Calls `work(level, tile)` for this block's share of the tiles, or for the same tiles from the last to the first. What
 *  it returns, if it returns anything, is added over the block's threads, then over the tiles of a group, and put in the
 *  group's place. By all threads. The place of the next tile is found before the work on one begins, so that only the
 *  first is waited for. */
template <bool backwards = false, typename Work>
__device__ __forceinline__ void for_each_tile(const call &c, int64_t tiles, tiling level::*which, Work &&work) {
  TARE_SHARED(tile[2], found);
  constexpr bool adds = !std::is_void<decltype(work(c.levels[0], static_cast<const tile &>(found[0])))>::value;
  const int64_t each = int64_t(1) << tiles_of_partial(tiles);
  const uint32_t groups = uint32_t(partials_of(tiles));
  group_walk<backwards> walk = {groups, (groups + gridDim.x - 1) / gridDim.x, 0};
  walk.skip_missing();
  if (walk.is_over()) return;
  int64_t number = walk.place() * each;
  if (thread_rank() < warp_size) find_tile(c, number, which, &found[0]);
  __syncthreads();
  double sum = 0;
  for (uint32_t now = 0; !walk.is_over(); now ^= 1) {
    const uint32_t place = walk.place();
    const bool ends_group = number + 1 == (place + 1) * each || number + 1 == tiles;
    if (ends_group) walk.next();
    number = ends_group ? walk.place() * each : number + 1;
    if (!walk.is_over() && thread_rank() < warp_size) find_tile(c, number, which, &found[now ^ 1]);
    const tile &t = found[now];
    if constexpr (adds) {
      sum += block_sum<block_threads>(double(work(c.levels[t.level], t))); /* ends with a barrier */
      if (ends_group && thread_rank() == 0) c.partials[place] = sum;
      if (ends_group) sum = 0;
    } else {
      work(c.levels[t.level], t);
      __syncthreads();
    }
  }
}

/** Adds the partial sums of so many tiles in an order that depends on their number alone; the result is in thread 0. */
__device__ __forceinline__ double sum_of_partials(const call &c, int64_t tiles) {
  const int64_t count = partials_of(tiles), each = (count + block_threads - 1) / block_threads;
  const int64_t first = thread_rank() * each, end = first + each < count ? first + each : count;
  double mine = 0;
  for (int64_t i = first; i < end; i++) mine += __ldcg(c.partials + i);
  return block_sum<block_threads>(mine);
}

/** The last block to come here writes the loss. By all threads, once a kernel. */
__device__ __forceinline__ void finish_loss(const call &c) {
  if (!last_block(&c.record->ticket)) return;
  double sum = sum_of_partials(c, c.tile_count);
  if (thread_rank() != 0 || !c.loss) return;
  if (c.follows) sum += c.record->loss_so_far;
  if (c.goes_on) {
    c.record->loss_so_far = sum;
    return;
  }
  const double loss = sum * inverse_divisor_of(c);
  if (c.loss_dtype == TARE_DTYPE_F64)
    *static_cast<double *>(c.loss) = loss;
  else
    *static_cast<float *>(c.loss) = float(loss);
}

}  // namespace tare

#endif
