/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernels of the CPU backend get: a job (the call), a tile (some rows of one level), scratch of their thread,
 * and the place for the tile group's result. See cpu/backend.c for the order of things.
 */
#ifndef TARE_CPU_JOB_H
#define TARE_CPU_JOB_H

#include <stddef.h>

#include "core/masks.h"
#include "core/problem.h"
#include "losses/ghm.h"

enum {
  TARE_BLOCK = 1024,          /* elements computed at a time, in first-level cache */
  TARE_TILE_ROWS = 1024,      /* the most rows of a tile */
  TARE_TILE_ELEMENTS = 16384, /* what a tile aims for where rows are contiguous */
  TARE_ROW_BUFFER = 32768,    /* elements of softmax rows kept at a time */
  TARE_LEVEL_GROUPS = 4096,   /* results of a level: tiles are grouped so that there are never more */
  TARE_MAX_GROUPS = TARE_LEVEL_GROUPS * TARE_MAX_LEVELS
};

/** What a pass over the logits is for. */
enum tare_pass { TARE_PASS_EVALUATE, TARE_PASS_HISTOGRAM, TARE_PASS_COLLECT, TARE_PASS_TARGETS };

/** How the gradient density weighs elements. */
enum tare_density_use { TARE_DENSITY_USE_NONE, TARE_DENSITY_USE_BINS, TARE_DENSITY_USE_EXACT };

/** By what the kernels' derivatives are multiplied. Where `after` is set, scale over divisor is no ordinary number of
 *  the kernels' type: they multiply by a factor of 1, and cpu/scale.h finishes each derivative. */
typedef struct tare_gradient_scale {
  double factor;
  int32_t after;
  double scale, divisor;
} tare_gradient_scale;

typedef struct tare_job {
  const tare_problem *problem;
  int32_t pass;
  int32_t density;
  tare_gradient_scale gradient;
  const tare_gradient_scale *of_level; /* instead, one for each level; or NULL */
  const tare_bins *bins;
  const void *inverse_density;            /* exact density: 1/GD of each element by its place, of the kernels' type */
  uint64_t *key;                          /* TARE_PASS_COLLECT: of each element by its place; see cpu/exact.c */
  int32_t collects_words;                 /* logits of 32 bits and places in one, instead of keys in double */
  int32_t zeros_past_caches, past_caches; /* rows of zeros, and the gradient, are stored past the caches */
} tare_job;

/** Rows [0, rows) along the last axis of a view, from the element offsets given for each array. */
typedef struct tare_tile {
  const tare_view *view;
  int64_t offset[TARE_ARRAY_COUNT];
  int64_t place; /* of its first element: the elements of all tiles before it */
  int32_t rows;
} tare_tile;

/** Rows of a tile as their labels and weights make them. */
typedef struct tare_tile_rows {
  int32_t cls[TARE_TILE_ROWS];   /* class, TARE_ROW_BACKGROUND or TARE_ROW_SKIPPED */
  double weight[TARE_TILE_ROWS]; /* row weight x class weight; 0 where skipped */
  int32_t positives;             /* rows with cls >= 0, listed here in order */
  int32_t positive[TARE_TILE_ROWS];
} tare_tile_rows;

/** The result of a pass over the labels. */
typedef struct tare_label_scan {
  tare_counts counts;
  double weights;        /* sum of row weight x class weight over rows that count; where the divisor is formed of it */
  double targets, ones;  /* sum of targets, and how many are 1; by TARE_PASS_TARGETS */
  int64_t elements;      /* of rows that count; with a class mask, by the same pass */
  int64_t first_invalid; /* in row order; INT64_MAX if none */
  int64_t invalid_label;
} tare_label_scan;

/** The same of each level, and of all. */
typedef struct tare_scans {
  tare_label_scan all, of_level[TARE_MAX_LEVELS];
} tare_scans;

/** Invalid targets that a pass found. */
typedef struct tare_target_scan {
  int64_t rows;           /* that have one */
  int64_t first_row, cls; /* the first of them, and its first such class; INT64_MAX if none */
  double value;           /* what stands there */
} tare_target_scan;

/** The sum of a group of tiles. */
typedef struct tare_group_result {
  double loss;
  double weights, targets_sum, ones; /* TARE_PASS_TARGETS: of the rows that count */
  int64_t elements;                  /* the same, with a class mask: those that it lets count */
  tare_target_scan targets;
} tare_group_result;

#define TARE_ALIGNED __attribute__((aligned(64)))

/** Softmax rows by their margins, in double: what is known of each row, and what its loss is. */
typedef struct tare_margins {
  TARE_ALIGNED double label_x[TARE_TILE_ROWS], maximum[TARE_TILE_ROWS], sum[TARE_TILE_ROWS], margin[TARE_TILE_ROWS];
  TARE_ALIGNED double loss[TARE_TILE_ROWS], derivative[TARE_TILE_ROWS];
  /* with label smoothing: the sum of m - x_j over the other classes, and the modulator */
  TARE_ALIGNED double spread[TARE_TILE_ROWS], modulator[TARE_TILE_ROWS];
  TARE_ALIGNED double of_label[TARE_TILE_ROWS]; /* the gradient at the label, of rows with terms of their own */
  /* with dense targets: their sum, and the factor of exponentials; `spread` is the sum of t_j*(m - x_j) */
  TARE_ALIGNED double targets[TARE_TILE_ROWS], of_e[TARE_TILE_ROWS];
} tare_margins;

