/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sigmoid family: element by element.
 *
 * A block of up to TARE_BLOCK elements is brought into first-level cache, worked on there by loops that the compiler
 * vectorises, and taken out again, so types, strides and phases of the caller's arrays concern only the two transfers
 * (one read and one write of memory an element). All elements are computed as negatives, by their signed logit
 * z = -x; the few of the labels are gathered, done once more by their target, and put in their places: with the sign of
 * x turned where the target is 1 and its formula the mirror of a negative's, else as dense targets are. Where the
 * caller's elements are contiguous and of the type `real`, they are read and written in place.
 */

/** Gathers the labels' elements with weights of their own; returns how many. They have targets of their own where the
 *  task of labels wants them, else the sign of x is turned. */
static int32_t pick_positives(const tare_job *job, const tare_tile *tile, const block *b, const real *x,
                              const element_task *of_labels, tare_scratch *scratch, real_scratch *s) {
  const tare_tile_rows *rows = &scratch->rows;
  const int has_elements = tile->view->array[TARE_ARRAY_ELEMENT_WEIGHTS].data != NULL;
  const int has_scores = tile->view->array[TARE_ARRAY_SCORES].data != NULL;
  int32_t picked = 0;
  for (int32_t p = b->first_positive; p < rows->positives && !job->problem->soft; p++) {
    const int32_t i = rows->positive[p] - b->first_row;
    const int64_t c = rows->cls[rows->positive[p]] - b->first_class;
    if (i >= b->rows) break;
    if (c < 0 || c >= b->classes) continue;
    const int32_t at = (int32_t)(b->by_class ? c * b->length + i : i * (int64_t)b->length + c);
    const real of_row = s->row_weight[rows->positive[p]], of_ones = positive_weight(job->problem, b->first_class + c);
    const real of_element = has_elements ? s->loss[at] : (real)1; /* where build_weights left them */
    const real score = has_scores ? s->score[rows->positive[p]] : (real)1;
    const int has_alpha_of_1 = score > 0 || !tare_is_negative_at_0(job->problem);
    s->picked_x[picked] = of_labels->is_soft ? x[at] : -x[at];
    s->picked_target[picked] = score;
    s->picked_weight[picked] = of_row * alpha(job->problem, b->first_class + c, has_alpha_of_1) * of_element * of_ones;
    s->picked_plain[picked] = of_row * of_element * of_ones;
    if (job->problem->gamma_per_class)
      s->picked_gamma[picked] = (real)job->problem->gamma_per_class[b->first_class + c];
    scratch->picked_at[picked++] = at;
  }
  const int32_t unit = job->density ? CHUNK : UNIT, padded = (picked + unit - 1) / unit * unit;
  for (int32_t k = picked; k < padded; k++)
    s->picked_x[k] = s->picked_target[k] = s->picked_weight[k] = s->picked_plain[k] = s->picked_gamma[k] = 0;
  return picked;
}

static void add_row_losses(const block *b, const real_scratch *s, double *row_loss) {
  for (int32_t line = 0; line < b->lines; line++) {
    const real *loss = s->loss + (ptrdiff_t)line * b->length;
    if (b->by_class)
      for (int32_t i = 0; i < b->length; i++) row_loss[b->first_row + i] += (double)loss[i];
    else
      row_loss[b->first_row + line] += sum(loss, b->length);
  }
}

/** Whether a block is one stretch of the caller's array. */
static int is_contiguous(const tare_tile *tile, const block *b, int name) {
  const tare_array *array = &tile->view->array[name];
  const int64_t row = array->stride[TARE_AXES - 1], along = b->by_class ? row : array->cls;
  const int64_t line = b->by_class ? array->cls : row;
  return along == 1 && (b->lines <= 1 || line == b->length);
}

/** The elements of a block at the caller's, if they are contiguous, of the type `real`, and can be worked on in
 *  place; NULL where they have to be brought together. */
static real *in_place(const tare_job *job, const tare_tile *tile, const block *b, int name) {
  const tare_array *array = &tile->view->array[name];
  if (job->problem->batch.dtype != REAL_DTYPE || !is_contiguous(tile, b, name)) return NULL;
  return (real *)array->data + block_offset(tile, b, name);
}

