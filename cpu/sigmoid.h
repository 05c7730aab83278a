/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sigmoid family: element by element.
 *
 * A block of up to TARE_BLOCK elements is brought into first-level cache, worked on there by loops that the compiler
 * vectorises, and taken out again, so types, strides and phases of the caller's arrays concern only the two transfers
 * (one read and one write of memory an element). All elements are computed as negatives, by their signed logit
 * z = -x; the few of the labels are gathered, done once more by their target, and put in their places: with the sign of x
 * turned where the target is 1 and its formula the mirror of a negative's, else as dense targets are.
 * Where the caller's elements are plain `real`, one behind the other, they are read and written where they are.
 */

/** Loops run on whole units of elements. */
enum { UNIT = 16 };

/** Elements worked on side by side. x and slope may be the same array. */
typedef struct stretch {
  int32_t n;
  const real *x;
  real *weight, *plain_weight, *loss, *slope;
  const real *target; /* read where elements have targets of their own */
} stretch;

/** What to compute of a tile's elements. */
typedef struct element_task {
  int32_t kind, power;
  int is_soft, wants_slope;
  formula_parameters parameters;
} element_task;

typedef pair hard_formula(real, real, real, const formula_parameters *, int);
typedef pair soft_formula(real, real, real, real, const formula_parameters *, int);

TARE_INLINE void hard_body(hard_formula *formula, const formula_parameters *parameters, int power, int wants_slope,
                           int uses_plain, real factor, const stretch *on) {
  const formula_parameters p = *parameters;
  const real *x = on->x, *weight = on->weight, *plain_weight = on->plain_weight;
  real *restrict loss = on->loss, *slope = on->slope;
  const int32_t n = on->n;
#pragma omp simd
  for (int32_t i = 0; i < n; i++) { /* hot: sigmoid hard */
    const real w = weight[i], plain = uses_plain ? plain_weight[i] : w;
    const pair value = formula(-x[i], w, plain, &p, power);
    const int counts = (w != 0) | (plain != 0);
    loss[i] = counts ? value.loss : (real)0;
    if (wants_slope) slope[i] = counts ? value.slope * factor : (real)0;
  }
}

/** The formulas of a loss, each a constant. `positive` is `negative` where that is its mirror. */
typedef struct formulas {
  hard_formula *negative, *positive;
  soft_formula *soft;
} formulas;

/** A target of 0 or 1. */
TARE_INLINE pair at_end(formulas of, int is_one, real x, real w, real plain, const formula_parameters *p, int power) {
  if (of.negative == of.positive) return of.negative(is_one ? x : -x, w, plain, p, power);
  const pair one = of.positive(x, w, plain, p, power), zero = of.negative(-x, w, plain, p, power);
  return make_pair(is_one ? one.loss : zero.loss, is_one ? one.slope : zero.slope);
}

TARE_INLINE void soft_body(formulas of, const formula_parameters *parameters, int power, int uses_plain, real factor,
                           const stretch *on) {
  const formula_parameters p = *parameters;
  const real *x = on->x, *weight = on->weight, *plain_weight = on->plain_weight;
  const real *restrict target = on->target;
  real *restrict loss = on->loss, *slope = on->slope;
  const int32_t n = on->n;
#pragma omp simd
  for (int32_t i = 0; i < n; i++) { /* hot: sigmoid soft */
    const real w = weight[i], plain = uses_plain ? plain_weight[i] : w, t = target[i];
    const pair hard = at_end(of, t == 1, x[i], w, plain, &p, power);
    const pair between = of.soft(x[i], t, w, plain, &p, power);
    const int counts = (w != 0) | (plain != 0), is_end = (t == 0) | (t == 1);
    const real value = is_end ? hard.loss : between.loss;
    const real derivative = (is_end ? hard.slope : between.slope) * factor;
    const real by_x = t == 1 ? 0 - derivative : derivative; /* as of a label, the sign of 0 too */
    loss[i] = counts ? value : (real)0;
    slope[i] = counts ? by_x : (real)0;
  }
}

