/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The softmax family: row by row.
 *
 * With m and S over the classes other than the label, the margin z = (x_y - m) - log S makes a row's loss that of one
 * signed logit, and nothing is lost where the row is confident. Rows are kept in first-level cache between the pass
 * that finds m, the one that forms e_k = exp(x_k - m) and S, and the one that writes the gradient D*e_k/S; what is left
 * of a row, its margin, is worked on for many rows at a time, in double.
 *
 * The buffer holds row after row if the classes are contiguous and not few. It holds class after class if the rows are
 * contiguous (NCHW). So the loops run along memory in both cases. A row that is too long for the buffer takes
 * cpu/softmax_row.h.
 */

/** x - m without the NaN of inf - inf: a maximum of +inf stands for itself. */
TARE_INLINE real below_maximum(real x, real maximum) { return x == maximum ? (real)0 : x - maximum; }

static real maximum_of(const real *restrict x, int64_t n) {
  real maximum = (real)-INFINITY;
#pragma omp simd reduction(max : maximum)
  for (int64_t i = 0; i < n; i++) maximum = x[i] > maximum ? x[i] : maximum; /* hot: softmax maximum (any) */
  return maximum;
}

/** x[i] = exp(x[i] - maximum), and their sum. */
static double exponentiate(real *restrict x, int64_t n, real maximum) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) x[i] = exp_nonpositive(below_maximum(x[i], maximum)); /* hot: softmax exp */
  double sum = 0; /* in a loop of its own: with the conversions to double the vectors above would be half as wide */
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; i++) sum += (double)x[i]; /* hot: softmax sum (any) */
  return sum;
}

/** Multiplies row weights by alpha; a row that is left with 0 is skipped. */
static void weigh_rows_by_alpha(const tare_problem *problem, int32_t n, tare_tile_rows *rows) {
  for (int32_t i = 0; i < n; i++) {
    const int32_t cls = rows->cls[i];
    if (cls < 0) continue;
    rows->weight[i] *= problem->alpha_per_class ? problem->alpha_per_class[cls] : problem->alpha;
    if (rows->weight[i] == 0) rows->cls[i] = TARE_ROW_SKIPPED;
  }
}

#include "softmax_targets.h"

/** Computes losses and derivatives of rows [first, first+n) from their maximum, sum and label logit. */
static void finish_margins(const tare_job *job, int32_t first, int32_t n, tare_scratch *scratch) {
  real_scratch *s = real_scratch_of(scratch);
  tare_margins *margins = &scratch->margins;
  if (job->problem->soft) place_targets(n, scratch->rows.cls + first, s, margins->sum);
  for (int32_t i = 0; i < n && !tare_is_ldam(job->problem); i++) { /* whose rows have them already */
    margins->label_x[i] = (double)s->label_x[i];
    margins->maximum[i] = (double)s->maximum[i];
  }
  scratch->in_double->evaluate_margins(job->problem, n, scratch->rows.weight + first, margins);
  for (int32_t i = 0; i < n; i++) scratch->row_loss[first + i] = margins->loss[i];
  if (job->problem->soft) finish_targets(job, first, n, scratch);
}

#include "softmax_ldam.h"
#include "softmax_seesaw.h"
#include "softmax_smoothing.h"

#include "softmax_row.h"

/* Row after row. */

/* Each step is taken for all rows of the buffer before the next step. Otherwise a vector would wait for the label's
 * logit, which is stored alone and then read as part of that vector. */

/** Brings n rows to length `padded`, in the buffer, and takes the logits of their labels out. */
static void load_rows(const tare_job *job, const tare_tile *tile, int32_t first, int32_t n, int64_t padded,
                      tare_scratch *scratch) {
  real_scratch *s = real_scratch_of(scratch);
  const tare_problem *problem = job->problem;
  const tare_array *logits = &tile->view->array[TARE_ARRAY_LOGITS];
  const int64_t classes = problem->batch.classes, stride = logits->stride[TARE_AXES - 1];
  const int64_t from = tile->offset[TARE_ARRAY_LOGITS] + first * stride;
  const int32_t *label = scratch->rows.cls + first, least = least_class(problem);
  for (int32_t i = 0; i < n; i++) {
    real *x = s->row + i * padded;
    s->label_x[i] = s->maximum[i] = 0;
    scratch->margins.sum[i] = 1;
    if (label[i] < least) continue;
    load(problem->batch.dtype, logits->data, from + i * stride, logits->cls, classes, x);
    if (problem->class_offset || problem->class_margins) adjust_row(problem, label[i], 0, classes, x);
    for (int64_t c = classes; c < padded; c++) x[c] = (real)-INFINITY;
    if (label[i] < 0) continue;
    s->label_x[i] = x[label[i]];
    x[label[i]] = (real)-INFINITY;
  }
}

