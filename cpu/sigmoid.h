/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sigmoid family: element by element. A template in `real`.
 *
 * A block of up to TARE_BLOCK elements is brought into first-level cache, worked on there by loops that the compiler
 * vectorises, and taken out again, so types, strides and phases of the caller's arrays concern only the two transfers
 * (one read and one write of memory an element). All elements are computed as negatives, by their signed logit
 * z = -x; the few whose target is 1 are gathered, done once more with the sign of x turned, and put in their places.
 * Where the caller's elements are plain `real`, one behind the other, they are read and written where they are.
 */

/** Loops run on whole units of elements. */
enum { F(UNIT) = 16 };

/** Elements worked on side by side. x and slope may be the same array. */
typedef struct F(stretch) {
  int32_t n;
  const real *x;
  real *weight, *plain_weight, *loss, *slope;
} F(stretch);

typedef void F(sigmoid_loop)(const F(formula_parameters) * parameters, real factor, const F(stretch) * on,
                             const real *target);

#define HARD_LOOP(function, formula, power, wants_slope, uses_plain)                                    \
  static void F(function)(const F(formula_parameters) * parameters, real factor, const F(stretch) * on, \
                          const real *target) {                                                         \
    (void)target;                                                                                       \
    F(hard_body)(F(formula), parameters, power, wants_slope, uses_plain, factor, on);                   \
  }
