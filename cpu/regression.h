/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GHM-R: prediction - target, over the columns of rows that have a class. Such rows are few. Only they are read, and
 * they are packed. The gradient of the others is filled with zeros. All is in double: the difference of two floats is
 * then exact, and so are the bins.
 */

/** Some of a tile's rows with a class, and some of their columns: rows->positive[first .. first+rows). */
typedef struct regression_piece {
  int32_t first, rows, columns, n;
  int64_t first_column;
} regression_piece;

static int64_t regression_offset(const tare_tile *tile, int name, int32_t row, int64_t column) {
  const tare_array *array = &tile->view->array[name];
  return tile->offset[name] + row * array->stride[TARE_AXES - 1] + column * array->cls;
}

/** How many of a piece's rows from the i-th on follow one another in the tile. */
static int32_t rows_in_turn(const regression_piece *p, int32_t i, const tare_scratch *scratch) {
  const int32_t *row = scratch->rows.positive + p->first + i;
  int32_t rows = 1;
  while (i + rows < p->rows && row[rows] == row[0] + rows) rows++;
  return rows;
}

/** x = prediction - target, and |x| as the key of its gradient norm. */
static void load_differences(const tare_job *job, const tare_tile *tile, const regression_piece *p,
                             tare_scratch *scratch) {
  const tare_batch *batch = &job->problem->batch;
  const tare_array *array = tile->view->array;
  real_scratch *s = real_scratch_of(scratch);
  for (int32_t i = 0, rows; i < p->rows; i += rows) {
    rows = rows_in_turn(p, i, scratch);
    const int32_t row = scratch->rows.positive[p->first + i];
    load_lines(batch->dtype, array[TARE_ARRAY_LOGITS].data,
               regression_offset(tile, TARE_ARRAY_LOGITS, row, p->first_column),
               array[TARE_ARRAY_LOGITS].stride[TARE_AXES - 1], array[TARE_ARRAY_LOGITS].cls, rows, p->columns,
               s->x + (ptrdiff_t)i * p->columns);
    load_lines(batch->target_dtype, array[TARE_ARRAY_TARGETS].data,
               regression_offset(tile, TARE_ARRAY_TARGETS, row, p->first_column),
               array[TARE_ARRAY_TARGETS].stride[TARE_AXES - 1], array[TARE_ARRAY_TARGETS].cls, rows, p->columns,
               s->target + (ptrdiff_t)i * p->columns);
  }
  for (int32_t i = 0; i < p->n; i++) {
    s->x[i] -= s->target[i];
    scratch->key[i] = s->x[i] < 0 ? -s->x[i] : s->x[i];
  }
}

/** For keys in the first `reached` bins. Keys are doubles: SSE2 has no vectors for this. */
static void bins_of_chunk_by_few(const tare_bins *bins, int32_t reached, const real *restrict key,
                                 int32_t *restrict bin) {
  memset(bin, 0, CHUNK * sizeof *bin);
  for (int32_t k = 1; k < reached; k++) {
    const real lower = lower_of(bins)[k];
#pragma omp simd
    for (int i = 0; i < CHUNK; i++) bin[i] += key[i] >= lower;
  }
}

/** The bins of n keys in whole chunks. */
static void find_bins(const tare_bins *bins, const real *restrict key, int32_t n, int32_t *restrict bin) {
  for (int32_t start = 0; start < n; start += CHUNK) {
    const real largest = largest_key(key + start);
    const int32_t reached = bins->count <= FEW_TO_WEIGH ? bins->count : bins_up_to(bins, largest);
    if (is_first_bin(bins, largest))
      memset(bin + start, 0, CHUNK * sizeof *bin);
    else if (reached <= FEW_TO_WEIGH)
      bins_of_chunk_by_few(bins, reached, key + start, bin + start);
    else
      bins_of_chunk(bins, key + start, bin + start);
  }
}

