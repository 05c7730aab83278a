/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dense targets of softmax rows, in the same blocks as labels. A row with all its mass on one class gets that label. A
 * row with several classes keeps TARE_ROW_BACKGROUND: m and S are over all classes, its loss is
 * sum(t)*log S + sum(t_k*(m - x_k)), and its gradient sum(t)*p - t. Both sums are in double. Rows with labels, and rows
 * with targets, may lie in one block.
 */

enum { FEW_CLASSES = 16, SOME_CLASSES = 64, MOST_CLASSES_OF_BLOCKS = 1024 };

/** The lowest class of a row that is computed. */
TARE_INLINE int32_t least_class(const tare_problem *problem) { return problem->soft ? TARE_ROW_BACKGROUND : 0; }

/** Where a block's targets are. */
TARE_INLINE real *targets_of_block(real_scratch *s) { return s->row + TARE_ROW_BUFFER / 2; }

/* Where the mass is. */

/** How many of n targets are not 0, or 2 if more. Most rows have several in their first stretch. */
static int32_t count_some(const real *restrict t, int64_t n) {
  enum { STRETCH = 64 };
  int32_t count = 0;
  for (int64_t first = 0; first < n && count < 2; first += STRETCH) {
    const int64_t end = n - first < STRETCH ? n : first + STRETCH;
#pragma omp simd reduction(+ : count)
    for (int64_t i = first; i < end; i++) count += t[i] != 0; /* hot: targets that are not 0 (any) */
  }
  return count;
}

/** Gives rows whose targets have at most one class that label. The mass becomes a factor of the weight, and 0 skips the
 *  row. */
static void set_labels(int32_t n, const int32_t *restrict count, const int32_t *restrict label,
                       const real *restrict mass, double *restrict weight, int32_t *restrict cls) {
#pragma omp simd
  for (int32_t i = 0; i < n; i++) { /* without vectors in the baseline: a row a turn is little */
    const int32_t is_one = (count[i] < 2) & (cls[i] != TARE_ROW_SKIPPED), before = cls[i];
    const double factor = mass[i], of_row = weight[i];
    weight[i] = is_one ? of_row * factor : of_row;
    cls[i] = is_one ? label[i] : before;
  }
#pragma omp simd
  for (int32_t i = 0; i < n; i++) { /* hot: rows without mass (any) */
    const double of_row = weight[i];
    cls[i] = of_row == 0.0 ? TARE_ROW_SKIPPED : cls[i];
  }
}

static void label_row(const tare_job *job, const tare_tile *tile, int32_t row, tare_scratch *scratch) {
  const tare_array *targets = &tile->view->array[TARE_ARRAY_TARGETS];
  const int64_t classes = job->problem->batch.classes;
  const int64_t from = tile->offset[TARE_ARRAY_TARGETS] + row * targets->stride[TARE_AXES - 1];
  const int is_real = job->problem->batch.target_dtype == REAL_DTYPE && targets->cls == 1;
  real *room = real_scratch_of(scratch)->x, mass = 0;
  int32_t label = -1, count = 0;
  for (int64_t first = 0; first < classes && count < 2; first += TARE_BLOCK) {
    const int64_t n = classes - first < TARE_BLOCK ? classes - first : TARE_BLOCK;
    const real *t = is_real ? (const real *)targets->data + from + first : room;
    if (!is_real)
      load(job->problem->batch.target_dtype, targets->data, from + first * targets->cls, targets->cls, n, room);
    const int32_t some = count_some(t, n);
    count += some;
    for (int64_t i = 0; i < n && some == 1; i++) {
      label = t[i] != 0 ? (int32_t)(first + i) : label;
      mass += t[i];
    }
  }
  set_labels(1, &count, &label, &mass, scratch->rows.weight + row, scratch->rows.cls + row);
}

/** How many rows a block holds class after class. */
static int32_t columns_of_block(int64_t classes) {
  const int64_t wanted = 4096 / classes / 16 * 16;
  return (int32_t)(wanted < 16 ? 16 : wanted > TARE_TILE_ROWS ? TARE_TILE_ROWS : wanted);
}

