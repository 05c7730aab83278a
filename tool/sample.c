/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A batch in host memory.
 */
#define _GNU_SOURCE
#include "sample.h"

#include <stdlib.h>

#include "parameters.h"
#include "tool/base/convert.h"
#include "tool/base/problem.h"

void sample_init(struct sample *sample) {
  *sample = (struct sample){.classes = 1,
                            .background_weight = 1,
                            .hard_negatives = -1,
                            .images = 1,
                            .score_columns = 1,
                            .background_label = -1,
                            .ignore_label = -2};
}

void sample_free(struct sample *sample) {
  free(sample->logits);
  free(sample->labels);
  free(sample->targets);
  free(sample->scores);
  free(sample->row_weights);
  free(sample->class_weights);
  free(sample->offset);
  free(sample->log_counts);
  free(sample->margins);
  free(sample->class_mask);
  for (int which = 0; which < COLUMN_VECTORS; which++) free(sample->columns[which]);
  sample_init(sample);
}

static void *converted(const struct sample *sample, int32_t dtype) {
  int64_t count = sample->rows * sample->classes;
  void *logits = malloc(dtype_size(dtype) * (size_t)(count ? count : 1));
  if (!logits) {
    complain("no memory to convert the logits to %s", dtype_name(dtype));
    return NULL;
  }
  for (int64_t index = 0; index < count; index++) {
    number_put(dtype, logits, index, number_at(sample->dtype, sample->logits, index));
  }
  return logits;
}

int sample_convert(struct sample *sample, int32_t dtype) {
  if (dtype == sample->dtype) return TOOL_OK;
  void *logits = converted(sample, dtype);
  if (!logits) return TOOL_FAILED;
  free(sample->logits);
  sample->logits = logits;
  sample->dtype = dtype;
  return TOOL_OK;
}

int sample_share_f32(const struct sample *sample, struct sample *copy) {
  *copy = *sample;
  copy->dtype = TARE_DTYPE_F32;
  copy->logits = converted(sample, TARE_DTYPE_F32);
  return copy->logits ? TOOL_OK : TOOL_FAILED;
}

bool kind_is_softmax(int32_t kind) { return loss_described(kind).family == TARE_LOSS_FAMILY_SOFTMAX; }
bool kind_is_ghm(int32_t kind) { return loss_described(kind).has_state; }

int64_t sample_row(const struct sample *sample, int32_t kind, int64_t row) {
  if (sample->row_weights && sample->row_weights[row] == 0) return ROW_SKIPPED;
  if (!sample->labels) return ROW_BACKGROUND;
  int64_t label = label_at(sample->label_dtype, sample->labels, row);
  if (label == sample->ignore_label) return ROW_SKIPPED;
  int64_t class = (int64_t)((uint64_t)label - (uint64_t)sample->first_label); /* may wrap where it is none */
  if (kind == TARE_LOSS_GHM_R) return label == sample->background_label ? ROW_SKIPPED : class;
  if (sample->targets) return ROW_BACKGROUND;
  if (label != sample->background_label) return class;
  if (!kind_is_softmax(kind)) return ROW_BACKGROUND;
  return class >= 0 && class < sample->classes ? class : ROW_SKIPPED;
}