/** Writes zeros as the gradient of rows that add nothing: in one call if the rows are contiguous, and in one of each
 *  class if classes are. */
static void zero_rows(const tare_job *job, const tare_tile *tile, int32_t first, int32_t n) {
  const tare_array *gradient = &tile->view->array[TARE_ARRAY_GRADIENT];
  const int64_t classes = job->problem->batch.classes, stride = gradient->stride[TARE_AXES - 1];
  const int64_t size = tare_dtype_bytes(job->problem->batch.dtype);
  char *to = (char *)gradient->data + (tile->offset[TARE_ARRAY_GRADIENT] + first * stride) * size;
  if (gradient->cls == 1 && stride == classes && job->zeros_past_caches)
    tare_zero_past_caches(to, (size_t)(n * classes * size));
  else if (gradient->cls == 1 && stride == classes)
    memset(to, 0, (size_t)(n * classes * size));
  else if (gradient->cls == 1)
    for (int32_t i = 0; i < n; i++) memset(to + i * stride * size, 0, (size_t)(classes * size));
  else if (stride == 1)
    for (int64_t c = 0; c < classes; c++) memset(to + c * gradient->cls * size, 0, (size_t)(n * size));
  else
    for (int32_t i = 0; i < n; i++)
      for (int64_t c = 0; c < classes; c++) memset(to + (i * stride + c * gradient->cls) * size, 0, (size_t)size);
}

/** x[0], x[step], ... times `factor`, which may be too large for a real where the products are not. */
static void multiply_far(real *x, int64_t step, int64_t n, double factor) {
  for (int64_t i = 0; i < n; i++) x[i * step] = x[i * step] == 0 ? (real)0 : (real)((double)x[i * step] * factor);
}

static void scale_row(const tare_job *job, int32_t slot, int64_t padded, tare_scratch *scratch) {
  real *restrict x = real_scratch_of(scratch)->row + slot * padded;
  const double exact = scratch->margins.derivative[slot] * job->gradient.factor / scratch->margins.sum[slot];
  const real factor = (real)exact;
  if (magnitude(factor) > LARGEST) {
    multiply_far(x, 1, padded, exact);
    return;
  }
#pragma omp simd
  for (int64_t c = 0; c < padded; c++) x[c] *= factor; /* hot: softmax gradient */
}

/** Turns exponentials into gradients. */
static void form_rows(const tare_job *job, int32_t first, int32_t n, int64_t padded, tare_scratch *scratch) {
  const int32_t *label = scratch->rows.cls + first;
  real *x = real_scratch_of(scratch)->row;
  const int has_terms = tare_has_row_terms(job->problem), least = least_class(job->problem);
  for (int32_t i = 0; i < n; i++)
    if (label[i] >= 0)
      scale_row(job, i, padded, scratch);
    else if (label[i] >= least)
      form_soft(x + i * padded, targets_of_block(real_scratch_of(scratch)) + i * padded, padded,
                scratch->margins.of_e[i], scratch->rows.weight[first + i] * job->gradient.factor);
  for (int32_t i = 0; i < n && tare_smooths_rows(job->problem); i++)
    if (label[i] >= 0) smooth_row(job, i, padded, x + i * padded, &scratch->margins);
  for (int32_t i = 0; i < n; i++)
    if (label[i] >= 0) x[i * padded + label[i]] = (real)label_derivative(job, &scratch->margins, i, has_terms);
  if (tare_has_bins(job->problem)) share_labels(job, first, n, (bin_steps){padded, 1}, x, scratch);
  for (int32_t i = 0; i < n && job->gradient.after; i++)
    if (label[i] >= least) rescale(job, x + i * padded, padded);
}