/** The same of rows side by side. */
static void label_columns(const tare_job *job, const tare_tile *tile, tare_scratch *scratch) {
  const tare_array *targets = &tile->view->array[TARE_ARRAY_TARGETS];
  const int64_t classes = job->problem->batch.classes, row = targets->stride[TARE_AXES - 1];
  int32_t *restrict count = scratch->picked_at, *restrict label = scratch->bin;
  real_scratch *s = real_scratch_of(scratch);
  real *restrict mass = s->x;
  const int32_t fit = columns_of_block(classes);
  for (int32_t first = 0; first < tile->rows; first += fit) {
    const int32_t n = tile->rows - first < fit ? tile->rows - first : fit;
    load_lines(job->problem->batch.target_dtype, targets->data, tile->offset[TARE_ARRAY_TARGETS] + first * row,
               targets->cls, row, classes, n, s->row);
    for (int32_t i = 0; i < n; i++) mass[i] = 0, count[i] = 0, label[i] = -1;
    for (int32_t c = 0; c < classes; c++) {
      const real *restrict t = s->row + (int64_t)c * n;
#pragma omp simd
      for (int32_t i = 0; i < n; i++) { /* hot: column targets that are not 0 (any) */
        const real here = t[i], so_far = mass[i];
        const int32_t is_some = here != 0;
        count[i] += is_some;
        label[i] = is_some ? c : label[i];
        mass[i] = is_some ? here : so_far;
      }
    }
    set_labels(n, count, label, mass, scratch->rows.weight + first, scratch->rows.cls + first);
  }
}

/** Gives the rows of a tile their labels: along memory, or class after class where a row would fill few vectors. */
static void label_by_mass(const tare_job *job, const tare_tile *tile, tare_scratch *scratch) {
  const tare_array *targets = &tile->view->array[TARE_ARRAY_TARGETS];
  const int64_t classes = job->problem->batch.classes;
  const int is_quick = HAS_SQUARES && job->problem->batch.target_dtype == REAL_DTYPE && targets->cls == 1;
  const int by_class = targets->stride[TARE_AXES - 1] == 1 && classes <= MOST_CLASSES_OF_BLOCKS;
  if (by_class || classes < (is_quick ? SOME_CLASSES : FEW_CLASSES)) {
    label_columns(job, tile, scratch);
    return;
  }
  for (int32_t i = 0; i < tile->rows; i++)
    if (scratch->rows.cls[i] != TARE_ROW_SKIPPED) label_row(job, tile, i, scratch);
}

/* What a row's loss and gradient need of its targets. */

typedef struct target_sums {
  double targets, dot;
} target_sums;

/** t*(m - x), where 0 times infinity is 0. The distance may be no real. */
TARE_INLINE double mass_below(real t, real x, real maximum) {
  return (t == 0) | (x == maximum) ? 0.0 : (double)t * ((double)maximum - (double)x);
}

enum { ROW_LANES = 16 };

/** Pairs of them, so that few additions wait for each other. */
static double sum_of_lanes(const double *x) {
  double halves[ROW_LANES / 2], quarters[ROW_LANES / 4], twos[ROW_LANES / 8];
  for (int k = 0; k < ROW_LANES / 2; k++) halves[k] = x[k] + x[k + ROW_LANES / 2];
  for (int k = 0; k < ROW_LANES / 4; k++) quarters[k] = halves[k] + halves[k + ROW_LANES / 4];
  for (int k = 0; k < ROW_LANES / 8; k++) twos[k] = quarters[k] + quarters[k + ROW_LANES / 8];
  return twos[0] + twos[1];
}

/** Of a row whose logits are finite, in whole units: no product needs a choice then. With a reduction in place of lanes
 *  gcc would add the lanes up one after another. */
static target_sums sum_finite(const real *restrict x, const real *restrict t, int64_t n, double maximum) {
  TARE_ALIGNED double targets[ROW_LANES], dot[ROW_LANES];
#pragma omp simd
  for (int k = 0; k < ROW_LANES; k++) { /* gcc reports vectors of such a loop at no line of it */
    double of_targets = 0, of_products = 0;
    int64_t i = 0;
    do {
      of_targets += (double)t[i + k];
      of_products += (double)t[i + k] * (maximum - (double)x[i + k]);
      i += ROW_LANES;
    } while (i < n);
    targets[k] = of_targets;
    dot[k] = of_products;
  }
  return (target_sums){sum_of_lanes(targets), sum_of_lanes(dot)};
}