/** Labels or dense targets, with or without a gradient; `power` and `uses_plain` are constants. */
TARE_INLINE void element_loop(formulas of, int power, int uses_plain, const element_task *task, real factor,
                              const stretch *on) {
  if (task->is_soft)
    soft_body(of, &task->parameters, power, uses_plain, factor, on);
  else if (task->wants_slope)
    hard_body(of.negative, &task->parameters, power, 1, uses_plain, factor, on);
  else
    hard_body(of.negative, &task->parameters, power, 0, uses_plain, factor, on);
}

/** The same, by the instance for a power; `has_powers` is a constant. */
TARE_INLINE void element_loops(formulas of, int has_powers, int uses_plain, const element_task *task, real factor,
                               const stretch *on) {
  switch (has_powers ? task->power : TARE_POWER_0) {
    case TARE_POWER_0:
      element_loop(of, TARE_POWER_0, uses_plain, task, factor, on);
      break;
    case TARE_POWER_1:
      element_loop(of, TARE_POWER_1, uses_plain, task, factor, on);
      break;
    case TARE_POWER_2:
      element_loop(of, TARE_POWER_2, uses_plain, task, factor, on);
      break;
    case TARE_POWER_HALF:
      element_loop(of, TARE_POWER_HALF, uses_plain, task, factor, on);
      break;
    case TARE_POWER_3_HALVES:
      element_loop(of, TARE_POWER_3_HALVES, uses_plain, task, factor, on);
      break;
    default:
      element_loop(of, TARE_POWER_GENERAL, uses_plain, task, factor, on);
  }
}