/** The elements of a block with target 0, or with soft targets: in place, or brought together with what they weigh. */
static stretch stretch_of(const tare_job *job, const tare_tile *tile, const block *b, const tare_scratch *scratch,
                          real_scratch *s) {
  const tare_problem *problem = job->problem;
  stretch on = {b->n, s->x, s->weight, s->base_weight, s->loss, s->derivative, s->target, s->gamma};
  const int has_gradient = job->pass == TARE_PASS_EVALUATE && tile->view->array[TARE_ARRAY_GRADIENT].data != NULL;
  const real *x = problem->soft || scratch->class_sums ? NULL : in_place(job, tile, b, TARE_ARRAY_LOGITS);
  real *derivative = x && has_gradient ? in_place(job, tile, b, TARE_ARRAY_GRADIENT) : NULL;
  if (derivative && job->past_caches) derivative = s->outgoing;
  build_weights(job, tile, b, s);
  if (problem->gamma_per_class) spread_gamma(problem, b, s);
  if (problem->weighs_apart) weigh_apart(problem, tile, b, scratch->rows.cls, s);
  if (!problem->soft && has_mask(tile) && !s->folds_mask) mask_elements(problem, tile, b, s);
  for (int32_t i = b->n; i < whole_chunks(b->n); i++) s->x[i] = s->target[i] = s->weight[i] = s->base_weight[i] = 0;
  if (x && (derivative || !has_gradient)) {
    on.x = x;
    if (derivative) on.derivative = derivative;
    return on;
  }
  load_block(tile, b, TARE_ARRAY_LOGITS, problem->batch.dtype, s->x);
  if (!problem->soft) return on;
  load_block(tile, b, TARE_ARRAY_TARGETS, problem->batch.target_dtype, s->target);
  if (scratch->clamps_targets) clamp_targets(s->target, b->n);
  if (problem->weighs_terms)
    weigh_terms(problem, tile, b, s);
  else
    weigh_soft(job, tile, b, s);
  if (has_mask(tile)) mask_elements(problem, tile, b, s);
  return on;
}

/** The two loops of a tile. Most elements are negatives or have dense targets. The labels' have their own loop. */
typedef struct tile_tasks {
  element_task elements, labels;
} tile_tasks;

/** Runs a loop, and finds 1/GD before, on whole vectors or chunks. */
static void run_whole(const tare_job *job, stretch *on, const element_task *task, tare_scratch *scratch) {
  real_scratch *s = real_scratch_of(scratch);
#ifdef HAS_VECTORS
  if (job->density == TARE_DENSITY_USE_BINS && !job->problem->soft) { /* GHM-C, whose formula is cross-entropy */
    ce_of_binned_negatives(job->bins, (real)job->gradient.factor, on, s->dense_weight, scratch->bin);
    rescale(job, on->derivative, on->n);
    return;
  }
#endif
  real *const weight = on->weight;
  if (job->density == TARE_DENSITY_USE_BINS) {
    weigh_by_bin(job, on, on->target, scratch, s->dense_weight);
    on->weight = s->dense_weight;
  }
  evaluate_elements(task, (real)job->gradient.factor, on);
  on->weight = weight;
  rescale(job, on->derivative, on->n);
}

/** Runs a loop on the caller's elements from the place `whole` on, which fill no vector, by way of scratch. */
static void run_rest(const tare_job *job, const stretch *on, int32_t whole, int32_t unit, const element_task *task,
                     tare_scratch *scratch) {
  real_scratch *s = real_scratch_of(scratch);
  const int32_t rest = on->n - whole;
  memcpy(s->x, on->x + whole, (size_t)rest * sizeof *s->x);
  for (int32_t i = rest; i < unit; i++) s->x[i] = 0;
  stretch tail = {unit,          s->x,      on->weight + whole, on->base_weight + whole, on->loss + whole,
                  s->derivative, s->target, on->gamma + whole};
  run_whole(job, &tail, task, scratch);
  if (on->derivative != s->derivative)
    memcpy(on->derivative + whole, s->derivative, (size_t)rest * sizeof *s->derivative);
}

/** Runs a loop on any number of elements. Scratch is padded. Changes `on` for a while: vectors that copy it would wait
 *  until its members, and all stores before them, are in the cache. */
