/* SPDX-License-Identifier: Apache-2.0 */
#include "levels.h"

#include <math.h>

static int has_any(const tare_level_scalars *level) {
  return level->loss || level->weight != 1 || !tare_is_normalized(level);
}

static tare_status check_divisor(const tare_problem *problem, int index, tare_error *error) {
  const tare_level_scalars *level = &problem->scalars[index];
  const tare_output *output = &problem->output;
  const double scale = output->gradient_scale * level->weight;
  if (level->divisor != 0 && !(isfinite(level->divisor) && isfinite(1 / level->divisor)))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "batch->levels[%d].divisor is %g; it must be 0, for the normalizer's divisor, or it and its "
                     "reciprocal must be finite",
                     index, level->divisor);
  if (level->divisor != 0 && level->divisor_pointer)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "batch->levels[%d].divisor is %g and divisor_pointer %p; give one of them", index, level->divisor,
                     (const void *)level->divisor_pointer);
  if (!tare_is_normalized(level) && !(problem->takes & TARE_TAKES_NORMALIZER))
    return tare_fail(error, TARE_STATUS_UNSUPPORTED,
                     "batch->levels[%d].divisor or divisor_pointer with %s, which has its own normalizer; leave both 0",
                     index, tare_loss_name(problem->loss.kind));
  if (level->weight == 0)
    return tare_fail(
        error, TARE_STATUS_INVALID_ARGUMENT,
        "batch->levels[%d].loss_weight is 0; it must not be 0: the functions tare_level_init_* set 1; leave "
        "the level out to exclude it",
        index);
  if (!isfinite((float)level->weight) || !isfinite((float)scale))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "batch->levels[%d].loss_weight is %g; it, and its product with output->gradient_scale %g, must be "
                     "within +-3.4e38, the range of f32",
                     index, level->weight, output->gradient_scale);
  const double divisor = level->divisor != 0 ? level->divisor
                         : output->normalizer == TARE_NORMALIZER_VALUE && !output->normalizer_pointer
                             ? output->normalizer_value
                             : 1;
  if (!isfinite(scale / divisor))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "batch->levels[%d].loss_weight %g times output->gradient_scale over the divisor %g is not finite; "
                     "it must be below 1.8e308",
                     index, level->weight, divisor);
  return TARE_STATUS_OK;
}

static tare_status check_pointers(const tare_problem *problem, int index, tare_error *error) {
  const tare_level_scalars *level = &problem->scalars[index];
  const int64_t bytes = tare_dtype_bytes(problem->output.loss_dtype);
  if ((uintptr_t)level->loss % (uintptr_t)bytes || (uintptr_t)level->divisor_pointer % 4)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "batch->levels[%d].loss is %p and divisor_pointer %p; they must be aligned to %d and 4 bytes",
                     index, level->loss, (const void *)level->divisor_pointer, (int)bytes);
  for (int i = 0; level->loss && i < index; i++)
    if (problem->scalars[i].loss == level->loss)
      return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                       "batch->levels[%d].loss is %p, as in levels[%d]; each level needs memory of its own", index,
                       level->loss, i);
  return TARE_STATUS_OK;
}

static tare_status check_scope(const tare_problem *problem, tare_error *error) {
  const tare_output *output = &problem->output;
  if (output->normalizer_scope != TARE_NORMALIZER_SCOPE_BATCH &&
      output->normalizer_scope != TARE_NORMALIZER_SCOPE_LEVEL)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "output->normalizer_scope is %d; it must be TARE_NORMALIZER_SCOPE_BATCH (0) or "
                     "TARE_NORMALIZER_SCOPE_LEVEL (1)",
                     output->normalizer_scope);
  if (tare_has_scope_level(problem) && !tare_counts_rows(output))
    return tare_fail(
        error, TARE_STATUS_INVALID_ARGUMENT,
        "output->normalizer_scope is TARE_NORMALIZER_SCOPE_LEVEL with output->normalizer %d; the scope needs "
        "a normalizer that is formed from the batch, not TARE_NORMALIZER_SUM (0) or TARE_NORMALIZER_VALUE (5)",
        output->normalizer);
  return TARE_STATUS_OK;
}

tare_status tare_check_levels(tare_problem *problem, int unseen, tare_error *error) {
  tare_status status = check_scope(problem, error);
  problem->has_level_scalars = tare_has_scope_level(problem);
  for (int i = 0; i < problem->level_count && !status; i++) {
    problem->has_level_scalars |= has_any(&problem->scalars[i]);
    status = check_divisor(problem, i, error);
    if (!status) status = check_pointers(problem, i, error);
  }
  if (!status && unseen && problem->has_level_scalars)
    return tare_fail(error, TARE_STATUS_UNSUPPORTED,
                     "batch->levels[0].loss, loss_weight, divisor or output->normalizer_scope with a fused head, which "
                     "does not take them; use output->loss, normalizer_value and gradient_scale");
  return status;
}

int tare_levels_agree(const tare_problem *problem, int a, int b) {
  const tare_level_scalars *one = &problem->scalars[a], *other = &problem->scalars[b];
  if (one->weight != other->weight || one->divisor != other->divisor) return 0;
  if (one->divisor_pointer != other->divisor_pointer) return 0;
  return !(tare_is_normalized(one) && tare_has_scope_level(problem));
}

void tare_levels_part(const tare_problem *problem, const int *taken, int count, tare_problem *part) {
  const tare_level_scalars *level = &problem->scalars[taken[0]];
  *part = *problem;
  part->level_count = count;
  part->rows = part->has_scores = 0;
  part->all_positives = problem->all_positives && count == 1 ? problem->all_positives + taken[0] : NULL;
  for (int i = 0; i < count; i++) {
    part->view[i] = problem->view[taken[i]];
    part->scalars[i] = problem->scalars[taken[i]];
    part->rows += part->view[i].rows;
    part->has_scores |= part->view[i].array[TARE_ARRAY_SCORES].data != NULL;
  }
  tare_output *output = &part->output;
  output->loss = NULL;
  output->counts = NULL;
  output->class_sums = NULL;
  output->norm_histogram = NULL;
  output->norm_bins = 0;
  output->normalizer_sums = NULL;
  output->nonfinite_gradient = output->nonfinite_loss = NULL;
  output->gradient_scale = problem->output.gradient_scale * level->weight;
  if (tare_is_normalized(level)) return;
  output->normalizer = TARE_NORMALIZER_VALUE;
  output->normalizer_value = level->divisor != 0 ? level->divisor : 1;
  output->normalizer_pointer = level->divisor_pointer;
}
