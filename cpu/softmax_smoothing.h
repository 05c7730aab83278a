/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Label smoothing of softmax rows: what it reads of the logits before they are exponentiated, and what it takes from
 * the gradient. losses/softmax_smoothed.h has the formula. Rows without it call none of this.
 */

/** Of a row with maximum -inf all classes but the label's are infinitely far below log S. */
TARE_INLINE double finished_spread(double spread, real maximum) {
  return maximum > (real)-INFINITY || maximum != maximum ? spread : (double)INFINITY;
}

/** The sum of maximum - x[i]. The label's own place holds the maximum. */
static double spread_of(const real *restrict x, int64_t n, real maximum) {
  double spread = 0;
#pragma omp simd reduction(+ : spread)
  for (int64_t i = 0; i < n; i++) /* hot: softmax spread (any) */
    spread += x[i] == maximum ? 0.0 : (double)maximum - (double)x[i];
  return spread;
}

/** Of rows of length `padded`, whose labels' places hold -inf. */
static void spread_rows(int64_t classes, int32_t n, const int32_t *label, int64_t padded, real_scratch *s,
                        double *spread) {
  for (int32_t i = 0; i < n; i++) {
    if (label[i] < 0) continue;
    real *x = s->row + i * padded;
    x[label[i]] = s->maximum[i];
    spread[i] = finished_spread(spread_of(x, classes, s->maximum[i]), s->maximum[i]);
    x[label[i]] = (real)-INFINITY;
  }
}

/** The label's places of rows side by side. */
static void fill_labels(int32_t n, const int32_t *label, real_scratch *s, const real *value) {
  for (int32_t i = 0; i < n; i++)
    if (label[i] >= 0) s->row[label[i] * (int64_t)n + i] = value ? value[i] : (real)-INFINITY;
}

/** The same, class after class. */
static __attribute__((noinline)) void spread_columns(int64_t classes, int32_t n, const int32_t *label, real_scratch *s,
                                                     double *restrict spread) {
  const real *restrict maximum = s->maximum;
  for (int32_t i = 0; i < n; i++) spread[i] = 0;
  fill_labels(n, label, s, maximum);
  for (int64_t c = 0; c < classes; c++) {
    const real *restrict line = s->row + c * n;
#pragma omp simd
    for (int32_t i = 0; i < n; i++) /* hot: column spread (any) */
      spread[i] += line[i] == maximum[i] ? 0.0 : (double)maximum[i] - (double)line[i];
  }
  fill_labels(n, label, s, NULL);
  for (int32_t i = 0; i < n; i++) spread[i] = finished_spread(spread[i], maximum[i]);
}

/** What the gradient of a row has less at every class: the smoothed target of a class that is not the label. */
TARE_INLINE double taken_from_row(const tare_job *job, const tare_margins *margins, int32_t i) {
  return tare_smoothed_share(job->problem) * margins->modulator[i] * job->gradient.factor;
}

/** The gradient at the label. `has_terms`: what tare_has_row_terms says. */
TARE_INLINE double label_derivative(const tare_job *job, const tare_margins *margins, int32_t i, int has_terms) {
  return (has_terms ? margins->of_label[i] : -margins->derivative[i]) * job->gradient.factor;
}

static __attribute__((noinline)) void smooth_row(const tare_job *job, int32_t i, int64_t n, real *restrict x,
                                                 const tare_margins *margins) {
  const real taken = (real)taken_from_row(job, margins, i);
#pragma omp simd
  for (int64_t c = 0; c < n; c++) x[c] -= taken; /* hot: smoothed row (any) */
}

/** Rows without a label lose nothing: `taken` is room for n numbers. */
static __attribute__((noinline)) void smooth_columns(const tare_job *job, int32_t n, const int32_t *label, real *x,
                                                     const tare_margins *margins, real *restrict taken) {
  for (int32_t i = 0; i < n; i++) taken[i] = label[i] < 0 ? (real)0 : (real)taken_from_row(job, margins, i);
  for (int64_t c = 0; c < job->problem->batch.classes; c++) {
    real *restrict line = x + c * n;
#pragma omp simd
    for (int32_t i = 0; i < n; i++) line[i] -= taken[i]; /* hot: smoothed columns (any) */
  }
}
