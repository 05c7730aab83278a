/* SPDX-License-Identifier: Apache-2.0 */
/* The loops of the sigmoid family: a formula of the list over elements that lie side by side. */

/** Loops run on whole units of elements. */
enum { UNIT = 16 };

/** n is a number of whole units already. Where a compiler sees that, it makes no second and third form of a loop for
 *  what would be left over: a third of the library. */
TARE_INLINE int32_t whole_units(int32_t n) { return n / UNIT * UNIT; }

/** Elements worked on side by side. x and derivative may be the same array. */
typedef struct stretch {
  int32_t n;
  const real *x;
  real *weight, *base_weight, *loss, *derivative;
  const real *target; /* read where elements have targets of their own */
  const real *gamma;  /* and where classes have exponents of their own */
} stretch;

struct element_task;

/** The loops of a power or of a shape. They run the one that the task needs. */
typedef void element_loops(const struct element_task *task, real factor, const stretch *on);

/** The results that are wanted of a tile's elements. */
typedef struct element_task {
  int32_t kind, power, shape;
  int is_soft, wants_derivative;
  int has_negatives; /* a target of 0 is a negative, also where labels have a formula of their own */
  int labels_apart;  /* which they have, and negatives have scored_negative */
  int is_shaped;     /* negatives and labels have the formulas of a shape */
  element_loops *loops;
  formula_parameters parameters;
} element_task;

typedef pair hard_formula(real, real, real, const formula_parameters *, int);
typedef pair end_formula(terms, real, real, const formula_parameters *, int);
typedef pair soft_formula(real, real, real, real, const formula_parameters *, int);
typedef pair label_formula(real, real, real, const formula_parameters *, int);

#ifdef HAS_VECTORS
#include "negatives.h"

#include "dense.h"
#endif

TARE_INLINE void hard_body(hard_formula *formula, const formula_parameters *parameters, int power, int wants_derivative,
                           int uses_base_weight, real factor, const stretch *on) {
  const formula_parameters p = *parameters;
  const real *x = on->x, *weight = on->weight, *base_weight = on->base_weight;
  real *restrict loss = on->loss, *derivative = on->derivative;
  const int32_t n = whole_units(on->n);
#pragma omp simd
  for (int32_t i = 0; i < n; i++) { /* hot: sigmoid hard */
    const real w = weight[i], base = uses_base_weight ? base_weight[i] : w;
    const pair value = formula(-x[i], w, base, &p, power);
    const int counts = (w != 0) | (base != 0);
    loss[i] = counts ? value.loss : (real)0;
    if (wants_derivative) derivative[i] = counts ? value.derivative * factor : (real)0;
  }
}

/** hard_body of a formula, a constant, for losses and perhaps derivatives. Many parameters: as hard_body. */
TARE_INLINE void hard_elements(hard_formula *formula, const formula_parameters *parameters, int power,
                               int wants_derivative, int uses_base_weight, real factor, const stretch *on) {
#ifdef HAS_VECTORS
  if (run_negatives(formula, parameters, power, wants_derivative, factor, on)) return;
#endif
  if (wants_derivative)
    hard_body(formula, parameters, power, 1, uses_base_weight, factor, on);
  else
    hard_body(formula, parameters, power, 0, uses_base_weight, factor, on);
}

/** The formulas of a loss, each a constant: `hard`, its `end` and `soft`, or `label` and scored_negative. */
typedef struct formulas {
  hard_formula *hard;
  end_formula *end; /* hard, from terms */
  soft_formula *soft;
  label_formula *label;
} formulas;

/** The terms of x for a target of 1, and of -x for one of 0: without a second exponential. The compiler does not see
 *  that the logit with a chosen sign has the same one. */
TARE_INLINE terms terms_of_end(real x, int is_1) {
  const terms of_x = terms_of(x);
  const real negative_x = x < 0 ? -x : (real)0;
  terms end;
  end.p = is_1 ? of_x.p : of_x.q;
  end.q = is_1 ? of_x.q : of_x.p;
  end.log1p_e = of_x.log1p_e;
  end.positive_z = is_1 ? of_x.positive_z : negative_x;
  end.l = of_x.log1p_e + (is_1 ? negative_x : of_x.positive_z);
  return end;
}

