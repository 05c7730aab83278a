/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The steps of the fused head on the CPU; core/linear_chunks.h has their order. A chunk of rows gets its logits from a
 * product and is evaluated as a flat f32 batch, gradient in place. Features and weights of a half type are converted to
 * f32, W once a call and X a chunk at a time.
 */
#include <math.h>
#include <string.h>

#include "backend.h"
#include "blas.h"
#include "core/class_sums.h"
#include "core/divide.h"
#include "core/linear_chunks.h"
#include "half_rows.h"
#include "threads.h"

enum {
  BLOCK = 256,            /* rows that a thread takes at a time */
  LINE = 16,              /* floats of a cache line */
  AMPLE_BYTES = 96 << 20, /* of a chunk's logits and features: more makes the products no faster */
  PART_ALIGNMENT = 64     /* of the workspace's parts: a cache line, where the workspace begins with one */
};

/** A call at work. */
typedef struct head {
  tare_cpu *cpu;
  const tare_linear_plan *plan;
  tare_error *error;
  tare_sgemm *sgemm;
  const float *weights, *bias; /* in f32; bias may be NULL */
  int64_t converted;           /* the first row of the chunk whose features lie converted; -1: none */
  double carried;              /* a scale that is not finite: the products are formed without it; else 1 */
  float *apart;                /* this call's gradient by W, to be added; NULL: it is formed in its place */
  tare_ghm_state state;
  tare_counts counts;
  double divisor;
  tare_job job;             /* of the evaluating pass */
  double loss;              /* the sum so far */
  tare_target_scan targets; /* invalid ones, of the pass over all chunks */
} head;

/** Data of a chunk that the threads share. */
typedef struct chunk_work {
  const head *head;
  const tare_linear_chunk *chunk;
} chunk_work;

static int is_half(const tare_linear *linear) { return linear->dtype != TARE_DTYPE_F32; }

static int64_t classes_of(const head *h) { return h->plan->problem->batch.classes; }

/** Rows [piece, piece + 1) x BLOCK of `rows`. */
static int64_t block_end(int64_t piece, int64_t rows) {
  return (piece + 1) * BLOCK < rows ? (piece + 1) * BLOCK : rows;
}

static int64_t blocks_of(int64_t rows) { return (rows + BLOCK - 1) / BLOCK; }

static void share_rows(const head *h, const tare_linear_chunk *k, tare_piece_function *work) {
  chunk_work shared = {h, k};
  tare_share(h->cpu->threads, blocks_of(k->rows), work, &shared);
}

/* Logits. */

static void convert_some_features(void *argument, int64_t piece, int32_t thread) {
  const chunk_work *work = argument;
  const tare_linear_chunk *k = work->chunk;
  const tare_linear *linear = work->head->plan->linear;
  float *to = work->head->plan->part[TARE_PART_FEATURES];
  (void)thread;
  for (int64_t i = piece * BLOCK; i < block_end(piece, k->rows); i++)
    tare_read_half(linear->dtype, linear->features, (k->first + i) * linear->features_stride, linear->dimensions,
                   to + i * linear->dimensions);
}

/** A chunk's features in f32, and how far apart they lie. */
static const float *features_of(head *h, const tare_linear_chunk *k, int *stride) {
  const tare_linear *linear = h->plan->linear;
  *stride = (int)(is_half(linear) ? linear->dimensions : linear->features_stride);
  if (!is_half(linear)) return (const float *)linear->features + k->first * linear->features_stride;
  if (h->converted != k->first) share_rows(h, k, convert_some_features);
  h->converted = k->first;
  return h->plan->part[TARE_PART_FEATURES];
}

static void write_some_bias(void *argument, int64_t piece, int32_t thread) {
  const chunk_work *work = argument;
  const int64_t classes = classes_of(work->head);
  (void)thread;
  for (int64_t i = piece * BLOCK; i < block_end(piece, work->chunk->rows); i++)
    memcpy(work->chunk->logits + i * classes, work->head->bias, (size_t)classes * sizeof *work->head->bias);
}

static tare_status form_logits(void *argument, const tare_linear_chunk *k) {
  head *h = argument;
  const int c = (int)classes_of(h), d = (int)h->plan->linear->dimensions;
  int stride;
  const float *features = features_of(h, k, &stride);
  if (h->bias) share_rows(h, k, write_some_bias);
  h->sgemm(TARE_CBLAS_ROW_MAJOR, TARE_CBLAS_NO_TRANSPOSE, TARE_CBLAS_TRANSPOSE, (int)k->rows, c, d, 1, features, stride,
           h->weights, d, h->bias ? 1 : 0, k->logits, c);
  return TARE_STATUS_OK;
}

