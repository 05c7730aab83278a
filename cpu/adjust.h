/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stage of a softmax row between load and exponential.
 *
 * Every logit passes adjust() once, right after it is loaded. A loss whose logits depend on class and label says how
 * there. Other losses never call it.
 */

/** The logit that the softmax takes. The label is below 0 if the row has none. An offset of -inf excludes the class. */
TARE_INLINE real adjust(const float *restrict class_offset, int64_t label, int64_t cls, real x) {
  const real offset = (real)class_offset[cls];
  (void)label;
  return offset == (real)-INFINITY ? offset : x + offset;
}

/** Of LDAM: a margin of +inf excludes the class. The margin itself is taken from the label's logit later, in double. */
TARE_INLINE real exclude(const float *restrict class_margins, int64_t cls, real x) {
  return class_margins[cls] == INFINITY ? (real)-INFINITY : x;
}

static __attribute__((noinline)) void exclude_row(const tare_problem *problem, int64_t first, int64_t n,
                                                  real *restrict x) {
  const float *restrict margins = problem->class_margins;
#pragma omp simd
  for (int64_t i = 0; i < n; i++) x[i] = exclude(margins, first + i, x[i]); /* hot: excluded row (any) */
}

static __attribute__((noinline)) void exclude_columns(const tare_problem *problem, int64_t classes, int32_t n,
                                                      real *restrict x) {
  for (int64_t c = 0; c < classes; c++)
    for (int32_t i = 0; i < n && problem->class_margins[c] == INFINITY; i++) x[c * n + i] = (real)-INFINITY;
}

/** Logits of n classes of one row, from class `first` on. */
static void adjust_row(const tare_problem *problem, int64_t label, int64_t first, int64_t n, real *restrict x) {
  const float *restrict offset = problem->class_offset;
  if (problem->class_margins) exclude_row(problem, first, n, x);
  if (!offset) return;
#pragma omp simd
  for (int64_t i = 0; i < n; i++) x[i] = adjust(offset, label, first + i, x[i]); /* hot: adjusted row (any) */
}

/** Logits of n rows, class after class. */
static void adjust_columns(const tare_problem *problem, const int32_t *restrict label, int64_t classes, int32_t n,
                           real *restrict x) {
  const float *restrict offset = problem->class_offset;
  if (problem->class_margins) exclude_columns(problem, classes, n, x);
  for (int64_t c = 0; offset && c < classes; c++) {
    real *restrict line = x + c * n;
#pragma omp simd
    for (int32_t i = 0; i < n; i++) line[i] = adjust(offset, label[i], c, line[i]); /* hot: adjusted columns (any) */
  }
}