/** Evaluates whole units of elements by the task's loss. */
static void evaluate_elements(const element_task *task, real factor, const stretch *on) {
  switch (task->kind) {
#define CASE_SIGMOID(kind, formula, powers, alpha)                                                           \
  case TARE_LOSS_##kind:                                                                                     \
    element_loops((formulas){formula, formula##_positive, formula##_soft}, powers, alpha, task, factor, on); \
    break;
#define CASE_SOFTMAX(kind, formula, powers, alpha)
#define CASE_REGRESSION(kind, formula, powers, alpha)
#define TARE_LOSS(kind, formula, name, shape, powers, alpha, passes, member, takes) \
  CASE_##shape(kind, formula, powers, alpha)
#include "losses/losses.def"
#undef TARE_LOSS
#undef CASE_SIGMOID
#undef CASE_SOFTMAX
#undef CASE_REGRESSION
  }
}

/** A rectangle of rows and classes of a tile, packed line after line: lines are classes where `by_class`, else rows. */
typedef struct block {
  int32_t first_row, rows, classes, by_class;
  int64_t first_class;
  int32_t lines, length, n;
} block;

static int64_t block_offset(const tare_tile *tile, const block *b, int name) {
  const tare_array *array = &tile->view->array[name];
  return tile->offset[name] + b->first_row * array->stride[TARE_AXES - 1] + b->first_class * array->cls;
}

static void load_block(const tare_tile *tile, const block *b, int name, int32_t dtype, real *to) {
  const tare_array *array = &tile->view->array[name];
  const int64_t row = array->stride[TARE_AXES - 1];
  load_lines(dtype, array->data, block_offset(tile, b, name), b->by_class ? array->cls : row,
             b->by_class ? row : array->cls, b->lines, b->length, to);
}

static void store_block(const tare_tile *tile, const block *b, int name, int32_t dtype, const real *from) {
  const tare_array *array = &tile->view->array[name];
  const int64_t row = array->stride[TARE_AXES - 1];
  store_lines(dtype, array->data, block_offset(tile, b, name), b->by_class ? array->cls : row,
              b->by_class ? row : array->cls, b->lines, b->length, from);
}

/** What spread does, for lines of a few elements: looking at each would cost more than writing it. */
static void spread_short(const block *b, const real *of_row, const real *of_class, int has_plain, real_scratch *s) {
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
static void spread(const block *b, const real *of_row, const real *of_class, int has_plain, real_scratch *s) {
  const real *of_line = b->by_class ? of_class : of_row, *along = b->by_class ? of_row : of_class;
  if (b->length < UNIT) {
    spread_short(b, of_row, of_class, has_plain, s);
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
static real positive_weight(const tare_problem *problem, int64_t c) {
  return problem->batch.positive_weights ? (real)problem->batch.positive_weights[c] : (real)1;
}

static real alpha(const tare_problem *problem, int64_t c, int positive) {
  if (!problem->alpha_per_class && problem->alpha < 0) return 1;
  if (problem->labels_apart) return positive ? (real)1 : (real)problem->alpha;
  const double alpha = problem->alpha_per_class ? problem->alpha_per_class[c] : problem->alpha;
  return (real)(positive ? alpha : 1.0 - alpha);
}

/** What a dense target makes of a weight that is at_0 at t = 0 and at_1 at t = 1: exactly these there. Nothing cancels. */
TARE_INLINE real weight_between(real t, real at_0, real at_1) {
  const real mixed = multiply_add(t, at_1, ((real)1 - t) * at_0);
  return t == 0 ? at_0 : t == 1 ? at_1 : mixed;
}

static int has_plain_weights(const tare_problem *problem) { return problem->alpha_is_part || problem->soft; }

/* A weight is row x alpha x element x positive weight, the plain one row x element x positive weight, in this order for
 * labels and dense targets alike. */

/** What a tile's rows and, where classes are alike, its classes weigh. */
static void weigh_lines(const tare_problem *problem, const tare_tile *tile, const tare_tile_rows *rows,
                        real_scratch *s) {
  const real of_class = problem->soft ? (real)1 : alpha(problem, 0, 0);
  for (int32_t i = 0; i < tile->rows; i++) s->row_weight[i] = (real)rows->weight[i];
  for (int32_t c = 0; c < TARE_BLOCK; c++) s->class_weight[c] = of_class;
  s->spread_lines = s->spread_length = 0;
  s->spread_class = 0;
}

static int64_t weighted_rows(const real_scratch *s, int32_t rows) {
  int32_t weighted = 0;
  for (int32_t i = 0; i < rows; i++) weighted += s->row_weight[i] != 0;
  return weighted;
}

static void build_weights(const tare_job *job, const tare_tile *tile, const block *b, real_scratch *s) {
  const tare_problem *problem = job->problem;
  const int has_plain = has_plain_weights(problem);
  for (int32_t c = 0; c < b->classes && problem->alpha_per_class && !problem->soft; c++)
    s->class_weight[c] = alpha(problem, b->first_class + c, 0);
  spread(b, s->row_weight + b->first_row, s->class_weight, has_plain, s);
  if (!tile->view->array[TARE_ELEMENT_WEIGHTS].data) return;
  load_block(tile, b, TARE_ELEMENT_WEIGHTS, TARE_DTYPE_F32, s->loss);
  if (problem->soft) return; /* weigh_soft takes them after alpha */
  for (int32_t i = 0; i < b->n; i++) s->weight[i] *= s->loss[i];
  for (int32_t i = 0; i < b->n && has_plain; i++) s->plain_weight[i] *= s->loss[i];
}

/** One line of weigh_soft: its classes are `step` apart in at_0, at_1 and of_ones, which is 1 or 0. `jumps`: alpha is at_1
 *  wherever the target is above 0. */
TARE_INLINE void weigh_soft_line(int32_t n, int step, int jumps, const real *restrict target,
                                 const real *restrict element, const real *restrict at_0, const real *restrict at_1,
                                 const real *restrict of_ones, real *restrict weight, real *restrict plain) {
#pragma omp simd
  for (int32_t i = 0; i < n; i++) {
    const int32_t c = i * step;
    const real t = target[i], of_element = element ? element[i] : (real)1;
    const real ones = weight_between(t, 1, of_ones[c]);
    const real of_alpha = weight_between(jumps && t > 0 ? (real)1 : t, at_0[c], at_1[c]);
    weight[i] = weight[i] * of_alpha * of_element * ones;
    plain[i] = plain[i] * of_element * ones;
  }
}

/** For dense targets: both weights hold the row's. */
static void weigh_soft(const tare_job *job, const tare_tile *tile, const block *b, real_scratch *s) {
  const tare_problem *problem = job->problem;
  const int has_elements = tile->view->array[TARE_ELEMENT_WEIGHTS].data != NULL;
  const int by_class = problem->alpha_per_class || problem->alpha >= 0 || problem->batch.positive_weights;
  const int jumps = problem->labels_apart;
  if (!has_elements && !by_class) return;
  for (int32_t c = 0; c < b->classes; c++) {
    s->at_0[c] = alpha(problem, b->first_class + c, 0);
    s->at_1[c] = alpha(problem, b->first_class + c, 1);
    s->of_ones[c] = positive_weight(problem, b->first_class + c);
  }
  for (int32_t line = 0; line < b->lines; line++) {
    const ptrdiff_t at = (ptrdiff_t)line * b->length;
    const real *element = has_elements ? s->loss + at : NULL;
    if (b->by_class)
      weigh_soft_line(b->length, 0, jumps, s->target + at, element, s->at_0 + line, s->at_1 + line, s->of_ones + line,
                      s->weight + at, s->plain_weight + at);
    else
      weigh_soft_line(b->length, 1, jumps, s->target + at, element, s->at_0, s->at_1, s->of_ones, s->weight + at,
                      s->plain_weight + at);
  }
}

/** Gathers the labels' elements with weights of their own; returns how many. They have targets of their own where the
 *  task of labels wants them, else the sign of x is turned. */
static int32_t pick_positives(const tare_job *job, const tare_tile *tile, const block *b, const real *x,
                              const element_task *of_labels, tare_scratch *scratch, real_scratch *s) {
  const tare_tile_rows *rows = &scratch->rows;
  const int has_elements = tile->view->array[TARE_ELEMENT_WEIGHTS].data != NULL;
  int32_t picked = 0;
  for (int32_t p = 0; p < rows->positives && !job->problem->soft; p++) {
    const int32_t i = rows->positive[p] - b->first_row;
    const int64_t c = rows->cls[rows->positive[p]] - b->first_class;
    if (i < 0 || i >= b->rows || c < 0 || c >= b->classes) continue;
    const int32_t at = (int32_t)(b->by_class ? c * b->length + i : i * (int64_t)b->length + c);
    const real of_row = s->row_weight[rows->positive[p]], of_ones = positive_weight(job->problem, b->first_class + c);
    const real of_element = has_elements ? s->loss[at] : (real)1; /* where build_weights left them */
    const real score = s->score[rows->positive[p]];
    const int has_alpha_of_1 = score > 0 || !job->problem->labels_apart;
    s->picked_x[picked] = of_labels->is_soft ? x[at] : -x[at];
    s->picked_target[picked] = score;
    s->picked_weight[picked] = of_row * alpha(job->problem, b->first_class + c, has_alpha_of_1) * of_element * of_ones;
    s->picked_plain[picked] = of_row * of_element * of_ones;
    scratch->picked_at[picked++] = at;
  }
  for (int32_t k = picked; k < TARE_BLOCK && k % CHUNK; k++)
    s->picked_x[k] = s->picked_target[k] = s->picked_weight[k] = s->picked_plain[k] = 0;
  return picked;
}

/** Finds the elements whose target lies between 0 and 1, and their gradient norms; returns how many. */
static int32_t find_soft_norms(const stretch *on, const real *target, tare_scratch *scratch) {
  tare_soft_norms *soft = &scratch->soft_norms;
  int32_t n = 0;
  for (int32_t i = 0; i < on->n; i++) {
    if (target[i] == 0 || target[i] == 1) continue;
    soft->x[n] = (double)on->x[i];
    soft->target[n] = (double)target[i];
    soft->at[n++] = i;
  }
  if (n) scratch->in_double->find_soft_norms(n, soft->x, soft->target, soft->norm);
  return n;
}

/** The signed logit of each element in double; of a target between 0 and 1 the one whose g is the same. */
static void double_keys(const tare_job *job, const stretch *on, const real *target, tare_scratch *scratch) {
  const tare_soft_norms *soft = &scratch->soft_norms;
  for (int32_t i = 0; i < on->n; i++) {
    const double x = (double)on->x[i];
    scratch->key[i] = job->problem->soft && target[i] == 1 ? -x : x;
  }
  const int32_t n = job->problem->soft ? find_soft_norms(on, target, scratch) : 0;
  for (int32_t k = 0; k < n; k++) scratch->key[soft->at[k]] = log(soft->norm[k] / (1 - soft->norm[k]));
}

/** The bins of elements with dense targets. */
static void find_soft_bins(const tare_bins *bins, const stretch *on, const real *target, tare_scratch *scratch) {
  const tare_soft_norms *soft = &scratch->soft_norms;
  for (int32_t i = 0; i < on->n; i++) {
    if (target[i] != 0 && target[i] != 1) continue;
    const double key = (double)(target[i] == 0 ? on->x[i] : -on->x[i]);
    scratch->bin[i] = tare_bin_by_bisection(bins->lower_f64, bins->count, key);
  }
  const int32_t n = find_soft_norms(on, target, scratch);
  for (int32_t k = 0; k < n; k++)
    scratch->bin[soft->at[k]] = tare_bin_by_bisection(bins->norm_f64, bins->count, soft->norm[k]);
}

/** Weight x 1/GD of each element. */
static void weigh_by_density(const tare_job *job, const stretch *on, const real *target, tare_scratch *scratch,
                             real *out) {
  const tare_bins *bins = job->bins;
  if (job->density == TARE_DENSITY_BINS && !job->problem->soft) {
    weigh_by_bins(bins, on->x, on->weight, on->n, scratch->bin, out);
  } else if (job->density == TARE_DENSITY_BINS) {
    find_soft_bins(bins, on, target, scratch);
    for (int32_t i = 0; i < on->n; i++) out[i] = weight_by(on->weight[i], weight_of(bins)[scratch->bin[i]]);
  } else {
    double_keys(job, on, target, scratch);
    tare_weigh_keys(job, on->n, scratch->key, scratch->place, scratch->inverse_density);
    for (int32_t i = 0; i < on->n; i++) out[i] = weight_by(on->weight[i], (real)scratch->inverse_density[i]);
  }
}

static void count_keys(const tare_job *job, const stretch *on, const real *target, tare_scratch *scratch) {
  if (!job->problem->soft) {
    count_bins(job->bins, on->x, on->weight, on->n, scratch);
    return;
  }
  find_soft_bins(job->bins, on, target, scratch);
  for (int32_t i = 0; i < on->n; i++) scratch->histogram[0][scratch->bin[i]] += on->weight[i] != 0;
}

static void collect_keys(const tare_job *job, const stretch *on, const real *target, tare_scratch *scratch) {
  tare_collected_keys *keys = job->collected;
  double_keys(job, on, target, scratch);
  for (int32_t i = 0; i < on->n; i++)
    if (on->weight[i] != 0) keys->key[keys->count++] = tare_key_or_least(scratch->key[i], -(double)INFINITY);
}

static double sum(const real *restrict x, int32_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int32_t i = 0; i < n; i++) sum += (double)x[i]; /* hot: sum (any) */
  return sum;
}

static void add_row_losses(const block *b, const real_scratch *s, double *row_loss) {
  for (int32_t line = 0; line < b->lines; line++) {
    const real *loss = s->loss + (ptrdiff_t)line * b->length;
    if (b->by_class)
      for (int32_t i = 0; i < b->length; i++) row_loss[b->first_row + i] += (double)loss[i];
    else
      row_loss[b->first_row + line] += sum(loss, b->length);
  }
}

/** The elements of a block at the caller's, where they are plain `real` one behind the other and can be worked on in
 *  place; NULL where they have to be brought together. */
static real *in_place(const tare_job *job, const tare_tile *tile, const block *b, int name) {
  const tare_array *array = &tile->view->array[name];
  const int64_t row = array->stride[TARE_AXES - 1], along = b->by_class ? row : array->cls;
  const int64_t line = b->by_class ? array->cls : row;
  if (job->problem->batch.dtype != REAL_DTYPE || along != 1 || (b->lines > 1 && line != b->length)) return NULL;
  return (real *)array->data + block_offset(tile, b, name);
}

/** The elements of a block with target 0, or with soft targets: in place, or brought together with what they weigh. */
static stretch stretch_of(const tare_job *job, const tare_tile *tile, const block *b, int32_t clamps_targets,
                          real_scratch *s) {
  const tare_problem *problem = job->problem;
  stretch on = {b->n, s->x, s->weight, s->plain_weight, s->loss, s->slope, s->target};
  const int has_gradient = job->pass == TARE_PASS_EVALUATE && tile->view->array[TARE_GRADIENT].data != NULL;
  const real *x = problem->soft ? NULL : in_place(job, tile, b, TARE_LOGITS);
  real *slope = x && has_gradient ? in_place(job, tile, b, TARE_GRADIENT) : NULL;
  build_weights(job, tile, b, s);
  for (int32_t i = b->n; i < whole_chunks(b->n); i++) s->x[i] = s->target[i] = s->weight[i] = s->plain_weight[i] = 0;
  if (x && (slope || !has_gradient)) {
    on.x = x;
    if (slope) on.slope = slope;
    return on;
  }
  load_block(tile, b, TARE_LOGITS, problem->batch.dtype, s->x);
  if (!problem->soft) return on;
  load_block(tile, b, TARE_TARGETS, problem->batch.target_dtype, s->target);
  if (clamps_targets) clamp_targets(s->target, b->n);
  weigh_soft(job, tile, b, s);
  return on;
}

/** What a tile's elements are computed by: most as negatives or by dense targets, those of labels apart. */
typedef struct tile_tasks {
  element_task elements, labels;
} tile_tasks;

/** Runs a loop, and finds 1/GD before, on whole vectors or chunks. */
static void run_whole(const tare_job *job, stretch on, const element_task *task, tare_scratch *scratch) {
  real_scratch *s = real_scratch_of(scratch);
  if (job->density) {
    weigh_by_density(job, &on, on.target, scratch, s->dense_weight);
    on.weight = s->dense_weight;
  }
  evaluate_elements(task, (real)job->gradient.factor, &on);
  rescale(job, on.slope, on.n);
}

/** Runs a loop on any number of elements: scratch is padded; what the caller's leave over goes through scratch. */
static void run(const tare_job *job, stretch on, const element_task *task, tare_scratch *scratch) {
  real_scratch *s = real_scratch_of(scratch);
  const int32_t unit = job->density ? CHUNK : UNIT, n = on.n, whole = n / unit * unit, rest = n - whole;
  if (!rest || on.x == s->x || on.x == s->picked_x) {
    on.n = (n + unit - 1) / unit * unit;
    run_whole(job, on, task, scratch);
    return;
  }
  on.n = whole;
  run_whole(job, on, task, scratch);
  memcpy(s->x, on.x + whole, (size_t)rest * sizeof *s->x);
  for (int32_t i = rest; i < unit; i++) s->x[i] = 0;
  const stretch tail = {unit, s->x, on.weight + whole, on.plain_weight + whole, on.loss + whole, s->slope, s->target};
  run_whole(job, tail, task, scratch);
  if (on.slope != s->slope) memcpy(on.slope + whole, s->slope, (size_t)rest * sizeof *s->slope);
}

static void evaluate_block(const tare_job *job, const tare_tile *tile, const block *b, const stretch *on,
                           const stretch *positives, const tile_tasks *tasks, tare_scratch *scratch,
                           tare_group_result *result) {
  real_scratch *s = real_scratch_of(scratch);
  const tare_view *view = tile->view;
  run(job, *on, &tasks->elements, scratch);
  if (positives->n) run(job, *positives, &tasks->labels, scratch);
  for (int32_t k = 0; k < positives->n; k++) {
    on->loss[scratch->picked_at[k]] = positives->loss[k];
    on->slope[scratch->picked_at[k]] = tasks->labels.is_soft ? positives->slope[k] : 0 - positives->slope[k];
  }
  result->loss += sum(s->loss, (b->n + UNIT - 1) / UNIT * UNIT);
  if (view->array[TARE_ROW_LOSS].data) add_row_losses(b, s, scratch->row_loss);
  if (view->array[TARE_ELEMENT_LOSS].data)
    store_block(tile, b, TARE_ELEMENT_LOSS,
                job->problem->batch.dtype == TARE_DTYPE_F64 ? TARE_DTYPE_F64 : TARE_DTYPE_F32, s->loss);
  if (view->array[TARE_GRADIENT].data && on->slope == s->slope)
    store_block(tile, b, TARE_GRADIENT, job->problem->batch.dtype, s->slope);
}

static void sigmoid_block(const tare_job *job, const tare_tile *tile, const block *b, const tile_tasks *tasks,
                          tare_scratch *scratch, tare_group_result *result) {
  real_scratch *s = real_scratch_of(scratch);
  const stretch on = stretch_of(job, tile, b, scratch->clamps_targets, s);
  const int32_t picked = pick_positives(job, tile, b, on.x, &tasks->labels, scratch, s);
  const stretch positives = {picked,         s->picked_x,     s->picked_weight, s->picked_plain,
                             s->picked_loss, s->picked_slope, s->picked_target};
  if (job->pass == TARE_PASS_EVALUATE) {
    evaluate_block(job, tile, b, &on, &positives, tasks, scratch, result);
  } else {
    void (*take)(const tare_job *, const stretch *, const real *, tare_scratch *) =
        job->pass == TARE_PASS_COLLECT ? collect_keys : count_keys;
    for (int32_t k = 0; k < picked; k++) s->weight[scratch->picked_at[k]] = 0;
    take(job, &on, s->target, scratch);
    if (picked) take(job, &positives, NULL, scratch);
    for (int32_t k = 0; k < picked; k++) s->weight[scratch->picked_at[k]] = s->picked_weight[k]; /* GHM: no alpha */
  }
  if (job->problem->soft || tile->view->array[TARE_ELEMENT_WEIGHTS].data) s->spread_lines = 0;
}

static block next_block(const tare_tile *tile, int64_t classes, int by_class, int32_t row, int64_t cls) {
  block b = {.first_row = row, .first_class = cls, .by_class = by_class};
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

static void sigmoid_tile(const tare_job *job, const tare_tile *tile, tare_scratch *scratch, tare_group_result *result) {
  const tare_problem *problem = job->problem;
  const int64_t classes = problem->batch.classes;
  const element_task task = {.kind = problem->loss.kind,
                             .power = problem->power,
                             .is_soft = problem->soft,
                             .wants_slope = tile->view->array[TARE_GRADIENT].data != NULL,
                             .parameters = parameters_of(problem)};
  tile_tasks tasks = {task, task};
  const int by_class = tare_view_by_class(tile->view, classes);
  if (!look_at_rows(job, tile, scratch, result)) return;
  tasks.labels.is_soft |= problem->labels_apart || tile->view->array[TARE_SCORES].data;
  weigh_lines(problem, tile, &scratch->rows, real_scratch_of(scratch));
  if (job->pass == TARE_PASS_HISTOGRAM && !problem->soft)
    scratch->histogram[0][0] +=
        classes * weighted_rows(real_scratch_of(scratch), tile->rows); /* count_bins moves them */
  for (int32_t i = 0; i < tile->rows; i++) scratch->row_loss[i] = 0;
  for (int32_t row = 0; row < tile->rows;) {
    block b = {0};
    for (int64_t cls = 0; cls < classes; cls += b.classes) {
      b = next_block(tile, classes, by_class, row, cls);
      sigmoid_block(job, tile, &b, &tasks, scratch, result);
    }
    row += b.rows;
  }
  if (job->pass == TARE_PASS_EVALUATE) store_row_loss(problem, tile, scratch->row_loss);
}
