/* SPDX-License-Identifier: Apache-2.0 */
#include "linear_chunks.h"

/** The chunk that begins at row `first`. */
static void open_chunk(const tare_linear_plan *plan, int64_t first, int with_gradient, tare_linear_chunk *chunk) {
  const int64_t left = plan->problem->rows - first;
  chunk->first = first;
  chunk->rows = left < plan->chunk_rows ? left : plan->chunk_rows;
  chunk->logits = plan->part[TARE_PART_LOGITS];
  if (first < plan->kept_rows) chunk->logits += first * plan->problem->batch.classes;
  tare_problem_slice(&chunk->problem, plan->problem, first, chunk->rows, chunk->logits,
                     with_gradient ? chunk->logits : NULL);
}

/** Goes from the last chunk to the first, so that chunks whose place is shared come first. */
static tare_status measure_chunks(const tare_linear_plan *plan, const tare_linear_steps *steps, void *head) {
  const int64_t last = (plan->problem->rows - 1) / plan->chunk_rows * plan->chunk_rows;
  tare_linear_chunk chunk;
  tare_status status = TARE_STATUS_OK;
  for (int64_t first = last; first >= 0 && !status; first -= plan->chunk_rows) {
    open_chunk(plan, first, 0, &chunk);
    chunk.follows = first < last;
    chunk.goes_on = first > 0;
    status = steps->form_logits(head, &chunk);
    if (!status) status = steps->measure(head, &chunk);
  }
  return status;
}

static tare_status use_gradient(const tare_linear_plan *plan, const tare_linear_steps *steps, void *head,
                                const tare_linear_chunk *chunk) {
  tare_status status = steps->fold_gradient(head, chunk);
  if (!status && plan->linear->weights_gradient) status = steps->add_weights_gradient(head, chunk);
  if (!status && plan->linear->features_gradient) status = steps->write_features_gradient(head, chunk);
  return status;
}

static tare_status evaluate_chunks(const tare_linear_plan *plan, const tare_linear_steps *steps, void *head) {
  tare_linear_chunk chunk;
  tare_status status = TARE_STATUS_OK;
  for (int64_t first = 0; first < plan->problem->rows && !status; first += plan->chunk_rows) {
    const int is_kept = plan->measures && first < plan->kept_rows;
    open_chunk(plan, first, plan->has_gradient, &chunk);
    chunk.follows = first > 0;
    chunk.goes_on = first + chunk.rows < plan->problem->rows;
    if (!is_kept) status = steps->form_logits(head, &chunk);
    if (!status) status = steps->evaluate(head, &chunk);
    if (!status && plan->has_gradient) status = use_gradient(plan, steps, head, &chunk);
  }
  return status;
}

tare_status tare_linear_evaluate_chunks(const tare_linear_plan *plan, const tare_linear_steps *steps, void *head) {
  tare_status status = steps->count_labels(head);
  if (!status && plan->measures) status = measure_chunks(plan, steps, head);
  if (!status) status = steps->settle(head);
  if (!status) status = evaluate_chunks(plan, steps, head);
  return status ? status : steps->finish(head);
}

tare_status tare_linear_measure_chunks(const tare_linear_plan *plan, const tare_linear_steps *steps, void *head) {
  const tare_status status = steps->count_labels(head);
  return status ? status : measure_chunks(plan, steps, head);
}
