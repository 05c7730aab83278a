/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a kernel gets: the whole call by value, cut into tiles.
 *
 * A tile is some rows, consecutive along the last axis of a level's view, with all their classes. Its size depends on
 * the shape alone. A group of tiles (of one, but for the largest batches) has a place for its partial sum. The last
 * block adds these in order, so the result depends on neither the grid nor the order of blocks.
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
constexpr int32_t most_flat_rows = 1024;                   /* of a tile that goes along classes */
constexpr int32_t roles_of_flat_tile = most_flat_rows + 1; /* one more is loaded, and not looked at */
constexpr int64_t most_partials = 16384; /* places for partial sums in a context; the last block waits for them all */

/** How the kernels go over a level. */
enum walk : int32_t {
  walk_flat, /* along classes, 16 bytes at a time */
  walk_nchw, /* along rows, class after class: NCHW */
  walk_rows  /* a warp a row, any strides */
};

/** How the sigmoid family may take the vectors of a level: without choices, if only loss and gradient are wanted. */
enum lean_way : int32_t {
  lean_never,
  lean_plain,    /* labels; no weight of an element, and no alpha or positive weight of a class */
  lean_short,    /* flat: the same, but a row has fewer classes than a vector has elements, less one */
  lean_zeros,    /* flat: dense targets without such weights, whose zeros are looked for 16 bytes at a time */
  lean_rows,     /* NCHW: plain, but a lane takes one row, because rows are not a whole number of vectors */
  lean_together, /* rows: plain, and rows follow each other, so that they are taken together */
  lean_alphas,   /* flat: alphas or positive weights of classes */
  lean_elements, /* flat: weights of elements, 16 bytes at a time */
  lean_both      /* flat: an alpha of each class and weights of elements */
};

__host__ __device__ __forceinline__ bool is_plain(int32_t way) { return way == lean_plain || way == lean_short; }
__host__ __device__ __forceinline__ bool is_weighted(int32_t way) { return way >= lean_alphas; }

/** Softmax rows with labels that lanes do not share: see call::label_lanes. */
enum : int32_t { label_by_warps = 0 /* walk_nchw */, label_by_row = -1 /* walk_rows */ };

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
  int32_t aligned;         /* logits and gradient can be read and written in vectors */
  int32_t allows_lean_way; /* a lean_way: how vectors of negatives may be computed without choices */
  uint32_t magic;          /* ceil(2^32/classes), or 0 where that does not divide a tile's elements exactly */
};

/** What a softmax loss adds to the logits of a row, by label and class: see adjust() in softmax.cuh. */
struct adjustment {
  const float *of_class; /* offsets, or LDAM's margins; NULL: nothing is added */
  float excluded;        /* the one that takes its class out */
  float share;           /* of them that is added to every logit: 1; of margins 0 */
  float scale;           /* of all logits: what is below the maximum is multiplied by it */
  int32_t is_ldam;       /* the logits have a scale, and the label a margin */
};

/** Of a loss that has offsets, if anything. */
__host__ __device__ __forceinline__ adjustment offsets_alone(const float *of_class) {
  return {of_class, -INFINITY, 1.0f, 1.0f, 0};
}

/** Seesaw loss: see softmax_by_label.cuh. */
struct seesaw {
  const float *log_counts; /* NULL: no mitigation */
  float mitigation, compensation, log_floor;
  float reserved; /* no padding, which would not be set */
};

/** What a context keeps on the device. */
struct device_record {
  uint64_t invalid_rows, first_invalid;   /* by their label, since the last check; first_invalid is a row's number */
  uint64_t invalid_targets, first_target; /* the same, by a dense target */
  uint64_t rows, counted, positives, background, ignored, invalid; /* being counted; 0 between launches */
  double inverse_divisor;
  tare_normalizer_sums sums; /* of the last launch that counted labels, and of the one after it that summed targets */
  uint64_t ones, elements;   /* being counted; 0 between launches */
  uint32_t ticket;
  uint32_t largest; /* the fused head's: bits of the largest |gradient| of a chunk; 0 between launches */
  grid_barrier_state barrier;
  uint64_t histogram[TARE_MAX_BINS]; /* of gradient norms, being counted; 0 between launches */