static void run(const tare_job *job, stretch *on, const element_task *task, tare_scratch *scratch) {
  const real_scratch *s = real_scratch_of(scratch);
  const int32_t unit = job->density ? CHUNK : UNIT, n = on->n, whole = n / unit * unit;
  const int is_padded = on->x == s->x || on->x == s->picked_x;
  on->n = is_padded ? (n + unit - 1) / unit * unit : whole;
  run_whole(job, on, task, scratch);
  on->n = n;
  if (whole < n && !is_padded) run_rest(job, on, whole, unit, task, scratch);
}

/** Stores a block's gradient, unless it is in its place already. */
static void store_gradient(const tare_job *job, const tare_tile *tile, const block *b, const real *from,
                           real_scratch *s) {
  const int32_t dtype = job->problem->batch.dtype;
  if (from != s->derivative && from != s->outgoing) return;
  if (job->past_caches && is_contiguous(tile, b, TARE_ARRAY_GRADIENT))
    store_past_caches(dtype, tile->view->array[TARE_ARRAY_GRADIENT].data, block_offset(tile, b, TARE_ARRAY_GRADIENT),
                      b->n, from, s->outgoing);
  else
    store_block(tile, b, TARE_ARRAY_GRADIENT, dtype, from);
}

/** Loss and gradient of a block: its elements, then its positives again. Many parameters: all state of a tile is with
 *  the caller. */
static void evaluate_block(const tare_job *job, const tare_tile *tile, const block *b, stretch *on, stretch *positives,
                           const tile_tasks *tasks, tare_scratch *scratch, tare_group_result *result) {
  real_scratch *s = real_scratch_of(scratch);
  const tare_view *view = tile->view;
  run(job, on, &tasks->elements, scratch);
  if (positives->n) run(job, positives, &tasks->labels, scratch);
  for (int32_t k = 0; k < positives->n; k++) {
    on->loss[scratch->picked_at[k]] = positives->loss[k];
    on->derivative[scratch->picked_at[k]] =
        tasks->labels.is_soft ? positives->derivative[k] : 0 - positives->derivative[k];
  }
  result->loss += sum(s->loss, (b->n + UNIT - 1) / UNIT * UNIT);
  if (view->array[TARE_ARRAY_ROW_LOSS].data) add_row_losses(b, s, scratch->row_loss);
  if (view->array[TARE_ARRAY_ELEMENT_LOSS].data)
    store_block(tile, b, TARE_ARRAY_ELEMENT_LOSS,
                job->problem->batch.dtype == TARE_DTYPE_F64 ? TARE_DTYPE_F64 : TARE_DTYPE_F32, s->loss);
  if (view->array[TARE_ARRAY_GRADIENT].data) store_gradient(job, tile, b, on->derivative, s);
  if (scratch->class_sums) sum_block(b, positives->n, job->problem->soft, scratch);
}

/** Whether a pass that counts looks at the weight of each element: else all elements of a row count, or none. */
static int counts_element_by_element(const tare_job *job, const tare_tile *tile) {
  return job->pass == TARE_PASS_HISTOGRAM && !job->problem->soft &&
         (tile->view->array[TARE_ARRAY_ELEMENT_WEIGHTS].data || tile->view->array[TARE_ARRAY_CLASS_MASK].data);
}

/** Counts or collects the gradient norms of a block. */
static void take_norms(const tare_job *job, const tare_tile *tile, const block *b, const stretch *on,
                       const stretch *positives, const element_task *of_labels, tare_scratch *scratch) {
  real_scratch *s = real_scratch_of(scratch);
  if (job->pass == TARE_PASS_COLLECT) {
    collect_keys(job, tile, b, on, positives, scratch);
    return;
  }
  if (counts_element_by_element(job, tile))
    for (int32_t i = 0; i < b->n; i++) scratch->histogram[0][0] += s->weight[i] != 0;
  for (int32_t k = 0; k < positives->n; k++) s->weight[scratch->picked_at[k]] = 0;
  count_keys(job, on, s->target, scratch);
  if (positives->n && of_labels->is_soft)
    count_scored_keys(job, positives, positives->target, scratch);
  else if (positives->n)
    count_keys(job, positives, NULL, scratch);
  for (int32_t k = 0; k < positives->n; k++) s->weight[scratch->picked_at[k]] = s->picked_weight[k]; /* GHM: no alpha */
}

