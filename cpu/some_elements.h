/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loops that only some elements need. Most negatives lie below the margin of asymmetric loss, where loss and gradient
 * are 0. Most dense targets of a heatmap are 0, and have their values as negatives already. The elements that are left
 * are brought together, worked on, and put back. They get the same bits. Where they are more than half, the loop runs
 * on all, which is faster then.
 */

enum { AT_A_TIME = 512 };

typedef struct some_elements {
  int32_t n, at[AT_A_TIME], needs[AT_A_TIME];
  real x[AT_A_TIME], weight[AT_A_TIME], target[AT_A_TIME], loss[AT_A_TIME], derivative[AT_A_TIME];
} some_elements;

/** Which elements have a target above 0; returns how many. */
static int32_t find_targets(const stretch *on, int32_t *restrict needs) {
  const real *restrict target = on->target;
  const int32_t n = whole_units(on->n);
  int32_t found = 0;
#pragma omp simd reduction(+ : found)
  for (int32_t i = 0; i < n; i++) { /* hot: elements with a target (any) */
    needs[i] = target[i] != 0;
    found += needs[i];
  }
  return found;
}

/** Which negatives are above the margin, a NaN among them. */
static int32_t find_above_margin(const formula_parameters *parameters, const stretch *on, int32_t *restrict needs) {
  const real *restrict x = on->x, margin = parameters->margin_logit, margin_lo = parameters->margin_logit_lo;
  const int32_t n = whole_units(on->n);
  int32_t found = 0;
#pragma omp simd reduction(+ : found)
  for (int32_t i = 0; i < n; i++) { /* hot: elements above the margin (any) */
    needs[i] = !((x[i] - margin) - margin_lo <= 0);
    found += needs[i];
  }
  return found;
}

/** Which elements need a task's loop; returns how many. */
static int32_t find_some(const element_task *task, const stretch *on, int32_t *needs) {
  if (on->n < 4 * UNIT) return on->n; /* the labels of a block */
  if (task->is_soft && task->has_negatives) return find_targets(on, needs);
  if (!task->is_soft && task->shape == TARE_SHAPE_MARGIN) return find_above_margin(&task->parameters, on, needs);
  return on->n;
}

static void gather_some(const stretch *on, int has_target, some_elements *some) {
  int32_t n = 0;
  for (int32_t i = 0; i < on->n; i++) {
    some->at[n] = i;
    n += some->needs[i];
  }
  some->n = n;
  for (int32_t k = 0; k < n; k++) {
    const int32_t at = some->at[k];
    some->x[k] = on->x[at];
    some->weight[k] = on->weight[at];
    some->target[k] = has_target ? on->target[at] : (real)0;
  }
  for (; n % UNIT; n++) some->x[n] = some->weight[n] = some->target[n] = 0;
}

/** What the formula makes of negatives below the margin: zeros. */
static void clear_negatives(real factor, int wants_derivative, const stretch *on) {
  const real *weight = on->weight;
  real *restrict loss = on->loss, *derivative = on->derivative;
  const int32_t n = whole_units(on->n);
  for (int32_t i = 0; i < n; i++) loss[i] = weight[i] * (real)0;
#pragma omp simd
  for (int32_t i = 0; i < (wants_derivative ? n : 0); i++) derivative[i] = weight[i] * (real)0 * factor;
}

/** Runs the loop of a shape, or of labels apart, whose negatives are done. */
static __attribute__((noinline)) void evaluate_some(const element_task *task, real factor, const stretch *on) {
  some_elements some;
  element_task of_negatives = *task;
  of_negatives.is_soft = 0;
  of_negatives.wants_derivative |= task->is_soft;
  for (int32_t start = 0, n; start < on->n; start += n) {
    n = on->n - start < AT_A_TIME ? on->n - start : AT_A_TIME;
    const stretch part = {.n = n,
                          .x = on->x + start,
                          .weight = on->weight + start,
                          .loss = on->loss + start,
                          .derivative = on->derivative + start,
                          .target = on->target + start};
    if (find_some(task, &part, some.needs) > n / 2) {
      task->loops(task, factor, &part);
      continue;
    }
    gather_some(&part, task->is_soft, &some);
    if (!task->is_soft)
      clear_negatives(factor, task->wants_derivative, &part);
    else if (task->is_shaped)
      evaluate_some(&of_negatives, factor, &part);
    const stretch all = {.n = (some.n + UNIT - 1) / UNIT * UNIT,
                         .x = some.x,
                         .weight = some.weight,
                         .loss = some.loss,
                         .derivative = some.derivative,
                         .target = some.target};
    task->loops(task, factor, &all);
    for (int32_t k = 0; k < some.n; k++) {
      part.loss[some.at[k]] = some.loss[k];
      if (of_negatives.wants_derivative) part.derivative[some.at[k]] = some.derivative[k];
    }
  }
}