/* Passes. */

static tare_status count_labels(void *argument) {
  head *h = argument;
  const tare_problem *problem = h->plan->problem;
  tare_tiling tiling;
  tare_tiling_make(&tiling, problem);
  tare_scans scans;
  const tare_status status = tare_cpu_scan_labels(h->cpu, &tiling, problem, &scans, h->error);
  if (status) return status;
  h->counts = scans.all.counts;
  tare_cpu_scan_targets(h->cpu, &tiling, problem, &scans);
  tare_cpu_write_sums(problem, &scans);
  h->divisor = tare_cpu_divisor(problem, &scans.all);
  const double scale = tare_cpu_scale(&problem->output);
  h->carried = isfinite(scale) ? 1 : scale;
  h->job.gradient = tare_cpu_gradient_scale(problem, isfinite(scale) ? scale : 1, h->divisor);
  if (h->carried != 1) h->apart = h->plan->part[TARE_PART_APART];
  return TARE_STATUS_OK;
}

/** The sum of a chunk's loss. */
static double run_pass(head *h, const tare_linear_chunk *k, const tare_job *given) {
  tare_tiling tiling;
  tare_job job = *given;
  job.problem = &k->problem;
  if (!k->follows) h->targets = TARE_NO_TARGETS;
  tare_tiling_make(&tiling, &k->problem);
  if (job.pass == TARE_PASS_EVALUATE && tare_sums_classes(&k->problem)) /* before gradients take the logits' place */
    tare_cpu_sum_classes(h->cpu, &tiling, &job, h->plan->part[TARE_PART_CLASS_SUMS], k->follows);
  const double sum = tare_cpu_run_pass(h->cpu, &tiling, &job);
  tare_cpu_add_targets(h->cpu, tiling.groups, &h->targets);
  return sum;
}

static tare_status measure(void *argument, const tare_linear_chunk *k) {
  head *h = argument;
  const tare_job job = {.pass = TARE_PASS_HISTOGRAM, .bins = &h->cpu->bins};
  (void)run_pass(h, k, &job);
  return TARE_STATUS_OK;
}

static tare_status settle(void *argument) {
  head *h = argument;
  const tare_problem *problem = h->plan->problem;
  if (!tare_is_ghm(problem)) return TARE_STATUS_OK;
  if (h->plan->measures) {
    tare_cpu_collect_counts(h->cpu, problem->loss.ghm.bins, h->state);
    tare_ghm_density_from_counts(&problem->loss.ghm, h->state);
  }
  tare_bins_set_weights(&h->cpu->bins, h->state.inverse_density);
  h->job.density = TARE_DENSITY_USE_BINS;
  h->job.bins = &h->cpu->bins;
  return TARE_STATUS_OK;
}

static tare_status evaluate(void *argument, const tare_linear_chunk *k) {
  head *h = argument;
  h->loss += run_pass(h, k, &h->job);
  return TARE_STATUS_OK;
}

/* Gradients. */

static int64_t lines_of(const head *h) { return (classes_of(h) + LINE - 1) / LINE; }

/** Cache lines that a piece of the bias gradient is wide: each thread takes one. */
static int64_t strip_lines(const head *h) {
  const int64_t threads = tare_threads_for(h->cpu->threads, lines_of(h));
  return (lines_of(h) + threads - 1) / threads;
}

/** Some columns, so that every column is added up in the order of its rows. */
static void add_some_bias_gradient(void *argument, int64_t piece, int32_t thread) {
  const chunk_work *work = argument;
  const tare_linear_chunk *k = work->chunk;
  double *sums = work->head->plan->part[TARE_PART_BIAS_SUMS];
  const int64_t classes = classes_of(work->head), strip = strip_lines(work->head) * LINE, begin = piece * strip;
  const int64_t end = begin + strip < classes ? begin + strip : classes;
  (void)thread;
  for (int64_t c = begin; c < end && !k->follows; c++) sums[c] = 0;
  for (int64_t i = 0; i < k->rows; i++)
    for (int64_t c = begin; c < end; c++) sums[c] += (double)k->logits[i * classes + c];
}

