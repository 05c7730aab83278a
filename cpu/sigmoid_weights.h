/* SPDX-License-Identifier: Apache-2.0 */
/* The weights of the elements of a block. */

/** As spread, for lines of a few elements, where a check of each line would cost more than writing it. */
static void spread_short(const block *b, const real *of_row, const real *of_class, int has_plain, real_scratch *s) {
  const real *restrict of_line = b->by_class ? of_class : of_row, *restrict along = b->by_class ? of_row : of_class;
  real *restrict weight = s->weight, *restrict base = s->base_weight;
  const int32_t length = b->length;
  for (int32_t i = 0; i < length; i++) {
    for (int32_t line = 0; line < b->lines; line++) weight[line * length + i] = of_line[line] * along[i];
    for (int32_t line = 0; has_plain && line < b->lines; line++)
      base[line * length + i] = b->by_class ? along[i] : of_line[line];
  }
  s->spread_lines = 0;
}

/** weight = row factor x class factor, and base weight = row factor where the problem has those. Lines that hold what
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
    to = s->base_weight + (ptrdiff_t)line * b->length;
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

static real negative_weight(const tare_problem *problem, int64_t c) {
  return problem->batch.negative_weights ? (real)problem->batch.negative_weights[c] : (real)1;
}

static real alpha(const tare_problem *problem, int64_t c, int positive) {
  if (!problem->alpha_per_class && problem->alpha < 0) return 1;
  if (problem->alpha_of_negatives) return positive ? (real)1 : (real)problem->alpha;
  if (!problem->alpha_per_class) return (real)(positive ? problem->alpha : problem->alpha_of_0);
  const double alpha = problem->alpha_per_class[c];
  return (real)(positive ? alpha : 1.0 - alpha);
}

/** The weight at a dense target: exactly at_0 at t = 0 and at_1 at t = 1, between them linear. Nothing cancels. The
 *  choices are made before: after it, the compiler would load the weights under conditions, which SSE2 cannot. */
TARE_INLINE real weight_between(real t, real at_0, real at_1) {
  const real of_1 = t == 0 ? (real)0 : at_1, of_0 = t == 1 ? (real)0 : at_0;
  return multiply_add(t, of_1, ((real)1 - t) * of_0);
}

static int has_plain_weights(const tare_problem *problem) { return problem->alpha_is_part || problem->soft; }

/* A weight is row x alpha x element x positive weight, the base one row x element x positive weight, in this order for
 * labels and dense targets alike. */

/** The weights of a tile's rows and, if all classes have the same weights, of its classes. */
static void weigh_lines(const tare_problem *problem, const tare_tile *tile, const tare_tile_rows *rows,
                        real_scratch *s) {
  const real of_class = problem->soft ? (real)1 : alpha(problem, 0, 0);
  for (int32_t i = 0; i < tile->rows; i++) s->row_weight[i] = (real)rows->weight[i];
  for (int32_t c = 0; c < TARE_BLOCK; c++) s->class_weight[c] = of_class;
  s->spread_lines = s->spread_length = 0;
  s->spread_class = 0;
  s->folds_mask = has_mask(tile) && !has_plain_weights(problem) && !problem->weighs_terms && !problem->weighs_apart &&
                  is_factor(tile, s->row_weight);
}

/** Takes the weights of elements whose classes are masked away, where class_weight has not. */
static __attribute__((noinline)) void mask_elements(const tare_problem *problem, const tare_tile *tile, const block *b,
                                                    real_scratch *s) {
  const tare_array *mask = &tile->view->array[TARE_ARRAY_CLASS_MASK];
  const int64_t step = b->by_class ? mask->stride[TARE_AXES - 1] : mask->cls;
  const int has_plain = has_plain_weights(problem) || problem->weighs_terms;
  s->spread_length = 0; /* lines are to be written again */
  for (int32_t line = 0; line < b->lines; line++) {
    real *restrict weight = s->weight + (ptrdiff_t)line * b->length;
    real *restrict base = s->base_weight + (ptrdiff_t)line * b->length;
    const uint8_t *counts = mask_of_row(tile, b->first_row + (b->by_class ? 0 : line)) +
                            (b->first_class + (b->by_class ? line : 0)) * mask->cls;
    for (int32_t i = 0; i < b->length; i++) weight[i] = counts[i * step] ? weight[i] : (real)0;
    for (int32_t i = 0; has_plain && i < b->length; i++) base[i] = counts[i * step] ? base[i] : (real)0;
  }
}

/** The same of the labels' elements. */
static __attribute__((noinline)) void mask_picked(const tare_tile *tile, const block *b, int32_t picked,
                                                  const int32_t *picked_at, real_scratch *s) {
  for (int32_t k = 0; k < picked; k++) {
    const int32_t line = picked_at[k] / b->length, i = picked_at[k] % b->length;
    const int64_t row = b->first_row + (b->by_class ? i : line), cls = b->first_class + (b->by_class ? line : i);
    if (is_masked(tile, row, cls)) s->picked_weight[k] = s->picked_plain[k] = 0;
  }
}

static int64_t weighted_rows(const real_scratch *s, int32_t rows) {
  int32_t weighted = 0;
  for (int32_t i = 0; i < rows; i++) weighted += s->row_weight[i] != 0;
  return weighted;
}

