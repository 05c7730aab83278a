/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop of a fused head over chunks of rows, for every backend. A backend opens what it needs, gives its steps, and
 * calls the loop.
 *
 *   count labels
 *   a loss that depends on the whole batch:   for each chunk, from the last to the first: form logits, measure
 *   settle
 *   for each chunk: form logits unless kept, evaluate, fold the gradient, multiply it
 *   finish
 *
 * The first chunk is measured last, so its logits are there when it is evaluated.
 */
#ifndef TARE_CORE_LINEAR_CHUNKS_H
#define TARE_CORE_LINEAR_CHUNKS_H

#include "linear_plan.h"

/** A chunk in one of the passes. */
typedef struct tare_linear_chunk {
  int64_t first, rows;
  int follows;          /* not the first chunk of its pass */
  int goes_on;          /* not the last */
  float *logits;        /* [rows, C] */
  tare_problem problem; /* of these rows; to evaluate, the gradient takes the logits' place if any is wanted */
} tare_linear_chunk;

typedef tare_status tare_linear_step(void *head, const tare_linear_chunk *chunk);

/** What a backend does. `head` is its own; a step that fails puts a text into the call's error. */
typedef struct tare_linear_steps {
  tare_status (*count_labels)(void *head); /* of the whole batch; before anything is written */
  tare_linear_step *form_logits;
  tare_linear_step *measure;
  tare_status (*settle)(void *head); /* what the evaluating pass reads of the measuring one, or of the caller's state */
  tare_linear_step *evaluate;
  tare_linear_step *fold_gradient; /* adds to the gradient by b; prepares what the next two multiply */
  tare_linear_step *add_weights_gradient;
  tare_linear_step *write_features_gradient; /* the last step of a chunk: it may overwrite the chunk's features */
  tare_status (*finish)(void *head);
} tare_linear_steps;

/** tare_linear_evaluate. */
tare_status tare_linear_evaluate_chunks(const tare_linear_plan *plan, const tare_linear_steps *steps, void *head);

/** tare_linear_ghm_histogram: counts labels and measures every chunk. */
tare_status tare_linear_measure_chunks(const tare_linear_plan *plan, const tare_linear_steps *steps, void *head);

#endif
