/* SPDX-License-Identifier: Apache-2.0 */
/* Sums of each class, by the kernels: of a block in scratch, whose losses and derivatives are ready. In double, in an
 * order that depends on the shape alone. */

/** The rows of a tile that count in each class, where rows have masks of their own. `cls`: their roles. `weight`: of
 *  each row, before spoilt ones were skipped. */
static __attribute__((noinline)) void count_masked_rows(const tare_tile *tile, int64_t classes, const int32_t *cls,
                                                        const double *weight, tare_scratch *scratch) {
  for (int32_t i = 0; i < tile->rows; i++) {
    const int is_spoilt = weight[i] != 0 && scratch->rows.weight[i] == 0;
    if (cls[i] == TARE_ROW_SKIPPED || is_spoilt) continue;
    for (int64_t c = 0; c < classes; c++) scratch->class_sums[c].count += !is_masked(tile, i, c);
  }
}

/** Rows of a tile that count, in every class that is not masked; `spoilt` of them have an invalid target or score. */
static void count_for_all_classes(const tare_problem *problem, const tare_tile *tile, int64_t spoilt,
                                  tare_scratch *scratch) {
  int32_t *const cls = scratch->picked_at, counted = 0;
  find_roles(problem, tile, cls);
  if (has_mask(tile) && !has_one_mask(tile)) {
    count_masked_rows(tile, problem->batch.classes, cls, scratch->row_loss, scratch);
    return;
  }
  for (int32_t i = 0; i < tile->rows; i++) counted += cls[i] != TARE_ROW_SKIPPED;
  const double count = (double)(counted - spoilt);
  for (int64_t c = 0; c < problem->batch.classes; c++)
    if (!is_masked(tile, 0, c)) scratch->class_sums[c].count += count;
}

/** The same of a softmax loss, each row in the class of its label. */
static void count_labels_of_classes(const tare_problem *problem, const tare_tile *tile, tare_scratch *scratch) {
  int32_t *const cls = scratch->picked_at;
  find_roles(problem, tile, cls);
  for (int32_t i = 0; i < tile->rows; i++)
    if (cls[i] >= 0) scratch->class_sums[cls[i]].count += 1;
}

/** Adds |derivative| of an element with target t. A factor of 0 leaves nothing of a derivative that is not finite. */
TARE_INLINE void add_gradient(tare_class_sums *sums, double t, real derivative) {
  const double size = (double)magnitude(derivative);
  if (t != 0) sums->positive_gradient += t * size;
  if (t != 1) sums->negative_gradient += (1 - t) * size;
}

/** Elements with target 0 of one class, side by side. */
static void sum_line(int32_t n, const real *restrict loss, const real *restrict derivative, tare_class_sums *sums) {
  double losses = 0, sizes = 0;
#pragma omp simd reduction(+ : losses, sizes)
  for (int32_t i = 0; i < n; i++) {
    losses += (double)loss[i];
    sizes += (double)magnitude(derivative[i]);
  }
  sums->loss += losses;
  sums->negative_gradient += sizes;
}

/** Elements with target 0 of classes side by side. */
static void sum_across(int32_t n, const real *restrict loss, const real *restrict derivative,
                       tare_class_sums *restrict sums) {
  for (int32_t c = 0; c < n; c++) {
    sums[c].loss += (double)loss[c];
    sums[c].negative_gradient += (double)magnitude(derivative[c]);
  }
}

/** Labels' elements: their derivatives are then 0, as of elements with target 0 that add nothing more. */
static void sum_picked(const block *b, int32_t picked, real_scratch *s, const int32_t *picked_at,
                       tare_class_sums *sums) {
  for (int32_t k = 0; k < picked; k++) {
    const int32_t at = picked_at[k], c = b->by_class ? at / b->length : at % b->length;
    add_gradient(sums + c, (double)s->picked_target[k], s->derivative[at]);
    s->derivative[at] = 0;
  }
}

static void sum_soft_line(const block *b, int32_t line, const real_scratch *s, tare_class_sums *sums) {
  for (int32_t i = 0; i < b->length; i++) {
    const int32_t at = line * b->length + i;
    tare_class_sums *const of_class = sums + (b->by_class ? line : i);
    of_class->loss += (double)s->loss[at];
    add_gradient(of_class, (double)s->target[at], s->derivative[at]);
  }
}

/** A block of the sigmoid family. */
static void sum_block(const block *b, int32_t picked, int is_soft, tare_scratch *scratch) {
  real_scratch *s = real_scratch_of(scratch);
  tare_class_sums *const sums = scratch->class_sums + b->first_class;
  sum_picked(b, picked, s, scratch->picked_at, sums);
  for (int32_t line = 0; line < b->lines; line++) {
    const ptrdiff_t at = (ptrdiff_t)line * b->length;
    if (is_soft)
      sum_soft_line(b, line, s, sums);
    else if (b->by_class)
      sum_line(b->length, s->loss + at, s->derivative + at, sums + line);
    else
      sum_across(b->length, s->loss + at, s->derivative + at, sums);
  }
}

/* Softmax rows. */

/** Gradients of classes side by side; `label` may lie outside them. */
static void sum_chunk(int64_t label, int64_t n, const real *restrict gradient, tare_class_sums *restrict sums) {
  for (int64_t c = 0; c < n; c++) {
    const double size = (double)magnitude(gradient[c]);
    sums[c].positive_gradient += c == label ? size : 0;
    sums[c].negative_gradient += c == label ? 0 : size;
  }
}

static void sum_rows(int64_t classes, int32_t first, int32_t n, int64_t padded, const tare_scratch *scratch) {
  const int32_t *label = scratch->rows.cls + first;
  const real *gradient = ((const real_scratch *)(const void *)scratch->of_real)->row;
  for (int32_t i = 0; i < n; i++)
    if (label[i] >= 0) sum_chunk(label[i], classes, gradient + i * padded, scratch->class_sums);
}

/** Class after class. Rows without a label have gradients of 0. */
static void sum_columns(int64_t classes, int32_t first, int32_t n, const tare_scratch *scratch) {
  const int32_t *label = scratch->rows.cls + first;
  const real *gradient = ((const real_scratch *)(const void *)scratch->of_real)->row;
  for (int64_t c = 0; c < classes; c++)
    for (int32_t i = 0; i < n; i++) {
      const double size = (double)magnitude(gradient[c * n + i]);
      scratch->class_sums[c].positive_gradient += c == label[i] ? size : 0;
      scratch->class_sums[c].negative_gradient += c == label[i] ? 0 : size;
    }
}

static void sum_row_losses(int32_t rows, const tare_scratch *scratch) {
  const int32_t *label = scratch->rows.cls;
  for (int32_t i = 0; i < rows; i++)
    if (label[i] >= 0) scratch->class_sums[label[i]].loss += scratch->row_loss[i];
}