TARE_INLINE void soft_body(formulas of, const formula_parameters *parameters, int power, int uses_base_weight,
                           real factor, const stretch *on) {
  const formula_parameters p = *parameters;
  const real *x = on->x, *weight = on->weight, *base_weight = on->base_weight;
  const real *restrict target = on->target;
  real *restrict loss = on->loss, *derivative = on->derivative;
  const int32_t n = whole_units(on->n);
#pragma omp simd
  for (int32_t i = 0; i < n; i++) { /* hot: sigmoid soft */
    const real w = weight[i], base = uses_base_weight ? base_weight[i] : w, t = target[i];
    const int counts = (w != 0) | (base != 0), is_1 = t == 1, is_end = (t == 0) | is_1;
    const pair end = of.end(terms_of_end(x[i], is_1), w, base, &p, power);
    const pair between = of.soft(x[i], t, w, base, &p, power);
    const real value = is_end ? end.loss : between.loss;
    const real scaled = (is_end ? end.derivative : between.derivative) * factor;
    const real by_x = is_1 ? 0 - scaled : scaled; /* as of a label, the sign of 0 too */
    loss[i] = counts ? value : (real)0;
    derivative[i] = counts ? by_x : (real)0;
  }
}

TARE_INLINE void soft_elements(formulas of, const formula_parameters *parameters, int power, int uses_base_weight,
                               real factor, const stretch *on) {
#ifdef HAS_VECTORS
  if (run_dense(of.soft, parameters, power, factor, on)) return;
#endif
  soft_body(of, parameters, power, uses_base_weight, factor, on);
}

/** Targets above 0, and also those of 0 unless `keeps` says that they have their values already. */
TARE_INLINE void label_body(label_formula *formula, const formula_parameters *parameters, int power, int keeps,
                            real factor, const stretch *on) {
  const formula_parameters p = *parameters;
  const real *x = on->x, *weight = on->weight;
  const real *restrict target = on->target;
  real *restrict loss = on->loss, *restrict derivative = on->derivative;
  const int32_t n = whole_units(on->n);
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
    soft_elements(of, &task->parameters, power, uses_base_weight, factor, on);
  else
    hard_elements(of.hard, &task->parameters, power, task->wants_derivative, uses_base_weight, factor, on);
}

