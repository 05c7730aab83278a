/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seesaw loss: what becomes of a row's logits between the maximum of the other classes and the exponentials. The row is
 * exponentiated twice: here for its softmax, whose exponentials are only added up, and afterwards with new logits. Then
 * it is a row of cross-entropy. Rows of other losses call none of this.
 */

/** What the logits of a row are adjusted with. A class above `base`, max(x_y, LSE + log epsilon), is compensated. */
typedef struct seesaw_row {
  const float *log_counts; /* NULL: no mitigation */
  real own, base, mitigation, compensation;
} seesaw_row;

static seesaw_row seesaw_of(const tare_problem *problem, int64_t label, real base) {
  const float *logs = problem->mitigation > 0 ? problem->log_counts : NULL;
  return (seesaw_row){logs, logs && label >= 0 ? (real)logs[label] : (real)0, base, (real)problem->mitigation,
                      (real)problem->compensation};
}

/** A difference that is no number adds nothing: then the logit itself is none, or infinite. */
TARE_INLINE real rise_of(real x, real base, real compensation) {
  const real above = x - base;
  return above > 0 ? compensation * above : (real)0;
}

TARE_INLINE real fall_of(float log_count, real own, real mitigation) {
  const real rarer = (real)log_count - own;
  return rarer < 0 ? mitigation * rarer : (real)0;
}

/** Logits of n classes of one row, from class `first` on. */
static void seesaw_logits(const seesaw_row *by, int64_t first, int64_t n, real *restrict x) {
  const seesaw_row r = *by;
  if (r.log_counts) {
    const float *restrict logs = r.log_counts + first;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) /* hot: seesaw row (any) */
      x[i] += fall_of(logs[i], r.own, r.mitigation) + rise_of(x[i], r.base, r.compensation);
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) x[i] += rise_of(x[i], r.base, r.compensation); /* hot: compensated row (any) */
  }
}

/** The sum of exp(x - maximum). Strips in `real` keep the vectors whole; few enough terms each that a float will do. */
static double exponentials_of(const real *restrict x, int64_t n, real maximum) {
  enum { STRIP = 256 };
  double sum = 0;
  for (int64_t first = 0; first < n; first += STRIP) {
    const int64_t end = n - first < STRIP ? n : first + STRIP;
    real part = 0;
#pragma omp simd reduction(+ : part)
    for (int64_t i = first; i < end; i++) part += exp_nonpositive(below_maximum(x[i], maximum)); /* hot: softmax sum */
    sum += (double)part;
  }
  return sum;
}

/** Of n rows from their maximum, sum and label logit. Without compensation no class is above its base. */
static void find_bases(const tare_job *job, int32_t n, tare_scratch *scratch, real *base) {
  const real_scratch *s = real_scratch_of(scratch);
  tare_margins *margins = &scratch->margins;
  if (job->problem->compensation == 0) {
    for (int32_t i = 0; i < n; i++) base[i] = (real)INFINITY;
    return;
  }
  for (int32_t i = 0; i < n; i++) {
    margins->label_x[i] = (double)s->label_x[i];
    margins->maximum[i] = (double)s->maximum[i];
  }
  scratch->in_double->find_bases(job->problem, n, margins);
  for (int32_t i = 0; i < n; i++) base[i] = (real)margins->margin[i];
}

/** n rows of length `padded`, whose labels' places hold -inf: new logits, and their maxima. */
static __attribute__((noinline)) void seesaw_rows(const tare_job *job, int32_t n, const int32_t *label, int64_t padded,
                                                  tare_scratch *scratch) {
  real_scratch *s = real_scratch_of(scratch);
  for (int32_t i = 0; i < n && job->problem->compensation > 0; i++)
    if (label[i] >= 0) scratch->margins.sum[i] = exponentials_of(s->row + i * padded, padded, s->maximum[i]);
  find_bases(job, n, scratch, s->score);
  for (int32_t i = 0; i < n; i++) {
    if (label[i] < 0) continue;
    const seesaw_row by = seesaw_of(job->problem, label[i], s->score[i]);
    seesaw_logits(&by, 0, job->problem->batch.classes, s->row + i * padded);
    s->maximum[i] = maximum_of(s->row + i * padded, padded);
  }
}

/** Sums of rows side by side. */
static void sum_columns_of_exponentials(int64_t classes, int32_t n, const real_scratch *s, real *restrict e,
                                        double *restrict sum) {
  const real *restrict maximum = s->maximum;
  for (int32_t i = 0; i < n; i++) sum[i] = 0;
  for (int64_t c = 0; c < classes; c++) {
    const real *restrict line = s->row + c * n;
#pragma omp simd
    for (int32_t i = 0; i < n; i++) e[i] = exp_nonpositive(below_maximum(line[i], maximum[i])); /* hot: seesaw exp */
#pragma omp simd
    for (int32_t i = 0; i < n; i++) sum[i] += (double)e[i]; /* hot: seesaw sum (any) */
  }
}

static void adjust_seesaw_columns(const tare_problem *problem, int32_t n, const real *restrict own,
                                  const real *restrict base, real_scratch *s) {
  const seesaw_row all = seesaw_of(problem, -1, 0);
  real *restrict maximum = s->maximum;
  for (int32_t i = 0; i < n; i++) maximum[i] = (real)-INFINITY;
  for (int64_t c = 0; c < problem->batch.classes; c++) {
    const float log_count = all.log_counts ? all.log_counts[c] : 0;
    real *restrict line = s->row + c * n;
#pragma omp simd
    for (int32_t i = 0; i < n; i++) { /* hot: seesaw columns (any) */
      line[i] += fall_of(log_count, own[i], all.mitigation) + rise_of(line[i], base[i], all.compensation);
      maximum[i] = line[i] > maximum[i] ? line[i] : maximum[i];
    }
  }
}

/** The same as seesaw_rows, class after class. */
static __attribute__((noinline)) void seesaw_columns(const tare_job *job, int32_t n, const int32_t *label,
                                                     tare_scratch *scratch) {
  real_scratch *s = real_scratch_of(scratch);
  real *own = s->row_weight, *base = s->score;
  if (job->problem->compensation > 0)
    sum_columns_of_exponentials(job->problem->batch.classes, n, s, s->x, scratch->margins.sum);
  find_bases(job, n, scratch, base);
  for (int32_t i = 0; i < n; i++) own[i] = seesaw_of(job->problem, label[i], 0).own;
  adjust_seesaw_columns(job->problem, n, own, base, s);
}
