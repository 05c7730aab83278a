/* SPDX-License-Identifier: Apache-2.0 */
/* Labels of softmax rows that lie side by side: their logits are taken out, and their gradients put in. */

/** The rows whose labels are looked for class by class, in whole vectors: of few classes. The others' are looked up. */
TARE_INLINE int32_t whole_columns(int64_t classes, int32_t n) { return classes < FEW_CLASSES ? n / 16 * 16 : 0; }

/** Takes the logits of labels of class c out, and leaves -inf. A function of its own: gcc would join two classes. */
static __attribute__((noinline)) void take_class(int32_t c, int32_t n, const int32_t *restrict label,
                                                 real *restrict line, real *restrict label_x) {
#pragma omp simd
  for (int32_t i = 0; i < n / 16 * 16; i++) { /* hot: column labels (any) */
    const real here = line[i], so_far = label_x[i];
    const int32_t is_label = label[i] == c;
    label_x[i] = is_label ? here : so_far;
    line[i] = is_label ? (real)-INFINITY : here;
  }
}

static void take_labels(int64_t classes, int32_t n, const int32_t *label, real *x, real *label_x) {
  const int32_t whole = whole_columns(classes, n);
  for (int32_t i = 0; i < n; i++) label_x[i] = 0;
  for (int32_t c = 0; whole && c < classes; c++) take_class(c, whole, label, x + c * (int64_t)n, label_x);
  for (int32_t i = whole; i < n; i++) {
    if (label[i] < 0) continue;
    label_x[i] = x[label[i] * (int64_t)n + i];
    x[label[i] * (int64_t)n + i] = (real)-INFINITY;
  }
}

/** Puts the gradients of labels of class c in their places, and zeros in rows whose class is below `least`. */
static __attribute__((noinline)) void put_class(int32_t c, int32_t n, const int32_t *restrict label, int32_t least,
                                                const real *restrict own, real *restrict line) {
#pragma omp simd
  for (int32_t i = 0; i < n / 16 * 16; i++) { /* hot: column gradients of labels (any) */
    const real of_label = own[i], of_other = line[i], kept = label[i] < least ? (real)0 : of_other;
    line[i] = label[i] == c ? of_label : kept;
  }
}

/** The same of all classes. The zeros also take the place of a NaN. */
static void put_labels(const tare_job *job, int32_t n, const int32_t *label, tare_scratch *scratch) {
  real_scratch *s = real_scratch_of(scratch);
  real *own = s->maximum; /* which nobody needs any more */
  const int64_t classes = job->problem->batch.classes;
  const int32_t whole = whole_columns(classes, n), has_terms = tare_has_row_terms(job->problem);
  const int32_t least = least_class(job->problem);
  const double *restrict slope = has_terms ? scratch->margins.of_label : scratch->margins.derivative;
  const double factor = has_terms ? job->gradient.factor : -job->gradient.factor; /* as label_derivative does */
  for (int32_t i = 0; i < n; i++) own[i] = (real)(slope[i] * factor);
  for (int32_t c = 0; whole && c < classes; c++) put_class(c, whole, label, least, own, s->row + c * (int64_t)n);
  for (int32_t i = whole; i < n; i++) {
    if (label[i] >= 0) s->row[label[i] * (int64_t)n + i] = own[i];
    if (label[i] < least)
      for (int64_t c = 0; c < classes; c++) s->row[c * n + i] = 0;
  }
}