/** The bin of each difference. A few bins are told by comparison with each threshold. */
static void find_bins_of_differences(const tare_bins *bins, int32_t n, tare_scratch *scratch) {
  double *key = scratch->key;
  if (bins->count <= FEW_TO_WEIGH) {
    for (int32_t i = n; i < whole_chunks(n); i++) key[i] = 0;
    find_bins(bins, key, n, scratch->bin);
  } else {
    for (int32_t i = 0; i < n; i++) scratch->bin[i] = tare_bin_by_bisection(bins->lower_f64, bins->count, key[i]);
  }
}

/** The place of a piece's first element. The rows that it has move up, to where others of its tile have theirs. */
static int64_t place_of_piece(const tare_job *job, const tare_tile *tile, const regression_piece *p) {
  return tile->place + p->first * job->problem->batch.classes + p->first_column;
}

static void weigh_differences(const tare_job *job, const tare_tile *tile, const regression_piece *p,
                              tare_scratch *scratch, double *restrict weight) {
  const int32_t n = p->n;
  if (job->density == TARE_DENSITY_USE_EXACT) {
    memcpy(weight, (const double *)job->inverse_density + place_of_piece(job, tile, p), (size_t)n * sizeof *weight);
    return;
  }
  find_bins_of_differences(job->bins, n, scratch);
  for (int32_t i = 0; i < n; i++) weight[i] = job->bins->weight_f64[scratch->bin[i]];
}

static void count_differences(const tare_bins *bins, int32_t n, tare_scratch *scratch) {
  find_bins_of_differences(bins, n, scratch);
  for (int32_t i = 0; i < n; i++) scratch->histogram[i & 3][scratch->bin[i]]++;
}

static void regression_loop(const real_scratch *s, double mu, int32_t n, double *restrict loss,
                            double *restrict derivative) {
#pragma omp simd
  for (int32_t i = 0; i < n; i++) { /* hot: ghm-r (any) */
    const pair value = ghm_r(s->x[i], s->weight[i], mu);
    loss[i] = s->weight[i] != 0 ? value.loss : 0.0;
    derivative[i] = s->weight[i] != 0 ? value.derivative : 0.0;
  }
}

static void store_regression(const tare_job *job, const tare_tile *tile, const regression_piece *p,
                             tare_scratch *scratch) {
  const int32_t dtype = job->problem->batch.dtype,
                loss_dtype = dtype == TARE_DTYPE_F64 ? TARE_DTYPE_F64 : TARE_DTYPE_F32;
  const tare_array *array = tile->view->array;
  const real_scratch *s = real_scratch_of(scratch);
  for (int32_t i = 0; i < p->rows; i++)
    scratch->row_loss[scratch->rows.positive[p->first + i]] += sum(s->loss + i * p->columns, p->columns);
  for (int32_t i = 0, rows; i < p->rows; i += rows) {
    rows = rows_in_turn(p, i, scratch);
    const int32_t row = scratch->rows.positive[p->first + i], at = i * p->columns;
    if (array[TARE_ARRAY_ELEMENT_LOSS].data)
      store_lines(loss_dtype, array[TARE_ARRAY_ELEMENT_LOSS].data,
                  regression_offset(tile, TARE_ARRAY_ELEMENT_LOSS, row, p->first_column),
                  array[TARE_ARRAY_ELEMENT_LOSS].stride[TARE_AXES - 1], array[TARE_ARRAY_ELEMENT_LOSS].cls, rows,
                  p->columns, s->loss + at);
    if (array[TARE_ARRAY_GRADIENT].data)
      store_lines(dtype, array[TARE_ARRAY_GRADIENT].data,
                  regression_offset(tile, TARE_ARRAY_GRADIENT, row, p->first_column),
                  array[TARE_ARRAY_GRADIENT].stride[TARE_AXES - 1], array[TARE_ARRAY_GRADIENT].cls, rows, p->columns,
                  s->derivative + at);
  }
}

static void regression_evaluate(const tare_job *job, const tare_tile *tile, const regression_piece *p,
                                tare_scratch *scratch, tare_group_result *result) {
  real_scratch *s = real_scratch_of(scratch);
  weigh_differences(job, tile, p, scratch, s->weight);
  regression_loop(s, job->problem->loss.ghm.mu, p->n, s->loss, s->derivative);
  result->loss += sum(s->loss, p->n);
  for (int32_t i = 0; i < p->n; i++) s->derivative[i] *= job->gradient.factor;
  rescale(job, s->derivative, p->n);
  store_regression(job, tile, p, scratch);
}

