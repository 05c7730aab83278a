/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Softmax rows with a target between two bins. One of the bins becomes the row's label: the one with the larger logit,
 * or the only one with a share. Then the loss is that of the label, and the other's share times its distance below.
 * No term is below 0, so nothing is lost. The gradient is that of the label, and the other's share moves from the
 * label to the other bin.
 */

/** The bins of a row with a target y, which is clamped. */
static int32_t split_target(const tare_problem *problem, real y, int32_t row, tare_two_hot *to) {
  const real last = (real)tare_last_target(problem), positive = y > 0 ? y : (real)0;
  const double t = (double)(positive < last ? positive : last);
  const int64_t top = problem->batch.classes - 1, bin = (int64_t)t;
  to->total[row] = 1;
  to->right[row] = bin < top ? t - (double)bin : 0.0;
  to->left[row] = bin < top ? (double)(bin + 1) - t : 1.0;
  return (int32_t)(bin < top ? bin : top);
}

static void split_weights(const real *weight, int32_t row, tare_two_hot *to) {
  const double total = (double)weight[0] + (double)weight[1];
  to->total[row] = total;
  to->left[row] = total > 0 ? (double)weight[0] / total : 1.0;
  to->right[row] = total > 0 ? (double)weight[1] / total : 0.0;
}

/** Which of a row's numbers no formula takes; -1: none. */
static int32_t refused_number(const tare_problem *problem, int32_t cls, const real *number) {
  const real least = (real)problem->score_least, most = (real)problem->score_most;
  const int32_t numbers = tare_bin_numbers(problem);
  for (int32_t i = 0; i < numbers; i++)
    if (!(number[i] >= least && number[i] <= most)) return i;
  return numbers == 2 && cls == problem->batch.classes - 1 && number[1] != 0 ? 1 : -1;
}

/** Reads the targets of a tile's rows, and skips the rows whose targets no formula takes. A row gets its left bin as
 *  its label. */
static void look_at_bins(const tare_problem *problem, const tare_tile *tile, tare_scratch *scratch,
                         tare_target_scan *scan) {
  const tare_array *scores = &tile->view->array[TARE_ARRAY_SCORES];
  const int32_t numbers = tare_bin_numbers(problem);
  tare_tile_rows *rows = &scratch->rows;
  for (int32_t p = 0; p < rows->positives; p++) {
    const int32_t i = rows->positive[p];
    real number[2];
    load(problem->batch.score_dtype, scores->data, tile->offset[TARE_ARRAY_SCORES] + i * scores->stride[TARE_AXES - 1],
         scores->cls, numbers, number);
    const int32_t refused = refused_number(problem, rows->cls[i], number);
    if (refused >= 0) {
      tare_note_target(scan, tile, i, rows->cls[i] + refused, (double)number[refused]);
      rows->cls[i] = TARE_ROW_SKIPPED;
      rows->weight[i] = 0;
    } else if (numbers == 1) {
      rows->cls[i] = split_target(problem, number[0], i, &scratch->two_hot);
    } else {
      split_weights(number, i, &scratch->two_hot);
    }
  }
}

/** Chooses the labels of a tile's rows, before any gradient takes the place of logits. */
static void choose_labels(const tare_problem *problem, const tare_tile *tile, tare_scratch *scratch) {
  const tare_array *logits = &tile->view->array[TARE_ARRAY_LOGITS];
  const int64_t from = tile->offset[TARE_ARRAY_LOGITS], stride = logits->stride[TARE_AXES - 1];
  tare_tile_rows *rows = &scratch->rows;
  tare_two_hot *hot = &scratch->two_hot;
  for (int32_t i = 0; i < tile->rows; i++) {
    const int32_t left = rows->cls[i];
    hot->other[i] = -1;
    if (left < 0) continue;
    rows->weight[i] *= hot->total[i];
    if (rows->weight[i] == 0) rows->cls[i] = TARE_ROW_SKIPPED;
    if (rows->weight[i] == 0 || hot->right[i] == 0) continue;
    rows->cls[i] = left + 1;
    if (hot->left[i] == 0) continue;
    real x[2];
    load(problem->batch.dtype, logits->data, from + i * stride + left * logits->cls, logits->cls, 2, x);
    const int is_right = x[1] > x[0];
    rows->cls[i] = left + is_right;
    hot->other[i] = left + !is_right;
    hot->of_other[i] = is_right ? hot->left[i] : hot->right[i];
    hot->distance[i] = x[0] == x[1] ? 0.0 : (double)x[is_right] - (double)x[!is_right];
  }
}

static void add_distances(int32_t n, tare_scratch *scratch) {
  const tare_two_hot *hot = &scratch->two_hot;
  for (int32_t i = 0; i < n; i++)
    if (hot->other[i] >= 0) scratch->row_loss[i] += scratch->rows.weight[i] * (hot->of_other[i] * hot->distance[i]);
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
