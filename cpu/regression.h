/* SPDX-License-Identifier: Apache-2.0 */
/* GHM-R: prediction - target, over the columns of rows that have a class. In double: rows with a class are few, and the
 * difference of two floats is then exact, so that bins are too. */

static void regression_loop(const tare_scratch_f64 *s, double mu, int32_t n, double *restrict loss,
                            double *restrict slope) {
#pragma omp simd
  for (int32_t i = 0; i < n; i++) { /* hot: ghm-r (any) */
    const pair_f64 value = ghm_r_f64(s->x[i], s->weight[i], mu);
    loss[i] = s->weight[i] != 0 ? value.loss : 0.0;
    slope[i] = s->weight[i] != 0 ? value.slope : 0.0;
  }
}

/** x = prediction - target, and |x| as the key of its gradient norm. */
static void load_differences(const tare_job *job, const tare_tile *tile, const block_f64 *b, tare_scratch *scratch) {
  tare_scratch_f64 *s = &scratch->f64;
  load_block_f64(tile, b, TARE_LOGITS, job->problem->batch.dtype, s->x);
  load_block_f64(tile, b, TARE_TARGETS, job->problem->batch.target_dtype, s->target);
  for (int32_t i = 0; i < b->n; i++) {
    s->x[i] -= s->target[i];
    scratch->key[i] = s->x[i] < 0 ? -s->x[i] : s->x[i];
  }
}

static void regression_evaluate(const tare_job *job, const tare_tile *tile, const block_f64 *b, tare_scratch *scratch,
                                tare_group_result *result) {
  tare_scratch_f64 *s = &scratch->f64;
  const tare_view *view = tile->view;
  const int32_t dtype = job->problem->batch.dtype;
  for (int32_t i = 0; i < b->n; i++)
    s->weight[i] *= job->density == TARE_DENSITY_EXACT ? tare_exact_weight(job, scratch->key[i])
                                                       : job->bins->weight_f64[scratch->bin[i]];
  regression_loop(s, job->problem->loss.ghm.mu, b->n, s->loss, s->slope);
  result->loss += sum_f64(s->loss, b->n);
  if (view->array[TARE_ROW_LOSS].data) add_row_losses_f64(b, s, scratch->row_loss);
  if (view->array[TARE_ELEMENT_LOSS].data)
    store_block_f64(tile, b, TARE_ELEMENT_LOSS, dtype == TARE_F64 ? TARE_F64 : TARE_F32, s->loss);
  if (!view->array[TARE_GRADIENT].data) return;
  for (int32_t i = 0; i < b->n; i++) s->slope[i] *= job->gradient_factor;
  store_block_f64(tile, b, TARE_GRADIENT, dtype, s->slope);
}

static void regression_block(const tare_job *job, const tare_tile *tile, const block_f64 *b, tare_scratch *scratch,
                             tare_group_result *result) {
  tare_scratch_f64 *s = &scratch->f64;
  load_differences(job, tile, b, scratch);
  spread_f64(b, s->row_weight + b->first_row, s->ones, s->weight);
  if (job->pass == TARE_PASS_COLLECT) {
    tare_job *writable = (tare_job *)(uintptr_t)job; /* this pass runs on one thread and counts its keys in the job */
    for (int32_t i = 0; i < b->n; i++)
      if (s->weight[i] != 0) job->collected_key[writable->key_count++] = tare_key_or_least(scratch->key[i], 0.0);
    return;
  }
  for (int32_t i = 0; i < b->n && job->density != TARE_DENSITY_EXACT; i++)
    scratch->bin[i] = tare_bin_by_bisection(job->bins, scratch->key[i]);
  if (job->pass == TARE_PASS_HISTOGRAM)
    for (int32_t i = 0; i < b->n; i++) scratch->histogram[0][scratch->bin[i]] += s->weight[i] != 0;
  else
    regression_evaluate(job, tile, b, scratch, result);
}

static void regression_tile(const tare_job *job, const tare_tile *tile, tare_scratch *scratch,
                            tare_group_result *result) {
  const tare_problem *problem = job->problem;
  const int64_t columns = problem->batch.classes;
  const int by_class = tare_view_by_class(tile->view, columns);
  const tare_array *row_loss = &tile->view->array[TARE_ROW_LOSS];
  tare_tile_rows_decode(problem, tile, &scratch->rows);
  fill_uniform_f64(job, tile, &scratch->rows, &scratch->f64);
  for (int32_t i = 0; i < tile->rows; i++) scratch->row_loss[i] = 0;
  for (int32_t row = 0; row < tile->rows;) {
    block_f64 b = {0};
    for (int64_t c = 0; c < columns; c += b.classes) {
      b = next_block_f64(tile, columns, by_class, row, c);
      regression_block(job, tile, &b, scratch, result);
    }
    row += b.rows;
  }
  if (job->pass == TARE_PASS_EVALUATE && row_loss->data)
    store_f64(problem->batch.dtype == TARE_F64 ? TARE_F64 : TARE_F32, row_loss->data, tile->offset[TARE_ROW_LOSS],
              row_loss->stride[TARE_AXES - 1], tile->rows, scratch->row_loss);
}
