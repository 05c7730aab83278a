/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One softmax row of any length, stride and target.
 *
 * The row is read in chunks, three times: for the maximum, for the sums, and to write the gradient; a row of one chunk
 * stays where it is. Dense targets t: loss sum(t_k*(log S - (x_k-m))), gradient sum(t)*p - t, with m and S over all
 * classes.
 */

enum { ROW_CHUNK = TARE_ROW_BUFFER / 2 };

/** A row being worked on: logits of the present chunk at x, targets at t. */
typedef struct row_reader {
  const tare_job *job;
  const tare_tile *tile;
  int32_t row;
  int64_t classes, loaded, label;
  real *x, *t;
  const seesaw_row *seesaw; /* NULL: not this loss, or not known yet */
  real maximum, scale;      /* LDAM; 0: the same */
} row_reader;

static int64_t row_offset(const row_reader *r, int name, int64_t first_class) {
  const tare_array *array = &r->tile->view->array[name];
  return r->tile->offset[name] + r->row * array->stride[TARE_AXES - 1] + first_class * array->cls;
}

/** Brings the chunk that starts at class `first` and returns its length. */
static int32_t read_chunk(row_reader *r, int64_t first) {
  const tare_batch *batch = &r->job->problem->batch;
  const tare_array *array = r->tile->view->array;
  const int64_t left = r->classes - first, n = left < ROW_CHUNK ? left : ROW_CHUNK;
  if (r->loaded == first) return (int32_t)n;
  r->loaded = first;
  load(batch->dtype, array[TARE_ARRAY_LOGITS].data, row_offset(r, TARE_ARRAY_LOGITS, first),
       array[TARE_ARRAY_LOGITS].cls, n, r->x);
  adjust_row(r->job->problem, r->label, first, n, r->x);
  if (r->seesaw) seesaw_logits(r->seesaw, first, n, r->x);
  if (r->scale != 0) scale_below(r->x, n, r->maximum, r->scale);
  if (r->job->problem->soft)
    load(batch->target_dtype, array[TARE_ARRAY_TARGETS].data, row_offset(r, TARE_ARRAY_TARGETS, first),
         array[TARE_ARRAY_TARGETS].cls, n, r->t);
  return (int32_t)n;
}

/** Results of a row: m and S over the classes other than `label` (-1: all), sums of targets, loss, derivative. */
typedef struct row_sums {
  int64_t label;
  real label_x, maximum;
  double sum, loss, derivative, spread;
  target_sums of_targets;
} row_sums;

static void row_maximum(row_reader *r, row_sums *sums) {
  sums->maximum = (real)-INFINITY;
  for (int64_t first = 0; first < r->classes; first += ROW_CHUNK) {
    const int32_t n = read_chunk(r, first);
    const int64_t at = sums->label - first;
    const int has_label = sums->label >= 0 && at >= 0 && at < n;
    if (has_label) {
      sums->label_x = r->x[at];
      r->x[at] = (real)-INFINITY;
    }
    const real maximum = maximum_of(r->x, n);
    if (has_label) r->x[at] = sums->label_x;
    sums->maximum = maximum > sums->maximum ? maximum : sums->maximum;
  }
}

/** e[i] = exp(x[i] - maximum). May work in place. */
static void exponentials(const real *x, int32_t n, real maximum, real *e) {
#pragma omp simd
  for (int32_t i = 0; i < n; i++) e[i] = exp_nonpositive(below_maximum(x[i], maximum)); /* hot: softmax row exp */
}

static void sum_exponentials(const row_reader *r, int64_t first, int32_t n, row_sums *sums) {
  enum { SOME = 256 };
  real e[SOME];
  for (int32_t from = 0; from < n; from += SOME) {
    const int32_t some = n - from < SOME ? n - from : SOME;
    const int64_t label = sums->label - first - from;
    double sum = 0;
    exponentials(r->x + from, some, sums->maximum, e);
    if (sums->label >= 0 && label >= 0 && label < some) e[label] = 0;
#pragma omp simd reduction(+ : sum)
    for (int32_t i = 0; i < some; i++) sum += (double)e[i]; /* hot: softmax row sum (any) */
    sums->sum += sum;
  }
}

static void add_targets(const row_reader *r, int32_t n, row_sums *sums) {
  for (int32_t i = n; i < ROW_CHUNK && i % ROW_LANES != 0; i++) r->x[i] = r->t[i] = 0;
  const target_sums of_chunk = sum_targets_of(r->x, r->t, n, sums->maximum);
  sums->of_targets.targets += of_chunk.targets;
  sums->of_targets.dot += of_chunk.dot;
}

static void row_sum(row_reader *r, row_sums *sums) {
  sums->sum = 0;
  sums->of_targets = (target_sums){0, 0};
  for (int64_t first = 0; first < r->classes; first += ROW_CHUNK) {
    const int32_t n = read_chunk(r, first);
    sum_exponentials(r, first, n, sums);
    if (sums->label < 0) add_targets(r, n, sums);
  }
}

/** Of a row with a label whose maximum and sum are known: it will be read with its new logits. */
static void find_seesaw(row_reader *r, seesaw_row *by, const row_sums *sums, tare_scratch *scratch) {
  real_scratch *s = real_scratch_of(scratch);
  s->label_x[0] = sums->label_x;
  s->maximum[0] = sums->maximum;
  scratch->margins.sum[0] = sums->sum;
  find_bases(r->job, 1, scratch, &by->base);
  *by = seesaw_of(r->job->problem, sums->label, by->base);
  r->seesaw = by;
  r->loaded = -1;
}