static __attribute__((noinline)) double sum_products(const real *restrict x, const real *restrict t, int64_t n,
                                                     real maximum) {
  double dot = 0;
#pragma omp simd reduction(+ : dot)
  for (int64_t i = 0; i < n; i++) dot += mass_below(t[i], x[i], maximum); /* hot: softmax targets of any row (any) */
  return dot;
}

/** Sums of n classes of a row before they are exponentiated. Beyond them, logits and targets are 0 up to the end of a
 *  unit. */
static target_sums sum_targets_of(const real *x, const real *t, int64_t n, real maximum) {
  target_sums sums = sum_finite(x, t, n, (double)maximum);
  if (!(sums.dot - sums.dot == 0)) sums.dot = sum_products(x, t, n, maximum);
  return sums;
}

/** Whether a row whose m and S are over all classes has no limit: all logits are -inf, or several +inf. */
TARE_INLINE int has_no_limit(double maximum, double sum) {
  return (maximum < -DBL_MAX) | ((maximum > DBL_MAX) & (sum > 1.5));
}

TARE_INLINE int is_infinite(double x) { return (x == x) & (x - x != 0); }

/** e*of_e, where 0 times infinity is 0. */
TARE_INLINE double part_of_gradient(real e, double of_e, int has_infinity) {
  return has_infinity & (e == 0) ? 0.0 : (double)e * of_e;
}

/** Turns exponentials into the gradient of a row with dense targets: `factor` times the targets less. */
static void form_soft(real *restrict x, const real *restrict t, int64_t n, double of_e, double factor) {
  if (is_infinite(of_e)) {
    for (int64_t i = 0; i < n; i++) x[i] = (real)(part_of_gradient(x[i], of_e, 1) - factor * (double)t[i]);
    return;
  }
#pragma omp simd
  for (int64_t i = 0; i < n; i++) /* hot: softmax soft gradient (any) */
    x[i] = (real)((double)x[i] * of_e - factor * (double)t[i]);
}

/* Blocks. The margin of a row with targets becomes -log S, by a maximum and a label's logit of 0. */

/** Rows one after another: brings the targets of n rows to length `padded`. */
static void load_targets(const tare_job *job, const tare_tile *tile, int32_t first, int32_t n, int64_t padded,
                         tare_scratch *scratch) {
  const tare_array *targets = &tile->view->array[TARE_ARRAY_TARGETS];
  const int64_t classes = job->problem->batch.classes, stride = targets->stride[TARE_AXES - 1];
  const int64_t from = tile->offset[TARE_ARRAY_TARGETS] + first * stride;
  for (int32_t i = 0; i < n; i++) {
    if (scratch->rows.cls[first + i] != TARE_ROW_BACKGROUND) continue;
    real *t = targets_of_block(real_scratch_of(scratch)) + i * padded;
    load(job->problem->batch.target_dtype, targets->data, from + i * stride, targets->cls, classes, t);
  }
}

/** Fills what lies between the classes of n rows and the end of their last unit. */
static void pad_rows(int32_t n, int64_t classes, int64_t padded, real value, real *x) {
  for (int32_t i = 0; i < n; i++)
    for (int64_t c = classes; c < padded; c++) x[i * padded + c] = value;
}

static void add_targets_of_rows(const tare_job *job, int32_t n, const int32_t *label, int64_t padded,
                                tare_scratch *scratch) {
  const int64_t classes = job->problem->batch.classes;
  real_scratch *s = real_scratch_of(scratch);
  real *x = s->row, *t = targets_of_block(s);
  pad_rows(n, classes, padded, 0, x);
  pad_rows(n, classes, padded, 0, t);
  for (int32_t i = 0; i < n; i++) {
    if (label[i] != TARE_ROW_BACKGROUND) continue;
    const target_sums sums = sum_targets_of(x + i * padded, t + i * padded, classes, s->maximum[i]);
    scratch->margins.targets[i] = sums.targets;
    scratch->margins.spread[i] = sums.dot;
  }
  pad_rows(n, classes, padded, (real)-INFINITY, x);
}