static tare_status add_bias_gradient(void *argument, const tare_linear_chunk *k) {
  head *h = argument;
  const int64_t strip = strip_lines(h);
  chunk_work work = {h, k};
  if (h->plan->linear->bias_gradient)
    tare_share(h->cpu->threads, (lines_of(h) + strip - 1) / strip, add_some_bias_gradient, &work);
  return TARE_STATUS_OK;
}

static tare_status add_weights_gradient(void *argument, const tare_linear_chunk *k) {
  head *h = argument;
  const int c = (int)classes_of(h), d = (int)h->plan->linear->dimensions;
  const float keep = k->follows || (h->plan->linear->accumulate && !h->apart) ? 1 : 0;
  float *to = h->apart ? h->apart : h->plan->linear->weights_gradient;
  int stride;
  const float *features = features_of(h, k, &stride);
  h->sgemm(TARE_CBLAS_ROW_MAJOR, TARE_CBLAS_TRANSPOSE, TARE_CBLAS_NO_TRANSPOSE, c, d, (int)k->rows, 1, k->logits, c,
           features, stride, keep, to, d);
  return TARE_STATUS_OK;
}

/** A gradient that is 0 without the scale stays 0; in the products a scale that is not finite would meet zeros. */
static void apply_late_scale(const head *h, float *x, int64_t count) {
  for (int64_t i = 0; i < count && h->carried != 1; i++) x[i] = x[i] == 0 ? 0 : (float)((double)x[i] * h->carried);
}

static void write_some_features_gradient(void *argument, int64_t piece, int32_t thread) {
  const chunk_work *work = argument;
  const head *h = work->head;
  const tare_linear *linear = h->plan->linear;
  const int64_t d = linear->dimensions, stride = linear->features_gradient_stride;
  (void)thread;
  for (int64_t i = piece * BLOCK; i < block_end(piece, work->chunk->rows); i++) {
    float *row = (float *)h->plan->part[TARE_PART_FEATURES] + i * d;
    const int64_t at = (work->chunk->first + i) * stride;
    tare_write_half(linear->dtype, linear->features_gradient, at, d, row);
    if (h->carried == 1) continue;
    tare_read_half(linear->dtype, linear->features_gradient, at, d, row); /* as it is rounded */
    apply_late_scale(h, row, d);
    tare_write_half(linear->dtype, linear->features_gradient, at, d, row);
  }
}

/** The gradient may take the place of the chunk's features, in the caller's memory and in the workspace. */
static tare_status write_features_gradient(void *argument, const tare_linear_chunk *k) {
  head *h = argument;
  const tare_linear *linear = h->plan->linear;
  const int c = (int)classes_of(h), d = (int)linear->dimensions, half = is_half(linear);
  const int64_t stride = linear->features_gradient_stride;
  float *to = half ? h->plan->part[TARE_PART_FEATURES] : (float *)linear->features_gradient + k->first * stride;
  h->sgemm(TARE_CBLAS_ROW_MAJOR, TARE_CBLAS_NO_TRANSPOSE, TARE_CBLAS_NO_TRANSPOSE, (int)k->rows, d, c, 1, k->logits, c,
           h->weights, d, 0, to, half ? d : (int)stride);
  h->converted = -1;
  if (half) share_rows(h, k, write_some_features_gradient);
  for (int64_t i = 0; i < k->rows && !half; i++) apply_late_scale(h, to + i * stride, d);
  return TARE_STATUS_OK;
}

static void finish_weights_gradient(const head *h) {
  const int64_t count = classes_of(h) * h->plan->linear->dimensions;
  float *gradient = h->plan->linear->weights_gradient;
  apply_late_scale(h, h->apart ? h->apart : gradient, count);
  for (int64_t i = 0; h->apart && i < count; i++) gradient[i] += h->apart[i];
}

static void write_bias_gradient(const head *h) {
  const double *sums = h->plan->part[TARE_PART_BIAS_SUMS];
  const int accumulate = h->plan->linear->accumulate;
  float *to = h->plan->linear->bias_gradient;
  for (int64_t c = 0; c < classes_of(h); c++) {
    const double own = (float)sums[c] == 0 && h->carried != 1 ? 0 : sums[c] * h->carried;
    to[c] = (float)(own + (accumulate ? (double)to[c] : 0.0));
  }
}

static tare_status finish(void *argument) {
  head *h = argument;
  const tare_problem *problem = h->plan->problem;
  if (h->plan->linear->weights_gradient) finish_weights_gradient(h);
  if (h->plan->linear->bias_gradient) write_bias_gradient(h);
  const tare_status status = tare_cpu_refuse_targets(problem, &h->targets, &h->counts, h->error);
  tare_cpu_write_output(&problem->output, tare_divide(h->loss, h->divisor), &h->counts);
  return status;
}