/** Stores gradients past the caches only where rows are long: short ones share most of their lines with others. */
static void store_rows(const tare_job *job, const tare_tile *tile, int32_t first, int32_t n, int64_t padded,
                       tare_scratch *scratch) {
  const tare_array *gradient = &tile->view->array[TARE_ARRAY_GRADIENT];
  const int32_t *label = scratch->rows.cls + first, dtype = job->problem->batch.dtype;
  const int32_t least = least_class(job->problem);
  const int64_t classes = job->problem->batch.classes, stride = gradient->stride[TARE_AXES - 1];
  const int64_t to = tile->offset[TARE_ARRAY_GRADIENT] + first * stride;
  const int passes_caches = job->past_caches && gradient->cls == 1 && classes >= SOME_CLASSES;
  real_scratch *s = real_scratch_of(scratch);
  for (int32_t i = 0, run; i < n; i += run) {
    for (run = 0; i + run < n && label[i + run] < least;) run++;
    if (run) zero_rows(job, tile, first + i, run); /* also over a NaN */
    if (run) continue;
    run = 1;
    if (passes_caches)
      store_past_caches(dtype, gradient->data, to + i * stride, classes, s->row + i * padded, s->outgoing);
    else
      store(dtype, gradient->data, to + i * stride, gradient->cls, classes, s->row + i * padded);
  }
}

/** Rows that add nothing. */
static void skip_rows(const tare_job *job, const tare_tile *tile, int32_t first, int32_t n, tare_scratch *scratch) {
  for (int32_t i = 0; i < n; i++) scratch->row_loss[first + i] = 0;
  if (tile->view->array[TARE_ARRAY_GRADIENT].data) zero_rows(job, tile, first, n);
}

static __attribute__((noinline)) void softmax_rows(const tare_job *job, const tare_tile *tile, tare_scratch *scratch) {
  real_scratch *s = real_scratch_of(scratch);
  const int32_t least = least_class(job->problem), end = tile->rows;
  const int64_t padded = (job->problem->batch.classes + 15) / 16 * 16;
  const int32_t fit = padded < 4096 ? (int32_t)(4096 / padded) : 1;
  for (int32_t first = 0, n; first < end; first += n) {
    const int32_t *label = scratch->rows.cls + first;
    for (n = 0; first + n < end && label[n] < least;) n++;
    if (n) skip_rows(job, tile, first, n, scratch);
    if (n) continue;
    n = end - first < fit ? end - first : fit;
    while (label[n - 1] < least) n--; /* the first is not skipped */
    load_rows(job, tile, first, n, padded, scratch);
    if (job->problem->soft) load_targets(job, tile, first, n, padded, scratch);
    for (int32_t i = 0; i < n; i++)
      if (label[i] >= least) s->maximum[i] = maximum_of(s->row + i * padded, padded);
    if (job->problem->soft) add_targets_of_rows(job, n, label, padded, scratch);
    if (tare_is_seesaw(job->problem)) seesaw_rows(job, n, label, padded, scratch);
    if (tare_is_ldam(job->problem)) ldam_rows(job, n, label, padded, scratch);
    if (tare_smooths_rows(job->problem))
      spread_rows(job->problem->batch.classes, n, label, padded, s, scratch->margins.spread);
    for (int32_t i = 0; i < n; i++)
      if (label[i] >= least) scratch->margins.sum[i] = exponentiate(s->row + i * padded, padded, s->maximum[i]);
    finish_margins(job, first, n, scratch);
    if (tile->view->array[TARE_ARRAY_GRADIENT].data || scratch->class_sums) form_rows(job, first, n, padded, scratch);
    if (tile->view->array[TARE_ARRAY_GRADIENT].data) store_rows(job, tile, first, n, padded, scratch);
    if (scratch->class_sums) sum_rows(job->problem->batch.classes, first, n, padded, scratch);
  }
}

/* Class after class: element (c, i) of a block of n rows is x[c*n + i]. */

#include "softmax_labels.h"

static void start_columns(int64_t classes, int32_t n, const int32_t *restrict label, real *restrict x,
                          real_scratch *s) {
  real *restrict maximum = s->maximum;
  take_labels(classes, n, label, x, s->label_x);
  for (int32_t i = 0; i < n; i++) maximum[i] = (real)-INFINITY;
  for (int64_t c = 0; c < classes; c++) {
    const real *restrict line = x + c * n;
#pragma omp simd
    for (int32_t i = 0; i < n; i++) maximum[i] = line[i] > maximum[i] ? line[i] : maximum[i]; /* hot: column maximum */
  }
}

