/* SPDX-License-Identifier: Apache-2.0 */
/* The weights of the elements of a block where the terms of targets 1 and 0 have weights of their own: `weight` that of
 * a target of 1, `base_weight` that of 0. */

/** One line of weigh_terms. The classes of its elements are `step` apart, and their rows 1 - step. Many parameters: as
 *  weigh_soft_line. */
TARE_INLINE void weigh_terms_line(int32_t n, int step, const real *restrict of_row, const real *restrict target,
                                  const real *restrict element, const real *restrict at_0, const real *restrict at_1,
                                  const real *restrict of_ones, const real *restrict of_zeros, real *restrict weight,
                                  real *restrict base) {
#pragma omp simd
  for (int32_t i = 0; i < n; i++) {
    const int32_t c = i * step, row = i - c;
    const real of_alpha = weight_between(target[i], at_0[c], at_1[c]);
    const real of_both = of_row[row] * of_alpha * element[i];
    weight[i] = of_both * of_ones[c];
    base[i] = of_both * of_zeros[c];
  }
}

/** Weights of the terms of targets 1 and 0: of dense targets, or of negatives whose targets are smoothed. A function of
 *  its own: inlined it would cost the loops of the others. */
static __attribute__((noinline)) void weigh_terms(const tare_problem *problem, const tare_tile *tile, const block *b,
                                                  real_scratch *s) {
  const int has_elements = tile->view->array[TARE_ARRAY_ELEMENT_WEIGHTS].data != NULL, step = !b->by_class;
  for (int32_t c = 0; c < b->classes; c++) {
    s->at_0[c] = alpha(problem, b->first_class + c, 0);
    s->at_1[c] = alpha(problem, b->first_class + c, 1);
    s->of_ones[c] = positive_weight(problem, b->first_class + c);
    s->of_zeros[c] = negative_weight(problem, b->first_class + c);
  }
  for (int32_t i = 0; i < b->n && !problem->soft; i++) s->target[i] = 0; /* alpha is that of a negative */
  for (int32_t i = 0; i < b->n && !has_elements; i++) s->loss[i] = 1;
  for (int32_t line = 0; line < b->lines; line++) {
    const ptrdiff_t at = (ptrdiff_t)line * b->length, cls = b->by_class ? line : 0, row = b->by_class ? 0 : line;
    weigh_terms_line(b->length, step, s->row_weight + b->first_row + row, s->target + at, s->loss + at, s->at_0 + cls,
                     s->at_1 + cls, s->of_ones + cls, s->of_zeros + cls, s->weight + at, s->base_weight + at);
  }
  s->spread_lines = 0;
}

/** Weights of the elements of background rows, where these have factors of their own. */
static void weigh_background(const tare_problem *problem, const tare_tile *tile, const int32_t *restrict cls,
                             const block *b, real_scratch *s) {
  const int has_elements = tile->view->array[TARE_ARRAY_ELEMENT_WEIGHTS].data != NULL;
  for (int32_t c = 0; c < b->classes; c++)
    s->of_zeros[c] =
        alpha(problem, b->first_class + c, 0) * (real)problem->batch.background_negative_weights[b->first_class + c];
  for (int32_t line = 0; line < b->lines; line++)
    for (int32_t i = 0; i < b->length; i++) {
      const int32_t row = b->first_row + (b->by_class ? i : line), at = line * b->length + i;
      const real of_element = has_elements ? s->loss[at] : (real)1;
      const real weight = s->row_weight[row] * s->of_zeros[b->by_class ? line : i] * of_element;
      s->weight[at] = cls[row] == TARE_ROW_BACKGROUND ? weight : s->weight[at];
    }
  s->spread_lines = 0;
}

/** The weights of negatives that are no product of a row's and a class's. */
static __attribute__((noinline)) void weigh_apart(const tare_problem *problem, const tare_tile *tile, const block *b,
                                                  const int32_t *cls, real_scratch *s) {
  if (problem->label_smoothing > 0.0)
    weigh_terms(problem, tile, b, s);
  else
    weigh_background(problem, tile, cls, b, s);
}

/** The same of the labels' elements. Many parameters: they are apart from the block's. */
static __attribute__((noinline)) void weigh_picked_terms(const tare_problem *problem, const tare_tile *tile,
                                                         const block *b, int32_t picked, const int32_t *picked_at,
                                                         real_scratch *s) {
  const int has_elements = tile->view->array[TARE_ARRAY_ELEMENT_WEIGHTS].data != NULL;
  for (int32_t k = 0; k < picked; k++) {
    const int32_t at = picked_at[k], line = at / b->length, i = at % b->length;
    const int64_t c = b->first_class + (b->by_class ? line : i);
    const real of_row = s->row_weight[b->first_row + (b->by_class ? i : line)];
    const real of_both = of_row * alpha(problem, c, 1) * (has_elements ? s->loss[at] : (real)1);
    s->picked_weight[k] = of_both * positive_weight(problem, c);
    s->picked_plain[k] = of_both * negative_weight(problem, c);
  }
}