/* What the alpha column of losses.def makes of a loss. */
#define FORMULAS_OF(formula) \
  (formulas) { .hard = formula, .end = formula##_of_terms, .soft = formula##_soft }
#define LOOP_WHOLE(formula) element_loop(FORMULAS_OF(formula), power, WHOLE, task, factor, on)
#define LOOP_PART(formula) element_loop(FORMULAS_OF(formula), power, PART, task, factor, on)
#define LOOP_APART(formula) element_loop((formulas){.label = formula##_label}, power, WHOLE, task, factor, on)
#define LOOP_NEGATIVES(formula) LOOP_APART(formula)
#define LOOP_SHAPED(formula) (void)0 /* see loops_of_shape */

/** The loops of all losses for one power, a constant; of a loss without powers only for TARE_POWER_0. Of losses whose
 *  labels have a formula of their own: the loop over labels. */
TARE_INLINE void loops_of_power(int power, const element_task *task, real factor, const stretch *on) {
  switch (task->kind) {
#define CASE_SIGMOID(kind, formula, powers, alpha)                         \
  case TARE_LOSS_##kind:                                                   \
    if ((powers) == GAMMA || power == TARE_POWER_0) LOOP_##alpha(formula); \
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
#undef FORMULAS_OF
#undef LOOP_WHOLE
#undef LOOP_PART
#undef LOOP_APART
#undef LOOP_NEGATIVES
#undef LOOP_SHAPED
  }
}

/* Each power has a function of its own, and so has each shape below. Loops that share a function keep their constants
 * on the stack and copy them inside the loop: 4 to 15 % more instructions. */

static void loops_of_power_0(const element_task *task, real factor, const stretch *on) {
  loops_of_power(TARE_POWER_0, task, factor, on);
}
#ifndef TARE_SMALLEST
static void loops_of_power_2(const element_task *task, real factor, const stretch *on) {
  loops_of_power(TARE_POWER_2, task, factor, on);
}
#endif

#ifdef TARE_SMALL

/* Where size counts more than speed, all other powers share a function, whose loops choose for each element. */

static void loops_of_any_power(const element_task *task, real factor, const stretch *on) {
  loops_of_power(task->power, task, factor, on);
}

TARE_INLINE element_loops *loops_for(int32_t power) {
#ifdef TARE_SMALLEST
  return power == TARE_POWER_0 ? loops_of_power_0 : loops_of_any_power;
#else
  return power == TARE_POWER_0 ? loops_of_power_0 : power == TARE_POWER_2 ? loops_of_power_2 : loops_of_any_power;
#endif
}

#else

static void loops_of_power_1(const element_task *task, real factor, const stretch *on) {
  loops_of_power(TARE_POWER_1, task, factor, on);
}
static void loops_of_power_half(const element_task *task, real factor, const stretch *on) {
  loops_of_power(TARE_POWER_HALF, task, factor, on);
}
static void loops_of_power_3_halves(const element_task *task, real factor, const stretch *on) {
  loops_of_power(TARE_POWER_3_HALVES, task, factor, on);
}
static void loops_of_general_power(const element_task *task, real factor, const stretch *on) {
  loops_of_power(TARE_POWER_GENERAL, task, factor, on);
}

static element_loops *const loops_by_power[] = {
    [TARE_POWER_0] = loops_of_power_0,
    [TARE_POWER_1] = loops_of_power_1,
    [TARE_POWER_2] = loops_of_power_2,
    [TARE_POWER_HALF] = loops_of_power_half,
    [TARE_POWER_3_HALVES] = loops_of_power_3_halves,
    [TARE_POWER_GENERAL] = loops_of_general_power,
};
_Static_assert(sizeof loops_by_power / sizeof *loops_by_power == TARE_POWER_COUNT, "a power has no loops");

TARE_INLINE element_loops *loops_for(int32_t power) { return loops_by_power[power]; }

#endif

/** The negatives of every loss whose labels have a formula of their own; `power` is a constant. */
TARE_INLINE void negatives_of_power(int power, const element_task *task, real factor, const stretch *on) {
  const int wants_derivative = task->wants_derivative || task->is_soft;
  hard_elements(scored_negative, &task->parameters, power, wants_derivative, WHOLE, factor, on);
}

static void scored_negatives(const element_task *task, real factor, const stretch *on) {
  switch (task->power) {
    case TARE_POWER_0:
      negatives_of_power(TARE_POWER_0, task, factor, on);
      break;
    case TARE_POWER_2:
      negatives_of_power(TARE_POWER_2, task, factor, on);
      break;
#ifdef TARE_SMALL
    default:
      negatives_of_power(task->power, task, factor, on);
#else
    case TARE_POWER_1:
      negatives_of_power(TARE_POWER_1, task, factor, on);
      break;
    case TARE_POWER_HALF:
      negatives_of_power(TARE_POWER_HALF, task, factor, on);
      break;
    case TARE_POWER_3_HALVES:
      negatives_of_power(TARE_POWER_3_HALVES, task, factor, on);
      break;
    default:
      negatives_of_power(TARE_POWER_GENERAL, task, factor, on);
#endif
  }
}

/** Elements of a loss with a shape, a constant. */
TARE_INLINE void loops_of_shape(int shape, const element_task *task, real factor, const stretch *on) {
  const formula_parameters *p = &task->parameters;
  if (!task->is_soft && !task->wants_derivative)
    hard_body(shaped_negative, p, shape, 0, WHOLE, factor, on);
  else if (!task->is_soft || task->has_negatives)
    hard_body(shaped_negative, p, shape, 1, WHOLE, factor, on);
  if (task->is_soft) label_body(shaped_label, p, shape, task->has_negatives, factor, on);
}

static void loops_of_smoothed(const element_task *task, real factor, const stretch *on) {
  loops_of_shape(TARE_SHAPE_SMOOTHED, task, factor, on);
}
static void loops_of_smoothed_all(const element_task *task, real factor, const stretch *on) {
  loops_of_shape(TARE_SHAPE_SMOOTHED_ALL, task, factor, on);
}
static void loops_of_two_gammas(const element_task *task, real factor, const stretch *on) {
  loops_of_shape(TARE_SHAPE_TWO_GAMMAS, task, factor, on);
}
static void loops_of_margin(const element_task *task, real factor, const stretch *on) {
  loops_of_shape(TARE_SHAPE_MARGIN, task, factor, on);
}
static void loops_of_reduced(const element_task *task, real factor, const stretch *on) {
  loops_of_shape(TARE_SHAPE_REDUCED, task, factor, on);
}
static void loops_of_star(const element_task *task, real factor, const stretch *on) {
  loops_of_shape(TARE_SHAPE_STAR, task, factor, on);
}

static element_loops *const loops_by_shape[] = {
    [TARE_SHAPE_SMOOTHED] = loops_of_smoothed,     [TARE_SHAPE_SMOOTHED_ALL] = loops_of_smoothed_all,
    [TARE_SHAPE_TWO_GAMMAS] = loops_of_two_gammas, [TARE_SHAPE_MARGIN] = loops_of_margin,
    [TARE_SHAPE_REDUCED] = loops_of_reduced,       [TARE_SHAPE_STAR] = loops_of_star,
};
_Static_assert(sizeof loops_by_shape / sizeof *loops_by_shape == TARE_SHAPE_COUNT, "a shape has no loops");

#include "sigmoid_columns.h"

/* Cross-entropy whose terms have weights of their own: `weight` that of a target of 1, `base_weight` that of 0. */

/** With dense targets or scores; or, if `is_fixed`, with one target, `fixed`, whose distance to 1 is `rest`. */
TARE_INLINE void terms_body(int is_fixed, real fixed, real rest, real factor, const stretch *on) {
  const real *x = on->x, *weight = on->weight, *base_weight = on->base_weight;
  const real *restrict target = on->target;
  real *restrict loss = on->loss, *derivative = on->derivative;
  const int32_t n = whole_units(on->n);
#pragma omp simd
  for (int32_t i = 0; i < n; i++) { /* hot: sigmoid terms */
    const real t = is_fixed ? fixed : target[i];
    const real of_1 = weight[i] * t, of_0 = base_weight[i] * (is_fixed ? rest : (real)1 - t);
    const pair value = ce_of_terms(x[i], of_1, of_0);
    const int counts = (of_1 != 0) | (of_0 != 0);
    const real scaled = value.derivative * factor, mirrored = -scaled;
    loss[i] = counts ? value.loss : (real)0;
    derivative[i] = counts ? (t == 1 ? 0 - mirrored : scaled) : (real)0; /* as of a label, the sign of 0 too */
  }
}

/** Negatives of labels have the weight of 0 alone, unless their targets are smoothed. */
static void loops_of_terms(const element_task *task, real factor, const stretch *on) {
  const real smoothed = task->parameters.smoothed, unsmoothed = task->parameters.unsmoothed;
  if (task->shape != TARE_SHAPE_NONE)
    terms_body(1, task->is_soft ? unsmoothed : smoothed, task->is_soft ? smoothed : unsmoothed, factor, on);
  else if (task->is_soft)
    terms_body(0, 0, 0, factor, on);
  else
    loops_of_power_0(task, factor, on);
}

/** Whether a loss has powers in losses.def: gamma may also be a parameter of its negatives alone. */
static int has_powers(int32_t kind) {
  switch (kind) {
#define TARE_LOSS(kind, formula, name, family, powers, ...) \
  case TARE_LOSS_##kind:                                    \
    return (powers) == GAMMA;
#include "losses/losses.def"
#undef TARE_LOSS
  }
  return 0;
}

/** Chooses the loops of a task whose other members are set. */
static void choose_loops(const tare_problem *problem, element_task *task) {
  if (problem->gamma_per_class)
    task->loops = loops_of_columns;
  else if (problem->weighs_terms)
    task->loops = loops_of_terms;
  else if (task->shape != TARE_SHAPE_NONE)
    task->loops = loops_by_shape[task->shape];
  else
    task->loops = loops_for(has_powers(task->kind) ? task->power : TARE_POWER_0);
  task->labels_apart = problem->labels_apart && task->shape == TARE_SHAPE_NONE;
  task->is_shaped = task->shape != TARE_SHAPE_NONE && task->loops == loops_by_shape[task->shape];
}

#ifndef TARE_SMALL
#include "some_elements.h"
#endif

/** Evaluates whole units of elements by the task's loss. */
static void evaluate_elements(const element_task *task, real factor, const stretch *on) {
  if (task->labels_apart && (!task->is_soft || task->has_negatives)) scored_negatives(task, factor, on);
  if (task->labels_apart && !task->is_soft) return;
#ifndef TARE_SMALL
  if (task->labels_apart || task->is_shaped)
    evaluate_some(task, factor, on);
  else
#endif
    task->loops(task, factor, on);
}