/** The same class after class. Sums of rows with a label are not used. */
static void add_targets_of_columns(const tare_job *job, const tare_tile *tile, int32_t first, int32_t n,
                                   tare_scratch *scratch) {
  const tare_array *targets = &tile->view->array[TARE_ARRAY_TARGETS];
  const int64_t classes = job->problem->batch.classes, row = targets->stride[TARE_AXES - 1];
  real_scratch *s = real_scratch_of(scratch);
  const real *restrict maximum = s->maximum;
  double *restrict sum = scratch->margins.targets, *restrict dot = scratch->margins.spread;
  load_lines(job->problem->batch.target_dtype, targets->data, tile->offset[TARE_ARRAY_TARGETS] + first * row,
             targets->cls, row, classes, n, targets_of_block(s));
  for (int32_t i = 0; i < n; i++) sum[i] = dot[i] = 0;
  for (int64_t c = 0; c < classes; c++) {
    const real *restrict x = s->row + c * n, *restrict t = targets_of_block(s) + c * n;
#pragma omp simd
    for (int32_t i = 0; i < n; i++) { /* hot: column targets (any) */
      sum[i] += (double)t[i];
      dot[i] += mass_below(t[i], x[i], maximum[i]);
    }
  }
}

/** Of rows with targets, once their exponentials are added up. */
static void place_targets(int32_t n, const int32_t *restrict label, real_scratch *s, double *restrict sum) {
  real *restrict maximum = s->maximum, *restrict label_x = s->label_x;
#pragma omp simd
  for (int32_t i = 0; i < n; i++) { /* hot: limits of rows with targets (any) */
    const double total = sum[i], without = has_no_limit((double)maximum[i], total) ? (double)NAN : total;
    sum[i] = label[i] == TARE_ROW_BACKGROUND ? without : total;
  }
#pragma omp simd
  for (int32_t i = 0; i < n; i++) { /* hot: rows with targets (any) */
    const real m = maximum[i], x = label_x[i];
    maximum[i] = label[i] == TARE_ROW_BACKGROUND ? (real)0 : m;
    label_x[i] = label[i] == TARE_ROW_BACKGROUND ? (real)0 : x;
  }
}

/** Losses of rows with targets, and what their exponentials are multiplied by in the gradient. */
static void finish_targets(const tare_job *job, int32_t first, int32_t n, tare_scratch *scratch) {
  const tare_margins *m = &scratch->margins;
  const int32_t *restrict label = scratch->rows.cls + first;
  const double *restrict weight = scratch->rows.weight + first, *restrict dot = m->spread, *restrict sum = m->sum;
  const double *restrict margin = m->margin, *restrict targets = m->targets, factor = job->gradient.factor;
  double *restrict loss = scratch->row_loss + first, *restrict of_e = scratch->margins.of_e;
#pragma omp simd
  for (int32_t i = 0; i < n; i++) { /* hot: losses by targets (any) */
    const double of_row = weight[i] * (dot[i] - targets[i] * margin[i]), before = loss[i];
    loss[i] = label[i] == TARE_ROW_BACKGROUND ? of_row : before;
    of_e[i] = weight[i] * factor * targets[i] / sum[i];
  }
}

/** Rows side by side: turns their exponentials into gradients. Those of rows with a label are left alone. */
static void form_targets_of_columns(const tare_job *job, int64_t classes, int32_t first, int32_t n,
                                    tare_scratch *scratch) {
  const int32_t *restrict label = scratch->rows.cls + first;
  const double *restrict weight = scratch->rows.weight + first, *restrict of_e = scratch->margins.of_e;
  const double factor = job->gradient.factor;
  real_scratch *s = real_scratch_of(scratch);
  for (int64_t c = 0; c < classes; c++) {
    real *restrict x = s->row + c * n;
    const real *restrict t = targets_of_block(s) + c * n;
#pragma omp simd
    for (int32_t i = 0; i < n; i++) { /* hot: column soft gradient (any) */
      const real e = x[i];
      const real slope = (real)(part_of_gradient(e, of_e[i], is_infinite(of_e[i])) - weight[i] * factor * (double)t[i]);
      x[i] = label[i] == TARE_ROW_BACKGROUND ? slope : e;
    }
  }
}
