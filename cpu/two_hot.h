/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Softmax rows with a target between two bins. One of the bins becomes the row's label: the one with the larger share,
 * and of equal shares the one with the larger logit. The loss is that of the label, and the other's share times its
 * distance below. Where the other is above, this takes away at most half of the label's loss. The gradient is that of
 * the label, and the other's share moves from the label to the other bin. At the label p-1 comes near to p-t, because t
 * is at least 1/2. With a smaller t a small p would be lost in it.
 */

/** The bins of n rows with a class and a target y, which is clamped. Returns whether a target is not finite. */
static int32_t split_targets(const tare_problem *problem, int32_t n, const real *restrict y, int32_t *restrict cls,
                             tare_two_hot *hot) {
  const real last = (real)tare_last_target(problem), least = (real)problem->score_least,
             most = (real)problem->score_most;
  const int32_t top = (int32_t)(problem->batch.classes - 1);
  double *restrict left = hot->left, *restrict right = hot->right, *restrict total = hot->total;
  int32_t refused = 0;
#pragma omp simd reduction(| : refused)
  for (int32_t i = 0; i < n; i++) refused |= (cls[i] >= 0) & !((y[i] >= least) & (y[i] <= most));
#pragma omp simd
  for (int32_t i = 0; i < n; i++) {
    const real positive = y[i] > 0 ? y[i] : (real)0, t = positive < last ? positive : last;
    const int32_t is_top = t >= (real)top, bin = (int32_t)(is_top ? (real)0 : t);
    right[i] = is_top ? 0.0 : (double)t - (double)bin;
    left[i] = is_top ? 1.0 : (double)(bin + 1) - (double)t;
    total[i] = 1.0;
    cls[i] = cls[i] < 0 ? cls[i] : is_top ? top : bin;
  }
  return refused;
}

/** The same of two weights. The last bin has none after it. */
static int32_t split_weights(const tare_problem *problem, int32_t n, const real *restrict first,
                             const real *restrict second, const int32_t *restrict cls, tare_two_hot *hot) {
  const real most = (real)problem->score_most;
  const int32_t top = (int32_t)(problem->batch.classes - 1);
  int32_t refused = 0;
  for (int32_t i = 0; i < n; i++) {
    const double total = (double)first[i] + (double)second[i];
    const int32_t are_weights = (first[i] >= 0) & (first[i] <= most) & (second[i] >= 0) & (second[i] <= most);
    refused |= (cls[i] >= 0) & !(are_weights & ((cls[i] < top) | (second[i] == 0)));
    hot->total[i] = total;
    hot->left[i] = total > 0 ? (double)first[i] / total : 1.0;
    hot->right[i] = total > 0 ? (double)second[i] / total : 0.0;
  }
  return refused;
}

/** Which of a row's numbers no formula takes; -1: none. */
static int32_t refused_number(const tare_problem *problem, int32_t cls, const real *number) {
  const real least = (real)problem->score_least, most = (real)problem->score_most;
  const int32_t numbers = tare_bin_numbers(problem);
  for (int32_t i = 0; i < numbers; i++)
    if (!(number[i] >= least && number[i] <= most)) return i;
  return numbers == 2 && cls == problem->batch.classes - 1 && number[1] != 0 ? 1 : -1;
}

/** Skips the rows whose targets no formula takes. */
static void refuse_bins(const tare_problem *problem, const tare_tile *tile, tare_scratch *scratch,
                        tare_target_scan *scan) {
  const real_scratch *s = real_scratch_of(scratch);
  tare_tile_rows *rows = &scratch->rows;
  for (int32_t i = 0; i < tile->rows; i++) {
    const real number[2] = {s->score[i], s->label_x[i]};
    const int32_t refused = rows->cls[i] < 0 ? -1 : refused_number(problem, rows->cls[i], number);
    if (refused < 0) continue;
    tare_note_target(scan, tile, i, rows->cls[i] + refused, (double)number[refused]);
    rows->cls[i] = TARE_ROW_SKIPPED;
    rows->weight[i] = 0;
  }
}

/** Reads the targets of a tile's rows. A row gets its left bin as its label. */
static void look_at_bins(const tare_problem *problem, const tare_tile *tile, tare_scratch *scratch,
                         tare_target_scan *scan) {
  const tare_array *scores = &tile->view->array[TARE_ARRAY_SCORES];
  const int64_t from = tile->offset[TARE_ARRAY_SCORES], stride = scores->stride[TARE_AXES - 1];
  const int32_t dtype = problem->batch.score_dtype, n = tile->rows;
  real_scratch *s = real_scratch_of(scratch);
  int32_t refused;
  load(dtype, scores->data, from, stride, n, s->score);
  if (tare_bin_numbers(problem) == 2) {
    load(dtype, scores->data, from + scores->cls, stride, n, s->label_x);
    refused = split_weights(problem, n, s->score, s->label_x, scratch->rows.cls, &scratch->two_hot);
  } else {
    refused = split_targets(problem, n, s->score, scratch->rows.cls, &scratch->two_hot);
  }
  if (refused) refuse_bins(problem, tile, scratch, scan);
}

