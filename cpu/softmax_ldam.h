/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LDAM: rows become s*(x - m), m the largest logit off the label, and their maximum becomes 0. Rounding is that of a
 * difference then, and not of s*x, which may be far larger. The margin is taken from the label's logit in double.
 */

/** Row i's label: s*(x_y - m - margin), and a maximum of 0. An infinite maximum stays, for find_margins to see. */
TARE_INLINE void place_label(const tare_problem *problem, int32_t i, int32_t label, double label_x, double maximum,
                             tare_margins *margins) {
  const double margin = problem->class_margins ? (double)problem->class_margins[label] : 0;
  const int is_finite = maximum - maximum == 0;
  margins->label_x[i] = is_finite ? tare_scale_of_rows(problem) * ((label_x - maximum) - margin) : label_x;
  margins->maximum[i] = is_finite ? 0 : maximum;
}

static void scale_below(real *restrict x, int64_t n, real maximum, real scale) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) x[i] = scale * below_maximum(x[i], maximum); /* hot: ldam row (any) */
}

/** n rows of length `padded`. */
static __attribute__((noinline)) void ldam_rows(const tare_job *job, int32_t n, const int32_t *label, int64_t padded,
                                                tare_scratch *scratch) {
  real_scratch *s = real_scratch_of(scratch);
  const real scale = (real)tare_scale_of_rows(job->problem);
  for (int32_t i = 0; i < n; i++) {
    if (label[i] < 0) continue;
    place_label(job->problem, i, label[i], (double)s->label_x[i], (double)s->maximum[i], &scratch->margins);
    scale_below(s->row + i * padded, padded, s->maximum[i], scale);
    s->maximum[i] = 0;
  }
}

/** The same, class after class. */
static __attribute__((noinline)) void ldam_columns(const tare_job *job, int32_t n, const int32_t *label,
                                                   tare_scratch *scratch) {
  real_scratch *s = real_scratch_of(scratch);
  const real scale = (real)tare_scale_of_rows(job->problem);
  real *restrict maximum = s->maximum;
  for (int64_t c = 0; c < job->problem->batch.classes; c++) {
    real *restrict line = s->row + c * n;
#pragma omp simd
    for (int32_t i = 0; i < n; i++) line[i] = scale * below_maximum(line[i], maximum[i]); /* hot: ldam columns (any) */
  }
  for (int32_t i = 0; i < n; i++) {
    if (label[i] >= 0)
      place_label(job->problem, i, label[i], (double)s->label_x[i], (double)maximum[i], &scratch->margins);
    maximum[i] = 0;
  }
}