/** Of a row whose maximum is known: it will be read as s*(x-m). */
static void find_ldam(row_reader *r, row_sums *sums, tare_scratch *scratch) {
  place_label(r->job->problem, 0, (int32_t)sums->label, (double)sums->label_x, (double)sums->maximum,
              &scratch->margins);
  r->maximum = sums->maximum;
  r->scale = (real)tare_scale_of_rows(r->job->problem);
  r->loaded = -1;
  sums->maximum = 0;
}

/** The sum of m - x over the classes other than the label. Label smoothing alone needs it. */
static void row_spread(row_reader *r, row_sums *sums) {
  for (int64_t first = 0; first < r->classes; first += ROW_CHUNK) {
    const int32_t n = read_chunk(r, first);
    for (int32_t i = 0; i < n; i++)
      if (first + i != sums->label && r->x[i] != sums->maximum)
        sums->spread += (double)sums->maximum - (double)r->x[i]; /* may be no real */
  }
}

/** Of a row with a label: `taken` less, which label smoothing takes. */
static void form_hard(real *restrict x, int32_t n, double of_e, double taken) {
  const int has_infinity = is_infinite(of_e);
#pragma omp simd
  for (int32_t i = 0; i < n; i++) /* hot: softmax row gradient (any) */
    x[i] = (real)(part_of_gradient(x[i], of_e, has_infinity) - taken);
}

/** Turns the logits of a chunk into their gradient. */
static void form_chunk(const row_reader *r, int64_t first, int32_t n, const row_sums *sums, double weight,
                       const tare_scratch *scratch) {
  const int hard = sums->label >= 0;
  const double factor = r->job->gradient.factor;
  const double whole = hard ? sums->derivative * factor : weight * factor * sums->of_targets.targets;
  const double of_e = sums->sum == 0 ? 0 : whole / sums->sum; /* 0: there is no other class */
  exponentials(r->x, n, sums->maximum, r->x);
  if (hard)
    form_hard(r->x, n, of_e, tare_smooths_rows(r->job->problem) ? taken_from_row(r->job, &scratch->margins, 0) : 0);
  else
    form_soft(r->x, r->t, n, of_e, weight * factor);
  if (hard && sums->label >= first && sums->label < first + n)
    r->x[sums->label - first] =
        (real)label_derivative(r->job, &scratch->margins, 0, tare_has_row_terms(r->job->problem));
}

static void write_row_gradient(row_reader *r, const row_sums *sums, double weight, const tare_scratch *scratch) {
  const tare_array *gradient = &r->tile->view->array[TARE_ARRAY_GRADIENT];
  for (int64_t first = 0; first < r->classes; first += ROW_CHUNK) {
    const int32_t n = read_chunk(r, first);
    if (weight == 0)
      memset(r->x, 0, (size_t)n * sizeof *r->x);
    else
      form_chunk(r, first, n, sums, weight, scratch);
    r->loaded = -1;
    if (tare_has_bins(r->job->problem)) share_chunk(r->job, r->row, first, n, r->x, scratch);
    rescale(r->job, r->x, n);
    if (scratch->class_sums) sum_chunk(sums->label - first, n, r->x, scratch->class_sums + first);
    if (gradient->data)
      store(r->job->problem->batch.dtype, gradient->data, row_offset(r, TARE_ARRAY_GRADIENT, first), gradient->cls, n,
            r->x);
  }
}

static void hard_row(const tare_job *job, row_sums *sums, double weight, tare_scratch *scratch) {
  tare_margins *margins = &scratch->margins;
  if (!tare_is_ldam(job->problem)) { /* find_ldam did */
    margins->label_x[0] = (double)sums->label_x;
    margins->maximum[0] = (double)sums->maximum;
  }
  margins->sum[0] = sums->sum;
  margins->spread[0] = finished_spread(sums->spread, sums->maximum);
  scratch->in_double->evaluate_margins(job->problem, 1, &weight, margins);
  sums->loss = margins->loss[0];
  sums->derivative = margins->derivative[0];
}

static void soft_row(row_sums *sums, double weight, const tare_scratch *scratch) {
  const target_sums *of = &sums->of_targets;
  if (has_no_limit((double)sums->maximum, sums->sum)) sums->sum = (double)NAN;
  sums->loss = weight * (of->dot + of->targets * scratch->in_double->logarithm(sums->sum));
}

static void softmax_one_row(const tare_job *job, const tare_tile *tile, int32_t row, tare_scratch *scratch) {
  real_scratch *s = real_scratch_of(scratch);
  row_reader r = {job,  tile, row, job->problem->batch.classes, -1, scratch->rows.cls[row], s->row, s->row + ROW_CHUNK,
                  NULL, 0,    0};
  seesaw_row seesaw = {0};
  row_sums sums = {.label = scratch->rows.cls[row], .sum = 1};
  const double weight = scratch->rows.cls[row] == TARE_ROW_SKIPPED ? 0 : scratch->rows.weight[row];
  if (weight != 0) {
    for (int looks = tare_is_seesaw(job->problem) ? 2 : 1; looks > 0; looks--) {
      row_maximum(&r, &sums);
      if (tare_is_ldam(job->problem)) find_ldam(&r, &sums, scratch);
      row_sum(&r, &sums);
      if (looks == 2) find_seesaw(&r, &seesaw, &sums, scratch);
    }
    if (sums.label >= 0 && tare_smooths_rows(job->problem)) row_spread(&r, &sums);
    if (sums.label >= 0)
      hard_row(job, &sums, weight, scratch);
    else
      soft_row(&sums, weight, scratch);
  }
  scratch->row_loss[row] = sums.loss;
  if (tile->view->array[TARE_ARRAY_GRADIENT].data || scratch->class_sums)
    write_row_gradient(&r, &sums, weight, scratch);
}