/** The logits of a tile's left bins and of the next ones, for the rows that have a bin. */
static void load_pairs(const tare_problem *problem, const tare_tile *tile, const int32_t *restrict cls,
                       real *restrict left, real *restrict right) {
  const tare_array *logits = &tile->view->array[TARE_ARRAY_LOGITS];
  const int64_t stride = logits->stride[TARE_AXES - 1];
  const int32_t dtype = problem->batch.dtype, top = (int32_t)(problem->batch.classes - 1);
  const int is_real = dtype == REAL_DTYPE;
  for (int32_t i = 0; i < tile->rows; i++) {
    left[i] = right[i] = 0;
    if (cls[i] < 0) continue;
    const int64_t at = tile->offset[TARE_ARRAY_LOGITS] + i * stride + cls[i] * logits->cls;
    const int64_t next = cls[i] < top ? logits->cls : 0;
    real both[2];
    if (is_real) {
      both[0] = ((const real *)logits->data)[at];
      both[1] = ((const real *)logits->data)[at + next];
    } else {
      load(dtype, logits->data, at, next, 2, both);
    }
    left[i] = both[0];
    right[i] = both[1];
  }
}

/** How far x is below the label's logit. Infinitely far on either side, the loss is +inf: one of the bins has p = 0. */
TARE_INLINE double distance_below(real label_x, real x) {
  const double distance = x == label_x ? 0.0 : (double)label_x - (double)x;
  return distance - distance == 0 ? distance : fabs(distance);
}

/** Chooses the labels of a tile's rows, before any gradient takes the place of logits. */
static void choose_labels(const tare_problem *problem, const tare_tile *tile, tare_scratch *scratch) {
  real_scratch *s = real_scratch_of(scratch);
  real *restrict x = s->label_x, *restrict next = s->maximum;
  tare_two_hot *hot = &scratch->two_hot;
  const double *restrict left = hot->left, *restrict right = hot->right, *restrict total = hot->total;
  double *restrict weight = scratch->rows.weight, *restrict of_other = hot->of_other, *restrict away = hot->distance;
  int32_t *restrict cls = scratch->rows.cls, *restrict other = hot->other;
  const int32_t n = tile->rows;
  load_pairs(problem, tile, cls, x, next);
#pragma omp simd
  for (int32_t i = 0; i < n; i++) {
    const int32_t bin = cls[i];
    const double weighed = bin < 0 ? weight[i] : weight[i] * total[i];
    const int32_t is_skipped = weighed == 0, has_next = right[i] != 0, has_both = has_next & (left[i] != 0);
    const int32_t is_larger = right[i] == left[i] ? next[i] > x[i] : right[i] > left[i];
    const int32_t is_next = has_next & ((left[i] == 0) | is_larger);
    weight[i] = weighed;
    cls[i] = bin < 0 ? bin : is_skipped ? TARE_ROW_SKIPPED : bin + is_next;
    other[i] = (bin >= 0) & !is_skipped & has_both ? bin + 1 - is_next : -1;
    of_other[i] = is_next ? left[i] : right[i];
    away[i] = distance_below(is_next ? next[i] : x[i], is_next ? x[i] : next[i]);
  }
}

static void add_distances(int32_t n, tare_scratch *scratch) {
  const tare_two_hot *hot = &scratch->two_hot;
  const int32_t *restrict other = hot->other;
  const double *restrict of_other = hot->of_other, *restrict distance = hot->distance;
  const double *restrict weight = scratch->rows.weight;
  double *restrict loss = scratch->row_loss;
#pragma omp simd
  for (int32_t i = 0; i < n; i++) loss[i] = other[i] >= 0 ? loss[i] + weight[i] * (of_other[i] * distance[i]) : loss[i];
}

/** What a row's gradient has more at the label, and less at the other bin. */
TARE_INLINE real moved_from_label(const tare_job *job, int32_t row, const tare_scratch *scratch) {
  return (real)(scratch->rows.weight[row] * scratch->two_hot.of_other[row] * job->gradient.factor);
}

/** Distances in the buffer between neighbouring rows, and between neighbouring bins. */
typedef struct bin_steps {
  int64_t row, bin;
} bin_steps;

/** Rows [first, first+n) of a tile, whose gradients begin at x. */
static void share_labels(const tare_job *job, int32_t first, int32_t n, bin_steps step, real *x,
                         const tare_scratch *scratch) {
  for (int32_t i = 0; i < n; i++) {
    const int32_t other = scratch->two_hot.other[first + i];
    if (other < 0) continue;
    const real moved = moved_from_label(job, first + i, scratch);
    x[i * step.row + scratch->rows.cls[first + i] * step.bin] += moved;
    x[i * step.row + other * step.bin] -= moved;
  }
}

/** The same of n classes of one row. */
static void share_chunk(const tare_job *job, int32_t row, int64_t first_class, int64_t n, real *x,
                        const tare_scratch *scratch) {
  const int64_t other = scratch->two_hot.other[row], label = scratch->rows.cls[row];
  if (other < 0) return;
  const real moved = moved_from_label(job, row, scratch);
  if (label >= first_class && label < first_class + n) x[label - first_class] += moved;
  if (other >= first_class && other < first_class + n) x[other - first_class] -= moved;
}