static void sigmoid_block(const tare_job *job, const tare_tile *tile, const block *b, const tile_tasks *tasks,
                          tare_scratch *scratch, tare_group_result *result) {
  real_scratch *s = real_scratch_of(scratch);
  stretch on = stretch_of(job, tile, b, scratch, s);
  const int32_t picked = pick_positives(job, tile, b, on.x, &tasks->labels, scratch, s);
  if (job->problem->weighs_terms) weigh_picked_terms(job->problem, tile, b, picked, scratch->picked_at, s);
  if (has_mask(tile)) mask_picked(tile, b, picked, scratch->picked_at, s);
  stretch positives = {picked,         s->picked_x,          s->picked_weight, s->picked_plain,
                       s->picked_loss, s->picked_derivative, s->picked_target, s->picked_gamma};
  if (job->density == TARE_DENSITY_USE_EXACT)
    weigh_by_place(job, place_of_block(tile, job->problem->batch.classes, b), &on, &positives, scratch->picked_at, s);
  if (job->pass == TARE_PASS_EVALUATE)
    evaluate_block(job, tile, b, &on, &positives, tasks, scratch, result);
  else
    take_norms(job, tile, b, &on, &positives, &tasks->labels, scratch);
  if (job->problem->soft || tile->view->array[TARE_ARRAY_ELEMENT_WEIGHTS].data) s->spread_lines = 0;
}

static block next_block(const tare_tile *tile, int64_t classes, int by_class, int32_t row, int64_t cls) {
  block b = {.first_row = row, .first_class = cls, .by_class = by_class};
  if (by_class) {
    const int64_t fit = TARE_BLOCK / tile->rows, left = classes - cls;
    b.rows = b.length = tile->rows;
    b.classes = b.lines = (int32_t)(left < fit ? left : fit);
  } else {
    const int64_t span = classes - cls < TARE_BLOCK ? classes - cls : TARE_BLOCK;
    const int64_t fit = span == classes ? TARE_BLOCK / classes : 1, left = tile->rows - row;
    b.classes = b.length = (int32_t)span;
    b.rows = b.lines = (int32_t)(left < fit ? left : fit);
  }
  b.n = b.lines * b.length;
  return b;
}

static void sigmoid_tile(const tare_job *job, const tare_tile *tile, tare_scratch *scratch, tare_group_result *result) {
  const tare_problem *problem = job->problem;
  const int64_t classes = problem->batch.classes;
  element_task task = {.kind = problem->loss.kind,
                       .power = problem->power,
                       .shape = problem->shape,
                       .is_soft = problem->soft,
                       .has_negatives = 1,
                       .wants_derivative = tile->view->array[TARE_ARRAY_GRADIENT].data || scratch->class_sums,
                       .parameters = parameters_of(problem)};
  choose_loops(problem, &task);
  tile_tasks tasks = {task, task};
  const int by_class = tare_view_by_class(tile->view, classes);
  const int64_t spoilt = result->targets.rows;
  if (!look_at_rows(job, tile, scratch, result)) return;
  if (scratch->class_sums) count_for_all_classes(problem, tile, result->targets.rows - spoilt, scratch);
  tasks.labels.is_soft |= problem->labels_apart || tile->view->array[TARE_ARRAY_SCORES].data;
  tasks.labels.has_negatives = tare_is_negative_at_0(problem);
  weigh_lines(problem, tile, &scratch->rows, real_scratch_of(scratch));
  if (job->pass == TARE_PASS_HISTOGRAM && !problem->soft && !counts_element_by_element(job, tile))
    scratch->histogram[0][0] +=
        classes * weighted_rows(real_scratch_of(scratch), tile->rows); /* count_bins moves them */
  for (int32_t i = 0; i < tile->rows; i++) scratch->row_loss[i] = 0;
  for (int32_t row = 0, positive = 0; row < tile->rows;) {
    block b = {0};
    while (positive < scratch->rows.positives && scratch->rows.positive[positive] < row) positive++;
    for (int64_t cls = 0; cls < classes; cls += b.classes) {
      b = next_block(tile, classes, by_class, row, cls);
      b.first_positive = positive;
      sigmoid_block(job, tile, &b, &tasks, scratch, result);
    }
    row += b.rows;
  }
  if (job->pass == TARE_PASS_EVALUATE) store_row_loss(problem, tile, scratch->row_loss);
}