static void exponentiate_columns(int64_t classes, int32_t n, real *restrict x, const real *restrict maximum,
                                 double *restrict sum) {
  for (int32_t i = 0; i < n; i++) sum[i] = 0;
  for (int64_t c = 0; c < classes; c++) {
    real *restrict line = x + c * n;
#pragma omp simd
    for (int32_t i = 0; i < n; i++) line[i] = exp_nonpositive(below_maximum(line[i], maximum[i])); /* hot: column exp */
#pragma omp simd
    for (int32_t i = 0; i < n; i++) sum[i] += (double)line[i]; /* hot: column sum (any) */
  }
}

/** What the exponentials of n rows are multiplied by: 0 if a row is skipped, and 1 if it has dense targets, or if the
 *  factor was too large for a real, and they have been multiplied already. */
static void column_factors(const tare_job *job, int32_t n, const int32_t *restrict label, tare_scratch *scratch,
                           real *restrict factor) {
  const tare_margins *margins = &scratch->margins;
  const double *restrict derivative = margins->derivative, *restrict sum = margins->sum;
  const double whole = job->gradient.factor;
  const real of_targets = job->problem->soft ? (real)1 : (real)0;
  int32_t is_far = 0;
#pragma omp simd reduction(| : is_far)
  for (int32_t i = 0; i < n; i++) { /* hot: column factors (any) */
    const double total = sum[i];    /* read for every row: otherwise gcc 12 takes no vectors of SVE */
    const double of_row = derivative[i] * whole / (label[i] < 0 ? 1.0 : total);
    const real of_others = label[i] == TARE_ROW_BACKGROUND ? of_targets : (real)0;
    factor[i] = label[i] < 0 ? of_others : (real)of_row;
    is_far |= magnitude(factor[i]) > LARGEST;
  }
  for (int32_t i = 0; i < n && is_far; i++) {
    if (!(magnitude(factor[i]) > LARGEST)) continue;
    multiply_far(real_scratch_of(scratch)->row + i, n, job->problem->batch.classes, derivative[i] * whole / sum[i]);
    factor[i] = 1;
  }
}

/** Turns exponentials into gradients, and those of rows without a label into zeros. */
static void form_columns(const tare_job *job, int32_t first, int32_t n, tare_scratch *scratch) {
  real_scratch *s = real_scratch_of(scratch);
  const int64_t classes = job->problem->batch.classes;
  const int32_t *label = scratch->rows.cls + first;
  real *restrict factor = s->label_x;
  column_factors(job, n, label, scratch, factor);
  for (int64_t c = 0; c < classes; c++) {
    real *restrict line = s->row + c * n;
#pragma omp simd
    for (int32_t i = 0; i < n; i++) line[i] *= factor[i]; /* hot: column gradient */
  }
  if (job->problem->soft) form_targets_of_columns(job, classes, first, n, scratch);
  if (tare_smooths_rows(job->problem)) smooth_columns(job, n, label, s->row, &scratch->margins, factor);
  put_labels(job, n, label, scratch);
  if (tare_has_bins(job->problem)) share_labels(job, first, n, (bin_steps){1, n}, s->row, scratch);
  rescale(job, s->row, classes * n);
}

static void store_columns(const tare_job *job, const tare_tile *tile, int32_t first, int32_t n, const real_scratch *s) {
  const tare_array *gradient = &tile->view->array[TARE_ARRAY_GRADIENT];
  const int64_t classes = job->problem->batch.classes, row = gradient->stride[TARE_AXES - 1];
  store_lines(job->problem->batch.dtype, gradient->data, tile->offset[TARE_ARRAY_GRADIENT] + first * row, gradient->cls,
              row, classes, n, s->row);
}