/* The verbs. */

static const tare_linear_steps steps = {.count_labels = count_labels,
                                        .form_logits = form_logits,
                                        .measure = measure,
                                        .settle = settle,
                                        .evaluate = evaluate,
                                        .fold_gradient = add_bias_gradient,
                                        .add_weights_gradient = add_weights_gradient,
                                        .write_features_gradient = write_features_gradient,
                                        .finish = finish};

tare_status tare_cpu_linear_needs(tare_backend *self, const tare_problem *problem, const tare_linear *linear,
                                  tare_linear_needs *needs, tare_error *error) {
  const uint64_t c = (uint64_t)problem->batch.classes, d = (uint64_t)linear->dimensions, f32 = sizeof(float);
  tare_tiling tiling;
  (void)self, (void)error;
  tare_tiling_make(&tiling, problem);
  needs->step_rows = tiling.tile_rows[0]; /* chunks end where tiles do */
  needs->ample_rows = (int64_t)(AMPLE_BYTES / (f32 * (c + d)));
  needs->alignment = PART_ALIGNMENT;
  needs->size[TARE_PART_BIAS_SUMS].fixed = sizeof(double) * c;
  needs->size[TARE_PART_APART].fixed = tare_linear_apart_bytes(problem, linear);
  if (!is_half(linear)) return TARE_STATUS_OK;
  needs->size[TARE_PART_WEIGHTS].fixed = f32 * c * d;
  needs->size[TARE_PART_BIAS].fixed = f32 * c;
  needs->size[TARE_PART_FEATURES].of_row = f32 * d;
  return TARE_STATUS_OK;
}

static void convert_some_weights(void *argument, int64_t piece, int32_t thread) {
  const head *h = argument;
  const tare_linear *linear = h->plan->linear;
  const int64_t d = linear->dimensions;
  float *to = h->plan->part[TARE_PART_WEIGHTS];
  (void)thread;
  for (int64_t c = piece * BLOCK; c < block_end(piece, classes_of(h)); c++)
    tare_read_half(linear->dtype, linear->weights, c * d, d, to + c * d);
}

static void place_weights(head *h) {
  const tare_linear *linear = h->plan->linear;
  h->weights = linear->weights;
  h->bias = linear->bias;
  if (!is_half(linear)) return;
  h->weights = h->plan->part[TARE_PART_WEIGHTS];
  tare_share(h->cpu->threads, blocks_of(classes_of(h)), convert_some_weights, h);
  if (!linear->bias) return;
  h->bias = h->plan->part[TARE_PART_BIAS];
  tare_read_half(linear->dtype, linear->bias, 0, classes_of(h), h->plan->part[TARE_PART_BIAS]);
}

static tare_status open_head(head *h, tare_backend *self, const tare_linear_plan *plan, tare_error *error) {
  *h = (head){.cpu = (tare_cpu *)self, .plan = plan, .error = error, .converted = -1, .carried = 1};
  h->job.pass = TARE_PASS_EVALUATE;
  const tare_status status = tare_blas_load(&h->sgemm, error);
  if (status) return status;
  place_weights(h);
  if (!tare_is_ghm(plan->problem)) return TARE_STATUS_OK;
  tare_bins_make(&h->cpu->bins, &plan->problem->loss);
  tare_cpu_clear_counts(h->cpu, plan->problem->loss.ghm.bins);
  h->state = tare_cpu_state(h->cpu, plan->problem);
  return TARE_STATUS_OK;
}

tare_status tare_cpu_linear_evaluate(tare_backend *self, const tare_linear_plan *plan, tare_stream stream,
                                     tare_error *error) {
  head h;
  (void)stream;
  const tare_status status = open_head(&h, self, plan, error);
  return status ? status : tare_linear_evaluate_chunks(plan, &steps, &h);
}

tare_status tare_cpu_linear_histogram(tare_backend *self, const tare_linear_plan *plan, tare_stream stream,
                                      tare_error *error) {
  head h;
  (void)stream;
  tare_status status = open_head(&h, self, plan, error);
  if (!status) status = tare_linear_measure_chunks(plan, &steps, &h);
  if (status) return status;
  tare_cpu_collect_counts(h.cpu, plan->problem->loss.ghm.bins, h.state);
  return tare_cpu_refuse_targets(plan->problem, &h.targets, &h.counts, error);
}
