/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A batch in host memory: read from files or synthetic, before it goes to a device.
 */
#ifndef TARE_TOOL_SAMPLE_H
#define TARE_TOOL_SAMPLE_H

#include <stdbool.h>
#include <stdint.h>

#include "columns.h"
#include "maps.h"
#include "tare.h"

struct sample {
  int64_t rows, classes; /**< for GHM-R, classes are the columns */
  int32_t dtype;         /**< a tare_dtype, of the logits */
  int32_t label_dtype, target_dtype, score_dtype;
  int64_t score_columns;          /**< 2: weights of two bins; else 1 */
  void *logits;                   /**< [rows, classes] */
  void *labels;                   /**< [rows], or NULL */
  void *targets;                  /**< [rows, classes], or NULL */
  void *scores;                   /**< [rows, score_columns], or NULL */
  float *row_weights;             /**< [rows], or NULL */
  float *class_weights;           /**< [classes], or NULL */
  float *offset;                  /**< [classes], added to the logits; or NULL */
  float *log_counts;              /**< [classes], logarithms of samples; or NULL */
  float *margins;                 /**< [classes], of softmax-ldam; or NULL */
  float *columns[COLUMN_VECTORS]; /**< [classes] each, or NULL */
  void *class_mask;               /**< u8 [mask_images, classes], or NULL */
  int64_t mask_images;            /**< 1: one mask for all images */
  double background_weight;
  double hard_negatives; /**< per positive; below 0: all rows are taken */
  int64_t least_negatives, images;
  int64_t hard_rows;    /**< 0: see hard_fraction */
  double hard_fraction; /**< of the rows that count; 0: hard_rows, and if both are 0 there is no OHEM */
  struct maps maps;     /**< where the rows come from */
  int32_t level_count;  /**< of several levels, whose rows follow each other; 0: there is one */
  int64_t level_rows[TARE_MAX_LEVELS];
  double level_weights[TARE_MAX_LEVELS];
  int64_t first_label, background_label, ignore_label;
};

void sample_init(struct sample *sample);
void sample_free(struct sample *sample);

/** Makes the logits `dtype`, rounded once to nearest even. TOOL_OK, or TOOL_FAILED after complaining. */
int sample_convert(struct sample *sample, int32_t dtype);

/** A copy of the logits only, as f32; the other arrays are shared, so free only copy->logits. */
int sample_share_f32(const struct sample *sample, struct sample *copy);

enum { ROW_SKIPPED = -2, ROW_BACKGROUND = -1 };

/** The role of row `row` in a loss of `kind`: its class, ROW_BACKGROUND, or ROW_SKIPPED if it adds nothing. With
 *  targets a row that counts is ROW_BACKGROUND. */
int64_t sample_row(const struct sample *sample, int32_t kind, int64_t row);

/* Kinds in families: what an element is, and what its gradient norm. */
bool kind_is_softmax(int32_t kind);
bool kind_is_ghm(int32_t kind);

#endif