static __attribute__((noinline)) void softmax_columns(const tare_job *job, const tare_tile *tile,
                                                      tare_scratch *scratch) {
  real_scratch *s = real_scratch_of(scratch);
  const tare_array *logits = &tile->view->array[TARE_ARRAY_LOGITS];
  const int64_t classes = job->problem->batch.classes, row = logits->stride[TARE_AXES - 1];
  const int32_t fit = columns_of_block(classes);
  for (int32_t first = 0; first < tile->rows; first += fit) {
    const int32_t n = tile->rows - first < fit ? tile->rows - first : fit;
    load_lines(job->problem->batch.dtype, logits->data, tile->offset[TARE_ARRAY_LOGITS] + first * row, logits->cls, row,
               classes, n, s->row);
    adjust_columns(job->problem, scratch->rows.cls + first, classes, n, s->row);
    start_columns(classes, n, scratch->rows.cls + first, s->row, s);
    if (tare_is_seesaw(job->problem)) seesaw_columns(job, n, scratch->rows.cls + first, scratch);
    if (tare_is_ldam(job->problem)) ldam_columns(job, n, scratch->rows.cls + first, scratch);
    if (tare_smooths_rows(job->problem))
      spread_columns(classes, n, scratch->rows.cls + first, s, scratch->margins.spread);
    if (job->problem->soft) add_targets_of_columns(job, tile, first, n, scratch);
    exponentiate_columns(classes, n, s->row, s->maximum, scratch->margins.sum);
    finish_margins(job, first, n, scratch);
    if (tile->view->array[TARE_ARRAY_GRADIENT].data || scratch->class_sums) form_columns(job, first, n, scratch);
    if (tile->view->array[TARE_ARRAY_GRADIENT].data) store_columns(job, tile, first, n, s);
    if (scratch->class_sums) sum_columns(classes, first, n, scratch);
  }
}

/** Whether rows are worked on side by side. Then they are all computed, and otherwise only those with a label. With few
 *  classes a vector along them would be short, and with some of them rows are quickly transposed. Rows of NCHW lie side
 *  by side, and are gathered only if few of them have a label. */
static int rows_go_side_by_side(const tare_job *job, const tare_tile *tile, int32_t n, const int32_t *restrict cls) {
  const int64_t classes = job->problem->batch.classes;
  const tare_array *array = tile->view->array;
  const int is_quick = HAS_SQUARES && array[TARE_ARRAY_LOGITS].cls == 1 && array[TARE_ARRAY_GRADIENT].cls <= 1;
  const int by_class = tare_view_by_class(tile->view, classes);
  const int32_t least = least_class(job->problem);
  if (job->problem->soft && classes > MOST_CLASSES_OF_BLOCKS) return 0;
  if (!by_class && classes >= (is_quick || tare_has_bins(job->problem) ? SOME_CLASSES : FEW_CLASSES)) return 0;
  int32_t labelled = 0;
  for (int32_t i = 0; i < n; i++) labelled += cls[i] >= least; /* hot: rows with a label (any) */
  return labelled >= (classes < FEW_CLASSES ? n / 16 : by_class ? n / 8 : n / 2);
}

/** Rows that no block holds. */
static void softmax_long_rows(const tare_job *job, const tare_tile *tile, tare_scratch *scratch) {
  const int32_t *cls = scratch->rows.cls, least = least_class(job->problem), end = tile->rows;
  for (int32_t first = 0, n; first < end; first += n) {
    for (n = 0; first + n < end && cls[first + n] < least;) n++;
    if (n) skip_rows(job, tile, first, n, scratch);
    if (n) continue;
    softmax_one_row(job, tile, first, scratch);
    n = 1;
  }
}

static void evaluate_rows(const tare_job *job, const tare_tile *tile, tare_scratch *scratch) {
  if (job->problem->batch.classes > TARE_ROW_BUFFER / 16)
    softmax_long_rows(job, tile, scratch);
  else if (rows_go_side_by_side(job, tile, tile->rows, scratch->rows.cls))
    softmax_columns(job, tile, scratch);
  else
    softmax_rows(job, tile, scratch);
}

static void softmax_tile(const tare_job *job, const tare_tile *tile, tare_scratch *scratch, tare_group_result *result) {
  const tare_problem *problem = job->problem;
  if (!look_at_rows(job, tile, scratch, result)) return;
  if (scratch->class_sums) count_labels_of_classes(problem, tile, scratch);
  if (problem->alpha_per_class || problem->alpha >= 0) weigh_rows_by_alpha(problem, tile->rows, &scratch->rows);
  if (tare_has_bins(problem)) choose_labels(problem, tile, scratch);
  if (problem->soft) label_by_mass(job, tile, scratch);
  evaluate_rows(job, tile, scratch);
  if (tare_has_bins(problem)) add_distances(tile->rows, scratch);
  for (int32_t i = 0; i < tile->rows; i++) result->loss += scratch->row_loss[i];
  if (scratch->class_sums) sum_row_losses(tile->rows, scratch);
  store_row_loss(problem, tile, scratch->row_loss);
}
