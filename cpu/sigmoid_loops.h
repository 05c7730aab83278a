/* SPDX-License-Identifier: Apache-2.0 */
/* The loops of the sigmoid family: a formula of the list over elements that lie side by side. */

/** Loops run on whole units of elements. */
enum { UNIT = 16 };

/** Elements worked on side by side. x and derivative may be the same array. */
typedef struct stretch {
  int32_t n;
  const real *x;
  real *weight, *base_weight, *loss, *derivative;
  const real *target; /* read where elements have targets of their own */
} stretch;

/** The results that are wanted of a tile's elements. */
typedef struct element_task {
  int32_t kind, power, shape;
  int is_soft, wants_derivative;
  int has_negatives; /* a target of 0 is a negative, also where labels have a formula of their own */
  formula_parameters parameters;
} element_task;

typedef pair hard_formula(real, real, real, const formula_parameters *, int);
typedef pair soft_formula(real, real, real, real, const formula_parameters *, int);
typedef pair label_formula(real, real, real, const formula_parameters *, int);

TARE_INLINE void hard_body(hard_formula *formula, const formula_parameters *parameters, int power, int wants_derivative,
                           int uses_base_weight, real factor, const stretch *on) {
  const formula_parameters p = *parameters;
  const real *x = on->x, *weight = on->weight, *base_weight = on->base_weight;
  real *restrict loss = on->loss, *derivative = on->derivative;
  const int32_t n = on->n;
#pragma omp simd
  for (int32_t i = 0; i < n; i++) { /* hot: sigmoid hard */
    const real w = weight[i], base = uses_base_weight ? base_weight[i] : w;
    const pair value = formula(-x[i], w, base, &p, power);
    const int counts = (w != 0) | (base != 0);
    loss[i] = counts ? value.loss : (real)0;
    if (wants_derivative) derivative[i] = counts ? value.derivative * factor : (real)0;
  }
}

/** The formulas of a loss, each a constant: `hard` and `soft`, or `label` and scored_negative. */
typedef struct formulas {
  hard_formula *hard;
  soft_formula *soft;
  label_formula *label;
} formulas;

TARE_INLINE void soft_body(formulas of, const formula_parameters *parameters, int power, int uses_base_weight,
                           real factor, const stretch *on) {
  const formula_parameters p = *parameters;
  const real *x = on->x, *weight = on->weight, *base_weight = on->base_weight;
  const real *restrict target = on->target;
  real *restrict loss = on->loss, *derivative = on->derivative;
  const int32_t n = on->n;
#pragma omp simd
  for (int32_t i = 0; i < n; i++) { /* hot: sigmoid soft */
    const real w = weight[i], base = uses_base_weight ? base_weight[i] : w, t = target[i];
    const pair hard = of.hard(t == 1 ? x[i] : -x[i], w, base, &p, power);
    const pair between = of.soft(x[i], t, w, base, &p, power);
    const int counts = (w != 0) | (base != 0), is_end = (t == 0) | (t == 1);
    const real value = is_end ? hard.loss : between.loss;
    const real scaled = (is_end ? hard.derivative : between.derivative) * factor;
    const real by_x = t == 1 ? 0 - scaled : scaled; /* as of a label, the sign of 0 too */
    loss[i] = counts ? value : (real)0;
    derivative[i] = counts ? by_x : (real)0;
  }
}

/** Targets above 0, and also those of 0 unless `keeps` says that they have their values already. */
TARE_INLINE void label_body(label_formula *formula, const formula_parameters *parameters, int power, int keeps,
                            real factor, const stretch *on) {
  const formula_parameters p = *parameters;
  const real *x = on->x, *weight = on->weight;
  const real *restrict target = on->target;
  real *restrict loss = on->loss, *restrict derivative = on->derivative;
  const int32_t n = on->n;
#pragma omp simd
  for (int32_t i = 0; i < n; i++) { /* hot: sigmoid labels */
    const real w = weight[i], t = target[i];
    const pair value = formula(x[i], t, w, &p, power);
    const real own_loss = w != 0 ? value.loss : (real)0, own_derivative = w != 0 ? value.derivative * factor : (real)0;
    const int is_kept = (keeps != 0) & (t == 0);
    const real old_loss = loss[i], old_derivative = derivative[i]; /* always: SSE2 has no masked load */
    loss[i] = is_kept ? old_loss : own_loss;
    derivative[i] = is_kept ? old_derivative : own_derivative;
  }
}

/** Labels or dense targets, with or without a gradient; `power` and `uses_base_weight` are constants. */
TARE_INLINE void element_loop(formulas of, int power, int uses_base_weight, const element_task *task, real factor,
                              const stretch *on) {
  if (of.label)
    label_body(of.label, &task->parameters, power, task->has_negatives, factor, on);
  else if (task->is_soft)
    soft_body(of, &task->parameters, power, uses_base_weight, factor, on);
  else if (task->wants_derivative)
    hard_body(of.hard, &task->parameters, power, 1, uses_base_weight, factor, on);
  else
    hard_body(of.hard, &task->parameters, power, 0, uses_base_weight, factor, on);
}