  /* The fused head's: the loss of the chunks before, and numbers that cuBLAS reads on the device. */
  double loss_so_far;
  float one, zero, unscale;
};

struct call {
  int32_t kind, family, power, soft;
  int32_t dtype, label_dtype, target_dtype, level_count;
  int64_t classes, first_label, background_label, ignore_label;
  int32_t background_role; /* see tare_background_role */
  int32_t is_mask;         /* GHM: row weights only select */
  int32_t label_lanes;     /* softmax: lanes that share a row with a label, or one of the next two */
  float alpha, alpha_of_0; /* of targets 1 and 0, each rounded once from double; 1 where there is none */
  float background_weight, gamma_hi, gamma_lo, epsilon;
  int32_t has_alpha;
  const float *alpha_per_class, *class_weights, *positive_weights;
  const float *negative_weights, *gamma_per_class;
  const float *background_negative_weights; /* negative_weights where the batch has none for background rows */
  int32_t has_columns;                      /* any of the last three, or the next: cuda/sigmoid_columns.cuh */
  int32_t weighs_terms;                     /* as in tare_problem */
  int32_t masks_classes;                    /* levels have TARE_ARRAY_CLASS_MASK */
  int32_t reserved_masks;
  adjustment adjusts;
  float target_least, target_most; /* of dense targets of elements that count */
  int32_t checks_targets;
  int32_t has_scores, score_dtype; /* of labels; has_scores: any level has some */
  int32_t labels_are_flags;        /* as tare_labels_are_flags */
  int32_t bin_numbers;             /* of each row's scores, where they are targets between bins; else 0 */
  float last_target;               /* between bins */
  int32_t alpha_of_negatives;      /* as in tare_problem */
  int32_t has_peaks;               /* the positive weight is that of targets of 1 alone */
  int32_t negative_at_0;           /* a label with score 0 is a negative */
  float score_least, score_most;
  float derivative_gamma;             /* gamma of the gradient: 0 where the modulator is detached */
  float p_hi, p_lo, rest_hi, rest_lo; /* as in formula_parameters */
  int32_t shape;                      /* a tare_shape, and what formula_parameters has for it: */
  float smoothed, unsmoothed, label_gamma_hi, label_gamma_lo, label_derivative_gamma;
  float margin, margin_rest, margin_logit, margin_logit_lo, threshold, log_threshold, shift, shift_lo, inverse_gamma;
  int32_t has_row_terms, smooths_all; /* label smoothing or z-loss of softmax rows, and what row_smoothing has: */
  float smoothed_share, unshared, smoothed_distance; /* smoothed_share: 0 without label smoothing */
  int32_t adjusts_by_label; /* a softmax loss whose logits depend on the label, and what it has for it: */
  struct seesaw seesaw;

  int32_t normalizer, loss_dtype;
  double inverse_divisor; /* of a host value; used where the next two are not */
  const float *divisor_pointer;
  int32_t divisor_counted; /* the label kernel, or the one that sums targets, leaves it in the record */
  int32_t scale_follows;   /* a gradient scale that is not finite is applied after the products of a fused head */
  double divisor_addend, divisor_minimum;
  double gradient_scale;
  double z_loss; /* factor of LSE^2 in a softmax row */
  const float *gradient_scale_pointer;
  void *loss;
  int32_t follows, goes_on; /* one of several launches that share a loss: not the first, not the last */
  tare_counts *counts;
  int64_t *per_class;
  const uint64_t *all_positives; /* [level_count]: rows with a class, selected or not; NULL: the labels say it */

  device_record *record;
  double *partials;
  int64_t tile_count, count_tile_count;
  level levels[TARE_MAX_LEVELS];
};

/** What a launch of a GHM loss is for. `fused` counts and evaluates, in a cooperative launch. */
enum class ghm_pass : int32_t { count, collect, evaluate, fused };

/** The call of a GHM loss. */
struct ghm_call : call {
  ghm_pass pass;
  int32_t updates;                       /* the density follows the counts, and the loss follows that */
  int32_t fresh;                         /* the state has no past: what stands in it is not read */
  int32_t rows_of_turn, classes_of_turn; /* flat_steps of the call */
  int32_t reserved_[2];
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

}  // namespace tare

#endif