static void build_weights(const tare_job *job, const tare_tile *tile, const block *b, real_scratch *s) {
  const tare_problem *problem = job->problem;
  const int has_plain = has_plain_weights(problem);
  const int by_class = problem->alpha_per_class || problem->batch.negative_weights || s->folds_mask;
  for (int32_t c = 0; c < b->classes && by_class && !problem->soft; c++)
    s->class_weight[c] = alpha(problem, b->first_class + c, 0) * negative_weight(problem, b->first_class + c);
  if (s->folds_mask) mask_classes(tile, b->first_class, b->classes, s->class_weight);
  spread(b, s->row_weight + b->first_row, s->class_weight, has_plain, s);
  if (!tile->view->array[TARE_ARRAY_ELEMENT_WEIGHTS].data) return;
  load_block(tile, b, TARE_ARRAY_ELEMENT_WEIGHTS, TARE_DTYPE_F32, s->loss);
  if (problem->soft) return; /* weigh_soft takes them after alpha */
  for (int32_t i = 0; i < b->n; i++) s->weight[i] *= s->loss[i];
  for (int32_t i = 0; i < b->n && has_plain; i++) s->base_weight[i] *= s->loss[i];
}

/** One line of weigh_soft: its classes are `step` apart in at_0, at_1 and of_ones; `step` is 1 or 0. `jumps`: alpha is
 *  at_1 for targets above 0. `has_peaks`: the positive weight is that of targets of 1 alone. Many parameters:
 *  `restrict` arrays, without which the loop is not vectorised. */
TARE_INLINE void weigh_soft_line(int32_t n, int step, int jumps, int has_peaks, int has_elements,
                                 const real *restrict target, const real *restrict element, const real *restrict at_0,
                                 const real *restrict at_1, const real *restrict of_ones, real *restrict weight,
                                 real *restrict base) {
#pragma omp simd
  for (int32_t i = 0; i < n; i++) {
    const int32_t c = i * step;
    const real t = target[i], of_element = has_elements ? element[i] : (real)1;
    const real ones = weight_between(has_peaks & (t < 1) ? (real)0 : t, 1, of_ones[c]);
    const real of_alpha = weight_between(jumps & (t > 0) ? (real)1 : t, at_0[c], at_1[c]);
    weight[i] = weight[i] * of_alpha * of_element * ones;
    base[i] = base[i] * of_element * ones;
  }
}

/** The lines of a block. The choices are constants: one that is looked up costs two instructions an element. */
TARE_INLINE void weigh_soft_lines(const block *b, int jumps, int has_peaks, int has_elements, real_scratch *s) {
  for (int32_t line = 0; line < b->lines; line++) {
    const ptrdiff_t at = (ptrdiff_t)line * b->length;
    const real *element = s->loss + at; /* never NULL: there a masked load of nothing takes 150 cycles */
    if (b->by_class)
      weigh_soft_line(b->length, 0, jumps, has_peaks, has_elements, s->target + at, element, s->at_0 + line,
                      s->at_1 + line, s->of_ones + line, s->weight + at, s->base_weight + at);
    else
      weigh_soft_line(b->length, 1, jumps, has_peaks, has_elements, s->target + at, element, s->at_0, s->at_1,
                      s->of_ones, s->weight + at, s->base_weight + at);
  }
}

/** Exponents of classes, in the order of the block's elements; 0 behind them. */
static void spread_gamma(const tare_problem *problem, const block *b, real_scratch *s) {
  const float *gamma = problem->gamma_per_class + b->first_class;
  for (int32_t line = 0; line < b->lines; line++)
    for (int32_t i = 0; i < b->length; i++) s->gamma[line * b->length + i] = (real)gamma[b->by_class ? line : i];
  for (int32_t i = b->n; i < whole_chunks(b->n); i++) s->gamma[i] = 0;
}

/** Dense targets with a weight of negatives, which takes the place of 1 at a target of 0. */
static void weigh_soft_columns(const tare_problem *problem, const block *b, int has_elements, real_scratch *s) {
  for (int32_t i = 0; i < b->n; i++) {
    const int64_t c = b->first_class + (b->by_class ? i / b->length : i % b->length);
    const real t = s->target[i], of_element = has_elements ? s->loss[i] : (real)1;
    const real of_alpha = weight_between(t, alpha(problem, c, 0), alpha(problem, c, 1));
    const real of_target = weight_between(t, negative_weight(problem, c), positive_weight(problem, c));
    s->weight[i] = s->weight[i] * of_alpha * of_element * of_target;
  }
}

/** For dense targets: both weights hold the row's. */
static void weigh_soft(const tare_job *job, const tare_tile *tile, const block *b, real_scratch *s) {
  const tare_problem *problem = job->problem;
  const int has_elements = tile->view->array[TARE_ARRAY_ELEMENT_WEIGHTS].data != NULL;
  const int by_class = problem->alpha_per_class || problem->alpha >= 0 || problem->batch.positive_weights;
  const int jumps = problem->alpha_of_negatives, has_peaks = tare_has_peaks(problem);
  if (problem->batch.negative_weights) {
    weigh_soft_columns(problem, b, has_elements, s);
    return;
  }
  if (!has_elements && !by_class) return;
  for (int32_t c = 0; c < b->classes; c++) {
    s->at_0[c] = alpha(problem, b->first_class + c, 0);
    s->at_1[c] = alpha(problem, b->first_class + c, 1);
    s->of_ones[c] = positive_weight(problem, b->first_class + c);
  }
  if (jumps || has_peaks || has_elements) {
    for (int32_t i = 0; i < b->n && !has_elements; i++) s->loss[i] = 1;
    weigh_soft_lines(b, jumps, has_peaks, 1, s);
  } else {
    weigh_soft_lines(b, 0, 0, 0, s);
  }
}