/** Rows with a target between two bins. The label of such a row is one of them, and the other is `other`. */
typedef struct tare_two_hot {
  int32_t other[TARE_TILE_ROWS];                             /* -1: none */
  double left[TARE_TILE_ROWS], right[TARE_TILE_ROWS];        /* shares of both bins; they add up to 1 */
  double total[TARE_TILE_ROWS];                              /* what the shares are of */
  double of_other[TARE_TILE_ROWS], distance[TARE_TILE_ROWS]; /* the other's share, and how far its logit is below */
} tare_two_hot;

/** Elements with a target between 0 and 1: where they are in their block, and their gradient norm. */
typedef struct tare_soft_norms {
  TARE_ALIGNED double x[TARE_BLOCK], target[TARE_BLOCK], norm[TARE_BLOCK];
  int32_t at[TARE_BLOCK];
} tare_soft_norms;

/** What the kernels of every type have done in double: a call for an array. */
typedef struct tare_double_kernels {
  /** Losses and derivatives of n softmax rows from label_x, maximum and sum. */
  void (*evaluate_margins)(const tare_problem *problem, int32_t n, const double *weight, tare_margins *margins);
  /** Seesaw loss: what a class is compared with, in the place of the margin, from the same. */
  void (*find_bases)(const tare_problem *problem, int32_t n, tare_margins *margins);
  double (*logarithm)(double x);
  /** norm = |sigmoid(x) - target| of n elements. */
  void (*find_soft_norms)(int32_t n, const double *restrict x, const double *restrict target, double *restrict norm);
  /** Gradient norms of n signed logits, folded: see losses/window.h. */
  void (*find_norms)(int32_t n, const double *restrict logit, double *restrict norm);
} tare_double_kernels;

/** Room for the arrays of cpu/scratch.h, in double. */
enum { TARE_REAL_SCRATCH_BYTES = 8 * (25 * TARE_BLOCK + 4 * TARE_TILE_ROWS + TARE_ROW_BUFFER) };

/** Scratch of one thread. */
typedef struct tare_scratch {
  TARE_ALIGNED unsigned char of_real[TARE_REAL_SCRATCH_BYTES];
  tare_margins margins;
  tare_soft_norms soft_norms;
  tare_two_hot two_hot;
  TARE_ALIGNED double row_loss[TARE_TILE_ROWS];
  TARE_ALIGNED double key[TARE_BLOCK];
  TARE_ALIGNED int32_t bin[TARE_BLOCK];
  int32_t picked_at[TARE_BLOCK];
  tare_tile_rows rows;
  const tare_double_kernels *in_double; /* of the context's instruction set */
  tare_class_sums *class_sums;          /* [classes]: what elements are added to, of a pass that sums; else NULL */
  int32_t clamps_targets;               /* some of the tile's are not in [0,1] */
  int64_t histogram[4][TARE_MAX_BINS];  /* added up at the end: neighbours that fall in one bin need not wait */
} tare_scratch;

typedef void tare_tile_function(const tare_job *job, const tare_tile *tile, tare_scratch *scratch,
                                tare_group_result *result);

typedef void tare_scan_function(const tare_problem *problem, const tare_tile *tile, tare_label_scan *scan,
                                int64_t *per_class);

/** Class, TARE_ROW_BACKGROUND or another negative number for each row of a tile, as the labels alone say. */
typedef void tare_classify_function(const tare_problem *problem, const tare_tile *tile, int32_t *found);

/** A chunk of a mask, and what becomes of it: sums, or a part of the gradient of its mask's result. The gradient is
 *  multiplied by `factor`, scale over divisor. Where `after` is set, that is 1/divisor, and the scale, which is not
 *  finite, comes last. */
typedef struct tare_mask_piece {
  int64_t mask, chunk;
  tare_mask_partial *sums;
  const tare_mask_result *result;
  double factor, scale;
  int32_t after;
} tare_mask_piece;

typedef void tare_mask_function(const tare_mask_problem *problem, const tare_mask_piece *piece, tare_scratch *scratch);

/** The kernels of one instruction set for one type: f64, or f32, which f16 and bf16 are read as. */
typedef struct tare_kernels_of_type {
  tare_tile_function *sigmoid, *softmax;
  tare_mask_function *sum_mask, *write_mask;
} tare_kernels_of_type;

/** What one instruction set has for every type. */
typedef struct tare_kernels_of_all {
  tare_tile_function *regression;
  tare_scan_function *scan_labels;
  tare_classify_function *classify_labels;
  tare_double_kernels in_double;
} tare_kernels_of_all;

/* Each is the TARE_KERNELS of one compilation of cpu/instance.c. */
extern const tare_kernels_of_type tare_kernels_baseline_f32, tare_kernels_baseline_f64, tare_kernels_avx2_f32,
    tare_kernels_avx2_f64, tare_kernels_avx512_f32, tare_kernels_avx512_f64, tare_kernels_sve_f32, tare_kernels_sve_f64;

/* And of cpu/doubles.c. */
extern const tare_kernels_of_all tare_kernels_baseline_all, tare_kernels_avx2_all, tare_kernels_avx512_all;

/** An instruction set. */
typedef struct tare_kernels {
  const char *name;
  const tare_kernels_of_type *f32, *f64;
  const tare_kernels_of_all *all;
} tare_kernels;

#endif