#define SOFT_LOOP(function, formula, power, uses_plain)                                                 \
  static void F(function)(const F(formula_parameters) * parameters, real factor, const F(stretch) * on, \
                          const real *target) {                                                         \
    F(soft_body)(F(formula), F(formula##_soft), parameters, power, uses_plain, factor, on, target);     \
  }

typedef F(pair) F(hard_formula)(real, real, real, const F(formula_parameters) *, int);
typedef F(pair) F(soft_formula)(real, real, real, real, const F(formula_parameters) *, int);

TARE_INLINE void F(hard_body)(F(hard_formula) * formula, const F(formula_parameters) * parameters, int power,
                              int wants_slope, int uses_plain, real factor, const F(stretch) * on) {
  const F(formula_parameters) p = *parameters;
  const real *x = on->x, *weight = on->weight, *plain_weight = on->plain_weight;
  real *restrict loss = on->loss, *slope = on->slope;
  const int32_t n = on->n;
#pragma omp simd
  for (int32_t i = 0; i < n; i++) { /* hot: sigmoid hard */
    const real w = weight[i], plain = uses_plain ? plain_weight[i] : w;
    const F(pair) value = formula(-x[i], w, plain, &p, power);
    const int counts = (w != 0) | (plain != 0);
    loss[i] = counts ? value.loss : (real)0;
    if (wants_slope) slope[i] = counts ? value.slope * factor : (real)0;
  }
}

TARE_INLINE void F(soft_body)(F(hard_formula) * hard, F(soft_formula) * soft, const F(formula_parameters) * parameters,
                              int power, int uses_plain, real factor, const F(stretch) * on,
                              const real *restrict target) {
  const F(formula_parameters) p = *parameters;
  const real *x = on->x, *weight = on->weight, *plain_weight = on->plain_weight;
  real *restrict loss = on->loss, *slope = on->slope;
  const int32_t n = on->n;
#pragma omp simd
  for (int32_t i = 0; i < n; i++) { /* hot: sigmoid soft */
    const real w = weight[i], plain = uses_plain ? plain_weight[i] : w, t = target[i];
    const F(pair) at_end = hard(t == 1 ? x[i] : -x[i], w, plain, &p, power);
    const F(pair) between = soft(x[i], t, w, plain, &p, power);
    const int counts = (w != 0) | (plain != 0), is_end = (t == 0) | (t == 1);
    const real value = is_end ? at_end.loss : between.loss;
    const real derivative = (is_end ? at_end.slope : between.slope) * factor;
    const real by_x = t == 1 ? 0 - derivative : derivative; /* as of a label, the sign of 0 too */
    loss[i] = counts ? value : (real)0;
    slope[i] = counts ? by_x : (real)0;
  }
}

/* One instance for each loss of the list, each power it has, with and without a gradient. */
#define DEFINE_POWER(kind, formula, power, uses_plain)                         \
  HARD_LOOP(kind##_##power##_loss, formula, TARE_POWER_##power, 0, uses_plain) \
  HARD_LOOP(kind##_##power##_both, formula, TARE_POWER_##power, 1, uses_plain) \
  SOFT_LOOP(kind##_##power##_soft, formula, TARE_POWER_##power, uses_plain)
#define DEFINE_PLAIN(kind, formula, alpha) DEFINE_POWER(kind, formula, 0, ALPHA_##alpha)
#define DEFINE_GAMMA(kind, formula, alpha)         \
  DEFINE_POWER(kind, formula, 0, ALPHA_##alpha)    \
  DEFINE_POWER(kind, formula, 1, ALPHA_##alpha)    \
  DEFINE_POWER(kind, formula, 2, ALPHA_##alpha)    \
  DEFINE_POWER(kind, formula, HALF, ALPHA_##alpha) \
  DEFINE_POWER(kind, formula, 3_HALVES, ALPHA_##alpha) DEFINE_POWER(kind, formula, GENERAL, ALPHA_##alpha)
#define ALPHA_WHOLE 0
#define ALPHA_PART 1
#define DEFINE_SIGMOID(kind, formula, powers, alpha) DEFINE_##powers(kind, formula, alpha)
#define DEFINE_SOFTMAX(kind, formula, powers, alpha)
#define DEFINE_REGRESSION(kind, formula, powers, alpha)
#define TARE_LOSS(kind, formula, name, shape, powers, alpha, passes, member, takes) \
  DEFINE_##shape(kind, formula, powers, alpha)
#include "losses/losses.def"
#undef TARE_LOSS

#define LOOPS_OF(kind, power) \
  { F(kind##_##power##_loss), F(kind##_##power##_both), F(kind##_##power##_soft) }
#define SELECT_PLAIN(kind) static F(sigmoid_loop) *const loops[1][3] = {LOOPS_OF(kind, 0)}
#define SELECT_GAMMA(kind)                                                                                    \
  static F(sigmoid_loop) *const loops[TARE_POWER_COUNT][3] = {LOOPS_OF(kind, 0),        LOOPS_OF(kind, 1),    \
                                                              LOOPS_OF(kind, 2),        LOOPS_OF(kind, HALF), \
                                                              LOOPS_OF(kind, 3_HALVES), LOOPS_OF(kind, GENERAL)}
#define SELECT_SIGMOID(kind, powers) \
  case TARE_LOSS_##kind: {           \
    SELECT_##powers(kind);           \
    return loops[power][which];      \
  }
#define SELECT_SOFTMAX(kind, powers)
#define SELECT_REGRESSION(kind, powers)

/** The instance for a loss: which = 0 loss alone, 1 loss and slope, 2 soft targets. */
static F(sigmoid_loop) * F(select_sigmoid)(int32_t kind, int32_t power, int which) {
  switch (kind) {
#define TARE_LOSS(kind, formula, name, shape, powers, alpha, passes, member, takes) SELECT_##shape(kind, powers)
#include "losses/losses.def"
#undef TARE_LOSS
  }
  return NULL;
}

/** A rectangle of rows and classes of a tile, packed line after line: lines are classes where `by_class`, else rows. */
typedef struct F(block) {
  int32_t first_row, rows, classes, by_class;
  int64_t first_class;
  int32_t lines, length, n;
} F(block);

static int64_t F(block_offset)(const tare_tile *tile, const F(block) * b, int name) {
  const tare_array *array = &tile->view->array[name];
  return tile->offset[name] + b->first_row * array->stride[TARE_AXES - 1] + b->first_class * array->cls;
}

static void F(load_block)(const tare_tile *tile, const F(block) * b, int name, int32_t dtype, real *to) {
  const tare_array *array = &tile->view->array[name];
  const int64_t row = array->stride[TARE_AXES - 1];
  F(load_lines)
  (dtype, array->data, F(block_offset)(tile, b, name), b->by_class ? array->cls : row, b->by_class ? row : array->cls,
   b->lines, b->length, to);
}

static void F(store_block)(const tare_tile *tile, const F(block) * b, int name, int32_t dtype, const real *from) {
  const tare_array *array = &tile->view->array[name];
  const int64_t row = array->stride[TARE_AXES - 1];
  F(store_lines)
  (dtype, array->data, F(block_offset)(tile, b, name), b->by_class ? array->cls : row, b->by_class ? row : array->cls,
   b->lines, b->length, from);
}

/** What spread does, for lines of a few elements: looking at each would cost more than writing it. */
static void F(spread_short)(const F(block) * b, const real *of_row, const real *of_class, int has_plain,
                            F(scratch) * s) {
  const real *restrict of_line = b->by_class ? of_class : of_row, *restrict along = b->by_class ? of_row : of_class;
  real *restrict weight = s->weight, *restrict plain = s->plain_weight;
  const int32_t length = b->length;
  for (int32_t i = 0; i < length; i++) {
    for (int32_t line = 0; line < b->lines; line++) weight[line * length + i] = of_line[line] * along[i];
    for (int32_t line = 0; has_plain && line < b->lines; line++)
      plain[line * length + i] = b->by_class ? along[i] : of_line[line];
  }
  s->spread_lines = 0;
}

/** weight = row factor x class factor, and plain weight = row factor where the problem has those. Lines that hold what
 *  they should already, as most do in a tile, are left alone. */
static void F(spread)(const F(block) * b, const real *of_row, const real *of_class, int has_plain, F(scratch) * s) {
  const real *of_line = b->by_class ? of_class : of_row, *along = b->by_class ? of_row : of_class;
  if (b->length < F(UNIT)) {
    F(spread_short)(b, of_row, of_class, has_plain, s);
    return;
  }
  if (s->spread_length != b->length || s->spread_class != (b->by_class ? 0 : b->first_class)) s->spread_lines = 0;
  for (int32_t line = 0; line < b->lines; line++) {
    const real factor = of_line[line];
    if (line < s->spread_lines && s->of_line[line] == factor) continue;
    real *restrict to = s->weight + (ptrdiff_t)line * b->length;
    s->of_line[line] = factor;
#pragma omp simd
    for (int32_t i = 0; i < b->length; i++) to[i] = factor * along[i]; /* hot: spread weights (any) */
    if (!has_plain) continue;
    to = s->plain_weight + (ptrdiff_t)line * b->length;
    for (int32_t i = 0; i < b->length; i++) to[i] = b->by_class ? along[i] : factor;
  }
  s->spread_lines = b->lines;
  s->spread_length = b->length;
  s->spread_class = b->by_class ? 0 : b->first_class;
}

/** Weight of a target of 1 or 0 in class c, without and with alpha. */
static real F(positive_weight)(const tare_problem *problem, int64_t c) {
  return problem->batch.positive_weights ? (real)problem->batch.positive_weights[c] : (real)1;
}

static real F(alpha)(const tare_problem *problem, int64_t c, int positive) {
  if (!problem->alpha_per_class && problem->alpha < 0) return 1;
  const double alpha = problem->alpha_per_class ? problem->alpha_per_class[c] : problem->alpha;
  return (real)(positive ? alpha : 1.0 - alpha);
}

/** What a dense target makes of a weight that is at_0 at t = 0 and at_1 at t = 1: exactly these there. Nothing cancels. */
TARE_INLINE real F(weight_between)(real t, real at_0, real at_1) {
  const real mixed = F(multiply_add)(t, at_1, ((real)1 - t) * at_0);
  return t == 0 ? at_0 : t == 1 ? at_1 : mixed;
}

static int F(has_plain_weights)(const tare_problem *problem) { return problem->alpha_is_part || problem->soft; }

/* A weight is row x alpha x element x positive weight, the plain one row x element x positive weight, in this order for
 * labels and dense targets alike. */

/** What a tile's rows and, where classes are alike, its classes weigh. */
static void F(weigh_lines)(const tare_problem *problem, const tare_tile *tile, const tare_tile_rows *rows,
                           F(scratch) * s) {
  const real of_class = problem->soft ? (real)1 : F(alpha)(problem, 0, 0);
  for (int32_t i = 0; i < tile->rows; i++) s->row_weight[i] = (real)rows->weight[i];
  for (int32_t c = 0; c < TARE_BLOCK; c++) s->class_weight[c] = of_class;
  s->spread_lines = s->spread_length = 0;
  s->spread_class = 0;
}

static int64_t F(weighted_rows)(const F(scratch) * s, int32_t rows) {
  int32_t weighted = 0;
  for (int32_t i = 0; i < rows; i++) weighted += s->row_weight[i] != 0;
  return weighted;
}

static void F(build_weights)(const tare_job *job, const tare_tile *tile, const F(block) * b, F(scratch) * s) {
  const tare_problem *problem = job->problem;
  const int has_plain = F(has_plain_weights)(problem);
  for (int32_t c = 0; c < b->classes && problem->alpha_per_class && !problem->soft; c++)
    s->class_weight[c] = F(alpha)(problem, b->first_class + c, 0);
  F(spread)(b, s->row_weight + b->first_row, s->class_weight, has_plain, s);
  if (!tile->view->array[TARE_ELEMENT_WEIGHTS].data) return;
  F(load_block)(tile, b, TARE_ELEMENT_WEIGHTS, TARE_DTYPE_F32, s->loss);
  if (problem->soft) return; /* weigh_soft takes them after alpha */
  for (int32_t i = 0; i < b->n; i++) s->weight[i] *= s->loss[i];
  for (int32_t i = 0; i < b->n && has_plain; i++) s->plain_weight[i] *= s->loss[i];
}

/** One line of weigh_soft: its classes are `step` apart in at_0, at_1 and of_ones, which is 1 or 0. */
TARE_INLINE void F(weigh_soft_line)(int32_t n, int step, const real *restrict target, const real *restrict element,
                                    const real *restrict at_0, const real *restrict at_1, const real *restrict of_ones,
                                    real *restrict weight, real *restrict plain) {
#pragma omp simd
  for (int32_t i = 0; i < n; i++) {
    const int32_t c = i * step;
    const real t = target[i], of_element = element ? element[i] : (real)1;
    const real ones = F(weight_between)(t, 1, of_ones[c]);
    weight[i] = weight[i] * F(weight_between)(t, at_0[c], at_1[c]) * of_element * ones;
    plain[i] = plain[i] * of_element * ones;
  }
}

/** For dense targets: both weights hold the row's. */
static void F(weigh_soft)(const tare_job *job, const tare_tile *tile, const F(block) * b, F(scratch) * s) {
  const tare_problem *problem = job->problem;
  const int has_elements = tile->view->array[TARE_ELEMENT_WEIGHTS].data != NULL;
  const int by_class = problem->alpha_per_class || problem->alpha >= 0 || problem->batch.positive_weights;
  if (!has_elements && !by_class) return;
  for (int32_t c = 0; c < b->classes; c++) {
    s->at_0[c] = F(alpha)(problem, b->first_class + c, 0);
    s->at_1[c] = F(alpha)(problem, b->first_class + c, 1);
    s->of_ones[c] = F(positive_weight)(problem, b->first_class + c);
  }
  for (int32_t line = 0; line < b->lines; line++) {
    const ptrdiff_t at = (ptrdiff_t)line * b->length;
    const real *element = has_elements ? s->loss + at : NULL;
    if (b->by_class) F(weigh_soft_line)
    (b->length, 0, s->target + at, element, s->at_0 + line, s->at_1 + line, s->of_ones + line, s->weight + at,
     s->plain_weight + at);
    else F(weigh_soft_line)(b->length, 1, s->target + at, element, s->at_0, s->at_1, s->of_ones, s->weight + at,
                            s->plain_weight + at);
  }
}

/** Gathers the elements whose target is 1, with the sign of x turned and weights of their own; returns how many. */
static int32_t F(pick_positives)(const tare_job *job, const tare_tile *tile, const F(block) * b, const real *x,
                                 tare_scratch *scratch, F(scratch) * s) {
  const tare_tile_rows *rows = &scratch->rows;
  const int has_elements = tile->view->array[TARE_ELEMENT_WEIGHTS].data != NULL;
  int32_t picked = 0;
  for (int32_t p = 0; p < rows->positives && !job->problem->soft; p++) {
    const int32_t i = rows->positive[p] - b->first_row;
    const int64_t c = rows->cls[rows->positive[p]] - b->first_class;
    if (i < 0 || i >= b->rows || c < 0 || c >= b->classes) continue;
    const int32_t at = (int32_t)(b->by_class ? c * b->length + i : i * (int64_t)b->length + c);
    const real of_row = s->row_weight[rows->positive[p]],
               of_ones = F(positive_weight)(job->problem, b->first_class + c);
    const real of_element = has_elements ? s->loss[at] : (real)1; /* where build_weights left them */
    s->picked_x[picked] = -x[at];
    s->picked_weight[picked] = of_row * F(alpha)(job->problem, b->first_class + c, 1) * of_element * of_ones;
    s->picked_plain[picked] = of_row * of_element * of_ones;
    scratch->picked_at[picked++] = at;
  }
  for (int32_t k = picked; k < TARE_BLOCK && k % F(CHUNK); k++)
    s->picked_x[k] = s->picked_weight[k] = s->picked_plain[k] = 0;
  return picked;
}

/** g of a target between 0 and 1. */
static double F(soft_norm)(real x, real target) {
  const double difference = terms_of_f64((double)x).p - (double)target;
  return difference < 0 ? -difference : difference;
}

/** The signed logit of each element in double; of a target between 0 and 1 the one whose g is the same. */
static void F(double_keys)(const tare_job *job, const F(stretch) * on, const real *target, double *key) {
  for (int32_t i = 0; i < on->n; i++) {
    const double x = (double)on->x[i];
    const real t = job->problem->soft ? target[i] : (real)0;
    const double g = t == 0 || t == 1 ? 0 : F(soft_norm)(on->x[i], t);
    key[i] = t == 0 ? x : t == 1 ? -x : log(g / (1 - g));
  }
}

/** The bin of an element with a dense target. */
static int32_t F(dense_bin)(const tare_bins *bins, real x, real target) {
  if (target == 0 || target == 1)
    return tare_bin_by_bisection(bins->lower_f64, bins->count, (double)(target == 0 ? x : -x));
  return tare_bin_by_bisection(bins->norm_f64, bins->count, F(soft_norm)(x, target));
}

/** Weight x 1/GD of each element. */
static void F(weigh_by_density)(const tare_job *job, const F(stretch) * on, const real *target, tare_scratch *scratch,
                                real *out) {
  const tare_bins *bins = job->bins;
  if (job->density == TARE_DENSITY_BINS && !job->problem->soft) {
    F(weigh_by_bins)(bins, on->x, on->weight, on->n, scratch->bin, out);
  } else if (job->density == TARE_DENSITY_BINS) {
    for (int32_t i = 0; i < on->n; i++)
      out[i] = F(weight_by)(on->weight[i], bins->F(weight)[F(dense_bin)(bins, on->x[i], target[i])]);
  } else {
    F(double_keys)(job, on, target, scratch->key);
    tare_weigh_keys(job, on->n, scratch->key, scratch->place, scratch->inverse_density);
    for (int32_t i = 0; i < on->n; i++) out[i] = F(weight_by)(on->weight[i], (real)scratch->inverse_density[i]);
  }
}

static void F(count_keys)(const tare_job *job, const F(stretch) * on, const real *target, tare_scratch *scratch) {
  if (!job->problem->soft) {
    F(count_bins)(job->bins, on->x, on->weight, on->n, scratch);
    return;
  }
  for (int32_t i = 0; i < on->n; i++)
    scratch->histogram[0][F(dense_bin)(job->bins, on->x[i], target[i])] += on->weight[i] != 0;
}

static void F(collect_keys)(const tare_job *job, const F(stretch) * on, const real *target, tare_scratch *scratch) {
  tare_job *writable = (tare_job *)(uintptr_t)job; /* this pass runs on one thread and counts its keys in the job */
  F(double_keys)(job, on, target, scratch->key);
  for (int32_t i = 0; i < on->n; i++)
    if (on->weight[i] != 0)
      job->collected_key[writable->key_count++] = tare_key_or_least(scratch->key[i], -(double)INFINITY);
}

static double F(sum)(const real *restrict x, int32_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int32_t i = 0; i < n; i++) sum += (double)x[i]; /* hot: sum (any) */
  return sum;
}

static void F(add_row_losses)(const F(block) * b, const F(scratch) * s, double *row_loss) {
  for (int32_t line = 0; line < b->lines; line++) {
    const real *loss = s->loss + (ptrdiff_t)line * b->length;
    if (b->by_class)
      for (int32_t i = 0; i < b->length; i++) row_loss[b->first_row + i] += (double)loss[i];
    else
      row_loss[b->first_row + line] += F(sum)(loss, b->length);
  }
}

/** The elements of a block at the caller's, where they are plain `real` one behind the other and can be worked on in
 *  place; NULL where they have to be brought together. */
static real *F(in_place)(const tare_job *job, const tare_tile *tile, const F(block) * b, int name) {
  const tare_array *array = &tile->view->array[name];
  const int64_t row = array->stride[TARE_AXES - 1], along = b->by_class ? row : array->cls;
  const int64_t line = b->by_class ? array->cls : row;
  if (job->problem->batch.dtype != REAL_DTYPE || along != 1 || (b->lines > 1 && line != b->length)) return NULL;
  return (real *)(uintptr_t)array->data + F(block_offset)(tile, b, name);
}

/** The elements of a block with target 0, or with soft targets: in place, or brought together with what they weigh. */
static F(stretch) F(stretch_of)(const tare_job *job, const tare_tile *tile, const F(block) * b, int32_t clamps_targets,
                                F(scratch) * s) {
  const tare_problem *problem = job->problem;
  F(stretch) on = {b->n, s->x, s->weight, s->plain_weight, s->loss, s->slope};
  const int has_gradient = job->pass == TARE_PASS_EVALUATE && tile->view->array[TARE_GRADIENT].data != NULL;
  const real *x = problem->soft ? NULL : F(in_place)(job, tile, b, TARE_LOGITS);
  real *slope = x && has_gradient ? F(in_place)(job, tile, b, TARE_GRADIENT) : NULL;
  F(build_weights)(job, tile, b, s);
  for (int32_t i = b->n; i < F(whole_chunks)(b->n); i++) s->x[i] = s->target[i] = s->weight[i] = s->plain_weight[i] = 0;
  if (x && (slope || !has_gradient)) {
    on.x = x;
    if (slope) on.slope = slope;
    return on;
  }
  F(load_block)(tile, b, TARE_LOGITS, problem->batch.dtype, s->x);
  if (!problem->soft) return on;
  F(load_block)(tile, b, TARE_TARGETS, problem->batch.target_dtype, s->target);
  if (clamps_targets) F(clamp_targets)(s->target, b->n);
  F(weigh_soft)(job, tile, b, s);
  return on;
}

/** Runs a loop, and finds 1/GD before, on whole vectors or chunks. */
static void F(run_whole)(const tare_job *job, F(stretch) on, F(sigmoid_loop) * loop,
                         const F(formula_parameters) * parameters, tare_scratch *scratch) {
  F(scratch) *s = &scratch->F_MEMBER;
  if (job->density) {
    F(weigh_by_density)(job, &on, s->target, scratch, s->dense_weight);
    on.weight = s->dense_weight;
  }
  loop(parameters, (real)job->gradient.factor, &on, s->target);
  F(rescale)(job, on.slope, on.n);
}

/** Runs a loop on any number of elements: scratch is padded; what the caller's leave over goes through scratch. */
static void F(run)(const tare_job *job, F(stretch) on, F(sigmoid_loop) * loop, const F(formula_parameters) * parameters,
                   tare_scratch *scratch) {
  F(scratch) *s = &scratch->F_MEMBER;
  const int32_t unit = job->density ? F(CHUNK) : F(UNIT), n = on.n, whole = n / unit * unit, rest = n - whole;
  if (!rest || on.x == s->x || on.x == s->picked_x) {
    on.n = (n + unit - 1) / unit * unit;
    F(run_whole)(job, on, loop, parameters, scratch);
    return;
  }
  on.n = whole;
  F(run_whole)(job, on, loop, parameters, scratch);
  memcpy(s->x, on.x + whole, (size_t)rest * sizeof *s->x);
  for (int32_t i = rest; i < unit; i++) s->x[i] = 0;
  const F(stretch) tail = {unit, s->x, on.weight + whole, on.plain_weight + whole, on.loss + whole, s->slope};
  F(run_whole)(job, tail, loop, parameters, scratch);
  if (on.slope != s->slope) memcpy(on.slope + whole, s->slope, (size_t)rest * sizeof *s->slope);
}

static void F(evaluate_block)(const tare_job *job, const tare_tile *tile, const F(block) * b, const F(stretch) * on,
                              const F(stretch) * positives, F(sigmoid_loop) * loop,
                              const F(formula_parameters) * parameters, tare_scratch *scratch,
                              tare_group_result *result) {
  F(scratch) *s = &scratch->F_MEMBER;
  const tare_view *view = tile->view;
  F(run)(job, *on, loop, parameters, scratch);
  if (positives->n) F(run)(job, *positives, loop, parameters, scratch);
  for (int32_t k = 0; k < positives->n; k++) {
    on->loss[scratch->picked_at[k]] = positives->loss[k];
    on->slope[scratch->picked_at[k]] = 0 - positives->slope[k];
  }
  result->loss += F(sum)(s->loss, (b->n + F(UNIT) - 1) / F(UNIT) * F(UNIT));
  if (view->array[TARE_ROW_LOSS].data) F(add_row_losses)(b, s, scratch->row_loss);
  if (view->array[TARE_ELEMENT_LOSS].data)
    F(store_block)
    (tile, b, TARE_ELEMENT_LOSS, job->problem->batch.dtype == TARE_DTYPE_F64 ? TARE_DTYPE_F64 : TARE_DTYPE_F32,
     s->loss);
  if (view->array[TARE_GRADIENT].data && on->slope == s->slope)
    F(store_block)(tile, b, TARE_GRADIENT, job->problem->batch.dtype, s->slope);
}

static void F(sigmoid_block)(const tare_job *job, const tare_tile *tile, const F(block) * b, F(sigmoid_loop) * loop,
                             const F(formula_parameters) * parameters, tare_scratch *scratch,
                             tare_group_result *result) {
  F(scratch) *s = &scratch->F_MEMBER;
  const F(stretch) on = F(stretch_of)(job, tile, b, scratch->clamps_targets, s);
  const int32_t picked = F(pick_positives)(job, tile, b, on.x, scratch, s);
  const F(stretch)
      positives = {picked, s->picked_x, s->picked_weight, s->picked_plain, s->picked_loss, s->picked_slope};
  if (job->pass == TARE_PASS_EVALUATE) {
    F(evaluate_block)(job, tile, b, &on, &positives, loop, parameters, scratch, result);
  } else {
    void (*take)(const tare_job *, const F(stretch) *, const real *, tare_scratch *) =
        job->pass == TARE_PASS_COLLECT ? F(collect_keys) : F(count_keys);
    for (int32_t k = 0; k < picked; k++) s->weight[scratch->picked_at[k]] = 0;
    take(job, &on, s->target, scratch);
    if (picked) take(job, &positives, NULL, scratch);
    for (int32_t k = 0; k < picked; k++) s->weight[scratch->picked_at[k]] = s->picked_weight[k]; /* GHM: no alpha */
  }
  if (job->problem->soft || tile->view->array[TARE_ELEMENT_WEIGHTS].data) s->spread_lines = 0;
}

static F(formula_parameters) F(parameters_of)(const tare_problem *problem) {
  F(formula_parameters) p;
  p.gamma_hi = (real)problem->gamma;
  p.gamma_lo = (real)(problem->gamma - (double)p.gamma_hi);
  p.epsilon = (real)problem->poly_epsilon;
  return p;
}

static F(block) F(next_block)(const tare_tile *tile, int64_t classes, int by_class, int32_t row, int64_t cls) {
  F(block) b = {.first_row = row, .first_class = cls, .by_class = by_class};
  if (by_class) {
    const int64_t fit = TARE_BLOCK / tile->rows, left = classes - cls;
    b.rows = b.length = tile->rows;
    b.classes = b.lines = (int32_t)(left < fit ? left : fit);
  } else {
    const int64_t span = classes - cls < TARE_BLOCK ? classes - cls : TARE_BLOCK;
    const int64_t fit = span == classes ? TARE_BLOCK / classes : 1, left = tile->rows - row;
    b.classes = b.length = (int32_t)span;
    b.rows = b.lines = (int32_t)(left < fit ? left : fit);
  }
  b.n = b.lines * b.length;
  return b;
}

static void F(sigmoid_tile)(const tare_job *job, const tare_tile *tile, tare_scratch *scratch,
                            tare_group_result *result) {
  const tare_problem *problem = job->problem;
  const int64_t classes = problem->batch.classes;
  const tare_array *row_loss = &tile->view->array[TARE_ROW_LOSS];
  const F(formula_parameters) parameters = F(parameters_of)(problem);
  const int which = problem->soft ? 2 : tile->view->array[TARE_GRADIENT].data != NULL;
  F(sigmoid_loop) *loop = F(select_sigmoid)(problem->loss.kind, problem->power, which);
  const int by_class = tare_view_by_class(tile->view, classes);
  if (!F(look_at_rows)(job, tile, scratch, result)) return;
  F(weigh_lines)(problem, tile, &scratch->rows, &scratch->F_MEMBER);
  if (job->pass == TARE_PASS_HISTOGRAM && !problem->soft)
    scratch->histogram[0][0] += classes * F(weighted_rows)(&scratch->F_MEMBER, tile->rows); /* count_bins moves them */
  for (int32_t i = 0; i < tile->rows; i++) scratch->row_loss[i] = 0;
  for (int32_t row = 0; row < tile->rows;) {
    F(block) b = {0};
    for (int64_t cls = 0; cls < classes; cls += b.classes) {
      b = F(next_block)(tile, classes, by_class, row, cls);
      F(sigmoid_block)(job, tile, &b, loop, &parameters, scratch, result);
    }
    row += b.rows;
  }
  if (job->pass == TARE_PASS_EVALUATE && row_loss->data)
    store_f64(problem->batch.dtype == TARE_DTYPE_F64 ? TARE_DTYPE_F64 : TARE_DTYPE_F32, row_loss->data,
              tile->offset[TARE_ROW_LOSS], row_loss->stride[TARE_AXES - 1], tile->rows, scratch->row_loss);
}

#undef HARD_LOOP
#undef SOFT_LOOP
#undef DEFINE_POWER
#undef ALPHA_WHOLE
#undef ALPHA_PART
#undef DEFINE_PLAIN
#undef DEFINE_GAMMA
#undef DEFINE_SIGMOID
#undef DEFINE_SOFTMAX
#undef DEFINE_REGRESSION
#undef LOOPS_OF
#undef SELECT_PLAIN
#undef SELECT_GAMMA
#undef SELECT_SIGMOID
#undef SELECT_SOFTMAX
#undef SELECT_REGRESSION