static void regression_work(const tare_job *job, const tare_tile *tile, const regression_piece *p,
                            tare_scratch *scratch, tare_group_result *result) {
  load_differences(job, tile, p, scratch);
  if (job->pass == TARE_PASS_EVALUATE)
    regression_evaluate(job, tile, p, scratch, result);
  else if (job->pass == TARE_PASS_HISTOGRAM)
    count_differences(job->bins, p->n, scratch);
  else
    for (int32_t i = 0; i < p->n; i++)
      job->key[place_of_piece(job, tile, p) + i] = tare_ordered_bits(tare_key_or_least(scratch->key[i], 0.0));
}

/** Zeros for rows [first, last) of an output with a class axis. `zeros` holds TARE_BLOCK of them. */
static void clear_rows(const tare_job *job, const tare_tile *tile, int name, int32_t dtype, int32_t first, int32_t last,
                       const double *zeros) {
  const tare_array *array = &tile->view->array[name];
  const int64_t columns = job->problem->batch.classes;
  for (int64_t column = 0; array->data && column < columns; column += TARE_BLOCK) {
    const int64_t span = columns - column < TARE_BLOCK ? columns - column : TARE_BLOCK;
    const int32_t fit = (int32_t)(TARE_BLOCK / span);
    for (int32_t row = first; row < last; row += fit)
      store_lines(dtype, array->data, regression_offset(tile, name, row, column), array->stride[TARE_AXES - 1],
                  array->cls, last - row < fit ? last - row : fit, span, zeros);
  }
}

static void clear_other_rows(const tare_job *job, const tare_tile *tile, tare_scratch *scratch) {
  const int32_t dtype = job->problem->batch.dtype;
  double *zeros = real_scratch_of(scratch)->x;
  memset(zeros, 0, TARE_BLOCK * sizeof *zeros);
  for (int32_t k = 0, first = 0; k <= scratch->rows.positives; k++) {
    const int32_t last = k < scratch->rows.positives ? scratch->rows.positive[k] : tile->rows;
    clear_rows(job, tile, TARE_ARRAY_GRADIENT, dtype, first, last, zeros);
    clear_rows(job, tile, TARE_ARRAY_ELEMENT_LOSS, dtype == TARE_DTYPE_F64 ? TARE_DTYPE_F64 : TARE_DTYPE_F32, first,
               last, zeros);
    first = last + 1;
  }
}

static void regression_tile(const tare_job *job, const tare_tile *tile, tare_scratch *scratch,
                            tare_group_result *result) {
  const tare_problem *problem = job->problem;
  const int64_t columns = problem->batch.classes;
  tare_tile_rows_decode(problem, tile, &scratch->rows);
  for (int32_t i = 0; i < tile->rows; i++) scratch->row_loss[i] = 0;
  if (job->pass == TARE_PASS_COLLECT) /* keys of no element, where none follow */
    memset(job->key + tile->place, 0xff, (size_t)(tile->rows * columns) * sizeof *job->key);
  const int32_t fit = columns < TARE_BLOCK ? (int32_t)(TARE_BLOCK / columns) : 1;
  for (int32_t first = 0; first < scratch->rows.positives; first += fit)
    for (int64_t column = 0; column < columns; column += TARE_BLOCK) {
      regression_piece p = {.first = first, .first_column = column};
      p.rows = scratch->rows.positives - first < fit ? scratch->rows.positives - first : fit;
      p.columns = (int32_t)(columns - column < TARE_BLOCK ? columns - column : TARE_BLOCK);
      p.n = p.rows * p.columns;
      regression_work(job, tile, &p, scratch, result);
    }
  if (job->pass != TARE_PASS_EVALUATE) return;
  clear_other_rows(job, tile, scratch);
  store_row_loss(problem, tile, scratch->row_loss);
}
