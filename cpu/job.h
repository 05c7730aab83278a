/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernels of the CPU backend get: a job (the call), a tile (some rows of one level), scratch of their thread,
 * and the place for the tile group's result. See cpu/backend.c for the order of things.
 */
#ifndef TARE_CPU_JOB_H
#define TARE_CPU_JOB_H

#include <stddef.h>

#include "core/problem.h"
#include "losses/ghm.h"

enum {
  TARE_BLOCK = 1024,          /* elements computed at a time, in first-level cache */
  TARE_TILE_ROWS = 1024,      /* the most rows of a tile */
  TARE_TILE_ELEMENTS = 16384, /* what a tile aims for where rows are contiguous */
  TARE_ROW_BUFFER = 32768,    /* elements of softmax rows kept at a time */
  TARE_MAX_GROUPS = 4096      /* results of a call: tiles are grouped so that there are never more */
};

/** A row's class where it has none. */
enum { TARE_ROW_BACKGROUND = -1, TARE_ROW_SKIPPED = -2 };

/** What a pass over the logits is for. */
enum tare_pass { TARE_PASS_EVALUATE, TARE_PASS_HISTOGRAM, TARE_PASS_COLLECT, TARE_PASS_TARGETS };

/** How the gradient density weighs elements. */
enum tare_density_use { TARE_DENSITY_NONE, TARE_DENSITY_BINS, TARE_DENSITY_EXACT };

enum { TARE_KEY_STEP = 64, TARE_KEY_LEVELS = 8 };

/** The keys of the exact density in order, and 1/GD of each. level[0] has all of them, each further level every 64th of the
 *  one before: a search touches one stretch of memory a level instead of one place for each halving. */
typedef struct tare_sorted_keys {
  const double *level[TARE_KEY_LEVELS];
  int64_t count[TARE_KEY_LEVELS];
  int32_t levels;
  const double *weight;
} tare_sorted_keys;

/** By what the kernels' slopes are multiplied. Where `after` is set, scale over divisor is no ordinary number of the
 *  kernels' type: they multiply by a factor of 1, and cpu/scale.h finishes each slope. */
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
  const tare_bins *bins;
  tare_sorted_keys sorted; /* exact density */
  double *collected_key;   /* TARE_PASS_COLLECT appends here, */
  int64_t key_count;       /* and has so many */
} tare_job;

/** Rows [0, rows) along the last axis of a view, from the element offsets given for each array. */
typedef struct tare_tile {
  const tare_view *view;
  int64_t offset[TARE_ARRAYS];
  int32_t rows;
} tare_tile;

/** Rows of a tile as their labels and weights make them. */
typedef struct tare_tile_rows {
  int32_t cls[TARE_TILE_ROWS];   /* class, TARE_ROW_BACKGROUND or TARE_ROW_SKIPPED */
  double weight[TARE_TILE_ROWS]; /* row weight x class weight; 0 where skipped */
  int32_t positives;             /* rows with cls >= 0, listed here in order */
  int32_t positive[TARE_TILE_ROWS];
} tare_tile_rows;

/** What a pass over the labels finds. */
typedef struct tare_label_scan {
  tare_counts counts;
  double weights;        /* sum of row weight x class weight over rows that count; for TARE_NORMALIZER_WEIGHTS only */
  int64_t first_invalid; /* in row order; INT64_MAX if none */
  int64_t invalid_label;
} tare_label_scan;

/** What a pass finds of targets that no formula takes. */
typedef struct tare_target_scan {
  int64_t rows;           /* that have one */
  int64_t first_row, cls; /* the first of them, and its first such class; INT64_MAX if none */
  double value;           /* what stands there */
} tare_target_scan;

/** The sum of a group of tiles. */
typedef struct tare_group_result {
  double loss;
  double weights; /* TARE_PASS_TARGETS: of the rows that count */
  tare_target_scan targets;
} tare_group_result;

#define TARE_ALIGNED __attribute__((aligned(64)))

#define TARE_DEFINE_SCRATCH(real, suffix)                                                              \
  typedef struct tare_scratch_##suffix {                                                               \
    TARE_ALIGNED real x[TARE_BLOCK], weight[TARE_BLOCK], plain_weight[TARE_BLOCK], target[TARE_BLOCK]; \
    TARE_ALIGNED real loss[TARE_BLOCK], slope[TARE_BLOCK], dense_weight[TARE_BLOCK];                   \
    TARE_ALIGNED real picked_x[TARE_BLOCK], picked_weight[TARE_BLOCK], picked_plain[TARE_BLOCK];       \
    TARE_ALIGNED real picked_loss[TARE_BLOCK], picked_slope[TARE_BLOCK];                               \
    TARE_ALIGNED real row[TARE_ROW_BUFFER];                                                            \
    TARE_ALIGNED real maximum[TARE_TILE_ROWS], label_x[TARE_TILE_ROWS];                                \
    TARE_ALIGNED real row_weight[TARE_TILE_ROWS], class_weight[TARE_BLOCK];                            \
    TARE_ALIGNED real at_0[TARE_BLOCK], at_1[TARE_BLOCK], of_ones[TARE_BLOCK];                         \
    real of_line[TARE_BLOCK]; /* factors that the first lines of weight were made with */              \
    int32_t spread_lines, spread_length;                                                               \
    int64_t spread_class;                                                                              \
  } tare_scratch_##suffix;
TARE_DEFINE_SCRATCH(float, f32)
TARE_DEFINE_SCRATCH(double, f64)

/** Scratch of one thread. */
typedef struct tare_scratch {
  tare_scratch_f32 f32;
  tare_scratch_f64 f64;
  TARE_ALIGNED double sum[TARE_TILE_ROWS], margin[TARE_TILE_ROWS], margin_loss[TARE_TILE_ROWS],
      margin_slope[TARE_TILE_ROWS], row_loss[TARE_TILE_ROWS];
  TARE_ALIGNED double key[TARE_BLOCK], inverse_density[TARE_BLOCK];
  TARE_ALIGNED int64_t place[TARE_BLOCK];
  TARE_ALIGNED int32_t bin[TARE_BLOCK];
  int32_t picked_at[TARE_BLOCK];
  tare_tile_rows rows;
  int32_t clamps_targets;              /* some of the tile's are not in [0,1] */
  int64_t histogram[4][TARE_MAX_BINS]; /* added up at the end: neighbours that fall in one bin need not wait */
} tare_scratch;

typedef void tare_tile_function(const tare_job *job, const tare_tile *tile, tare_scratch *scratch,
                                tare_group_result *result);

typedef void tare_scan_function(const tare_problem *problem, const tare_tile *tile, tare_label_scan *scan,
                                int64_t *per_class);

/** Class, TARE_ROW_BACKGROUND or another negative number for each row of a tile, as the labels alone say. */
typedef void tare_classify_function(const tare_problem *problem, const tare_tile *tile, int32_t *found);

/** The kernels of one instruction set: [0] for f32, f16 and bf16 logits, [1] for f64. */
typedef struct tare_kernels {
  const char *name;
  tare_tile_function *sigmoid[2], *softmax[2], *regression;
  tare_scan_function *scan_labels;
  tare_classify_function *classify_labels;
} tare_kernels;

extern const tare_kernels tare_kernels_baseline, tare_kernels_avx2, tare_kernels_avx512;

#endif