/** The same, by the instance for a power; `has_powers` is a constant. */
TARE_INLINE void element_loops(formulas of, int has_powers, int uses_base_weight, const element_task *task, real factor,
                               const stretch *on) {
  switch (has_powers ? task->power : TARE_POWER_0) {
    case TARE_POWER_0:
      element_loop(of, TARE_POWER_0, uses_base_weight, task, factor, on);
      break;
    case TARE_POWER_1:
      element_loop(of, TARE_POWER_1, uses_base_weight, task, factor, on);
      break;
    case TARE_POWER_2:
      element_loop(of, TARE_POWER_2, uses_base_weight, task, factor, on);
      break;
    case TARE_POWER_HALF:
      element_loop(of, TARE_POWER_HALF, uses_base_weight, task, factor, on);
      break;
    case TARE_POWER_3_HALVES:
      element_loop(of, TARE_POWER_3_HALVES, uses_base_weight, task, factor, on);
      break;
    default:
      element_loop(of, TARE_POWER_GENERAL, uses_base_weight, task, factor, on);
  }
}

/** The negatives of every loss whose labels have a formula of their own. */
static void scored_negatives(const element_task *task, real factor, const stretch *on) {
  element_task negatives = *task;
  negatives.wants_derivative |= task->is_soft;
  negatives.is_soft = 0;
  element_loops((formulas){.hard = scored_negative}, GAMMA, WHOLE, &negatives, factor, on);
}

/** Elements of a loss with a shape, a constant. */
TARE_INLINE void shaped_loop(int shape, const element_task *task, real factor, const stretch *on) {
  const formula_parameters *p = &task->parameters;
  if (!task->is_soft && !task->wants_derivative)
    hard_body(shaped_negative, p, shape, 0, WHOLE, factor, on);
  else if (!task->is_soft || task->has_negatives)
    hard_body(shaped_negative, p, shape, 1, WHOLE, factor, on);
  if (task->is_soft) label_body(shaped_label, p, shape, task->has_negatives, factor, on);
}

static void shaped_loops(const element_task *task, real factor, const stretch *on) {
  switch ((enum tare_shape)task->shape) {
    case TARE_SHAPE_SMOOTHED:
      shaped_loop(TARE_SHAPE_SMOOTHED, task, factor, on);
      break;
    case TARE_SHAPE_SMOOTHED_ALL:
      shaped_loop(TARE_SHAPE_SMOOTHED_ALL, task, factor, on);
      break;
    case TARE_SHAPE_TWO_GAMMAS:
      shaped_loop(TARE_SHAPE_TWO_GAMMAS, task, factor, on);
      break;
    case TARE_SHAPE_MARGIN:
      shaped_loop(TARE_SHAPE_MARGIN, task, factor, on);
      break;
    case TARE_SHAPE_REDUCED:
      shaped_loop(TARE_SHAPE_REDUCED, task, factor, on);
      break;
    case TARE_SHAPE_STAR:
      shaped_loop(TARE_SHAPE_STAR, task, factor, on);
      break;
    case TARE_SHAPE_NONE:
    case TARE_SHAPE_COUNT:
      break;
  }
}

/* What the alpha column of losses.def makes of a loss. */
#define EVALUATE_WHOLE(formula, powers) \
  element_loops((formulas){.hard = formula, .soft = formula##_soft}, powers, WHOLE, task, factor, on);
#define EVALUATE_PART(formula, powers) \
  element_loops((formulas){.hard = formula, .soft = formula##_soft}, powers, PART, task, factor, on);
#define EVALUATE_APART(formula, powers)                                          \
  if (!task->is_soft || task->has_negatives) scored_negatives(task, factor, on); \
  if (task->is_soft) element_loops((formulas){.label = formula##_label}, powers, WHOLE, task, factor, on);
#define EVALUATE_NEGATIVES(formula, powers) EVALUATE_APART(formula, powers)
#define EVALUATE_SHAPED(formula, powers) /* above */

/** Evaluates whole units of elements by the task's loss. */
static void evaluate_elements(const element_task *task, real factor, const stretch *on) {
  if (task->shape != TARE_SHAPE_NONE) {
    shaped_loops(task, factor, on);
    return;
  }
  switch (task->kind) {
#define CASE_SIGMOID(kind, formula, powers, alpha) \
  case TARE_LOSS_##kind:                           \
    EVALUATE_##alpha(formula, powers);             \
    break;
#define CASE_SOFTMAX(kind, formula, powers, alpha)
#define CASE_REGRESSION(kind, formula, powers, alpha)
#define TARE_LOSS(kind, formula, name, family, powers, alpha, passes, member, takes) \
  CASE_##family(kind, formula, powers, alpha)
#include "losses/losses.def"
#undef TARE_LOSS
#undef CASE_SIGMOID
#undef CASE_SOFTMAX
#undef CASE_REGRESSION
#undef EVALUATE_WHOLE
#undef EVALUATE_PART
#undef EVALUATE_APART
#undef EVALUATE_NEGATIVES
#undef EVALUATE_SHAPED
  }
}
