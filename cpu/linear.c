/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fused head on the CPU. A chunk of rows gets its logits from a product, is evaluated as the flat batch that it then
 * is, gradient in place, and goes into three sums before the next one: the loss, dW and db. What a chunk is depends on
 * the shape and the workspace alone.
 */
#include <math.h>
#include <string.h>

#include "backend.h"
#include "blas.h"
#include "core/divide.h"
#include "half_rows.h"
#include "linear_sizes.h"
#include "threads.h"

enum {
  BLOCK = 256, /* rows that a thread takes at a time */
  LINE = 16    /* floats of a cache line */
};

/** Where things lie in the workspace, and the call they are for. */
typedef struct head {
  tare_cpu *cpu;
  const tare_problem *problem;
  const tare_linear *linear;
  tare_sgemm *sgemm;
  int64_t chunk_rows;
  float *converted;     /* W, where the caller's is not f32 */
  const float *weights; /* W and b in f32 */
  const float *bias;    /* or NULL */
  double *bias_sums;
  float *logits;   /* [chunk_rows, C], and the gradient by them */
  float *features; /* [chunk_rows, D]: X and then dX in f32, where the caller's are not */
  int64_t held;    /* the first row of the chunk whose logits lie there, untouched; -1: none */
  double carried;  /* a scale that is not finite: the products are formed without it; else 1 */
  float *apart;    /* [C, D]: then the gradient by W that is to be added; NULL: it is not, or the scale is finite */
  tare_target_scan targets; /* invalid ones, of the pass over all chunks */
} head;

tare_status tare_cpu_linear_workspace(tare_backend *self, const tare_problem *problem, const tare_linear *linear,
                                      uint64_t *least, uint64_t *ample, tare_error *error) {
  (void)self, (void)error;
  *least = *ample = 0;
  if (!problem->rows) return TARE_STATUS_OK;
  const uint64_t fixed = fixed_bytes(problem, linear), each = row_bytes(problem, linear);
  const int64_t step = least_rows(problem);
  *least = fixed + each * (uint64_t)(step < problem->rows ? step : problem->rows);
  *ample = fixed + each * (uint64_t)ample_rows(problem, linear);
  return TARE_STATUS_OK;
}

static tare_status check_workspace(const tare_problem *problem, const tare_linear *linear, uint64_t bytes,
                                   tare_error *error) {
  uint64_t least, ample;
  (void)tare_cpu_linear_workspace(NULL, problem, linear, &least, &ample, error);
  if (bytes >= least) return TARE_STATUS_OK;
  return tare_fail(error, TARE_STATUS_WORKSPACE_TOO_SMALL,
                   "workspace has %llu bytes; this call needs at least %llu, and %llu are ample: see "
                   "tare_linear_workspace_size and tare_context_set_workspace",
                   (unsigned long long)bytes, (unsigned long long)least, (unsigned long long)ample);
}

/** Rows [piece, piece + 1) x BLOCK of `rows`. */
static int64_t block_end(int64_t piece, int64_t rows) {
  return (piece + 1) * BLOCK < rows ? (piece + 1) * BLOCK : rows;
}

static int64_t blocks_of(int64_t rows) { return (rows + BLOCK - 1) / BLOCK; }

static void convert_some_weights(void *argument, int64_t piece, int32_t thread) {
  const head *h = argument;
  const int64_t d = h->linear->dimensions;
  (void)thread;
  for (int64_t c = piece * BLOCK; c < block_end(piece, h->problem->batch.classes); c++)
    tare_read_half(h->linear->dtype, h->linear->weights, c * d, d, h->converted + c * d);
}

/** Cuts the workspace up. */
static void lay_out(head *h, char *workspace, uint64_t bytes) {
  const tare_linear *linear = h->linear;
  const int64_t c = h->problem->batch.classes, d = linear->dimensions;
  const uint64_t fixed = fixed_bytes(h->problem, linear);
  const int64_t fit =
      rows_within(h->problem->rows, least_rows(h->problem), bytes - fixed, row_bytes(h->problem, linear));
  const int64_t ample = ample_rows(h->problem, linear);
  h->chunk_rows = fit < ample ? fit : ample;
  h->bias_sums = (double *)workspace;
  workspace += rounded_up(8 * (uint64_t)c);
  if (apart_bytes(h->problem, linear) && h->carried != 1) h->apart = (float *)workspace;
  workspace += apart_bytes(h->problem, linear);
  h->weights = linear->weights;
  h->bias = linear->bias;
  if (is_half(linear)) {
    float *weights = (float *)workspace, *bias = (float *)(workspace + rounded_up(4 * (uint64_t)(c * d)));
    h->converted = weights;
    tare_share(h->cpu->threads, blocks_of(c), convert_some_weights, h);
    h->weights = weights;
    if (linear->bias) tare_read_half(linear->dtype, linear->bias, 0, c, bias);
    if (linear->bias) h->bias = bias;
    workspace = (char *)bias + rounded_up(4 * (uint64_t)c);
  }
  h->held = -1;
  h->logits = (float *)workspace;
  h->features = (float *)(workspace + rounded_up(4 * (uint64_t)(h->chunk_rows * c)));
}

/* A chunk. */

typedef struct chunk {
  const head *head;
  int64_t first;
  int rows;
  const float *features; /* f32, features_stride apart */
  int features_stride;
  tare_problem problem;
  tare_tiling tiling;
} chunk;

static void place_features(const head *h, chunk *k) {
  const tare_linear *linear = h->linear;
  const int half = is_half(linear);
  k->features = half ? h->features : (const float *)linear->features + k->first * linear->features_stride;
  k->features_stride = (int)(half ? linear->dimensions : linear->features_stride);
}

static void convert_some_features(void *argument, int64_t piece, int32_t thread) {
  const chunk *k = argument;
  const tare_linear *linear = k->head->linear;
  (void)thread;
  for (int64_t i = piece * BLOCK; i < block_end(piece, k->rows); i++)
    tare_read_half(linear->dtype, linear->features, (k->first + i) * linear->features_stride, linear->dimensions,
                   k->head->features + i * linear->dimensions);
}

static void write_some_bias(void *argument, int64_t piece, int32_t thread) {
  const chunk *k = argument;
  const int64_t classes = k->head->problem->batch.classes;
  (void)thread;
  for (int64_t i = piece * BLOCK; i < block_end(piece, k->rows); i++)
    memcpy(k->head->logits + i * classes, k->head->bias, (size_t)classes * sizeof *k->head->bias);
}

static void make_logits(head *h, chunk *k) {
  const int c = (int)h->problem->batch.classes, d = (int)h->linear->dimensions;
  if (h->bias) tare_share(h->cpu->threads, blocks_of(k->rows), write_some_bias, k);
  h->sgemm(TARE_CBLAS_ROW_MAJOR, TARE_CBLAS_PLAIN, TARE_CBLAS_TRANSPOSED, k->rows, c, d, 1, k->features,
           k->features_stride, h->weights, d, h->bias ? 1 : 0, h->logits, c);
  h->held = k->first;
}

/** The rows from `first` on, with their logits; a gradient, in their place, where one is wanted. */
static void open_chunk(head *h, int64_t first, int with_gradient, chunk *k) {
  const int64_t left = h->problem->rows - first;
  k->head = h;
  k->first = first;
  k->rows = (int)(left < h->chunk_rows ? left : h->chunk_rows);
  place_features(h, k);
  if (h->held != first) {
    if (is_half(h->linear)) tare_share(h->cpu->threads, blocks_of(k->rows), convert_some_features, k);
    make_logits(h, k);
  }
  tare_problem_slice(&k->problem, h->problem, first, k->rows, h->logits, with_gradient ? h->logits : NULL);
  tare_tiling_make(&k->tiling, &k->problem);
}

static int64_t lines_of(const head *h) { return (h->problem->batch.classes + LINE - 1) / LINE; }

/** Cache lines that a piece of the bias gradient is wide: each thread takes one. */
static int64_t strip_lines(const head *h) {
  const int64_t threads = tare_threads_for(h->cpu->threads, lines_of(h));
  return (lines_of(h) + threads - 1) / threads;
}

/** Some columns, so that every column is added up in the order of its rows. */
static void add_some_bias_gradient(void *argument, int64_t piece, int32_t thread) {
  const chunk *k = argument;
  const head *h = k->head;
  const int64_t classes = h->problem->batch.classes, strip = strip_lines(h) * LINE, begin = piece * strip;
  const int64_t end = begin + strip < classes ? begin + strip : classes;
  (void)thread;
  for (int64_t i = 0; i < k->rows; i++)
    for (int64_t c = begin; c < end; c++) h->bias_sums[c] += (double)h->logits[i * classes + c];
}

static void add_bias_gradient(const head *h, chunk *k) {
  const int64_t strip = strip_lines(h);
  tare_share(h->cpu->threads, (lines_of(h) + strip - 1) / strip, add_some_bias_gradient, k);
}

static void add_weights_gradient(const head *h, const chunk *k) {
  const int c = (int)h->problem->batch.classes, d = (int)h->linear->dimensions;
  const float keep = k->first || (h->linear->accumulate && !h->apart) ? 1 : 0;
  float *to = h->apart ? h->apart : h->linear->weights_gradient;
  h->sgemm(TARE_CBLAS_ROW_MAJOR, TARE_CBLAS_TRANSPOSED, TARE_CBLAS_PLAIN, c, d, k->rows, 1, h->logits, c, k->features,
           k->features_stride, keep, to, d);
}

/** A gradient that is 0 without the scale stays 0; in the products a scale that is not finite would meet zeros. */
static void carry_scale(const head *h, float *x, int64_t count) {
  for (int64_t i = 0; i < count && h->carried != 1; i++) x[i] = x[i] == 0 ? 0 : (float)((double)x[i] * h->carried);
}

static void write_some_features_gradient(void *argument, int64_t piece, int32_t thread) {
  const chunk *k = argument;
  const tare_linear *linear = k->head->linear;
  const int64_t d = linear->dimensions, stride = linear->features_gradient_stride;
  (void)thread;
  for (int64_t i = piece * BLOCK; i < block_end(piece, k->rows); i++) {
    float *row = k->head->features + i * d;
    tare_write_half(linear->dtype, linear->features_gradient, (k->first + i) * stride, d, row);
    if (k->head->carried == 1) continue;
    tare_read_half(linear->dtype, linear->features_gradient, (k->first + i) * stride, d, row); /* as it is rounded */
    carry_scale(k->head, row, d);
    tare_write_half(linear->dtype, linear->features_gradient, (k->first + i) * stride, d, row);
  }
}

/** The last thing that a chunk does: the gradient may lie where its features were. */
static void write_features_gradient(const head *h, chunk *k) {
  const tare_linear *linear = h->linear;
  const int c = (int)h->problem->batch.classes, d = (int)linear->dimensions, half = is_half(linear);
  const int64_t stride = linear->features_gradient_stride;
  float *to = half ? h->features : (float *)linear->features_gradient + k->first * stride;
  h->sgemm(TARE_CBLAS_ROW_MAJOR, TARE_CBLAS_PLAIN, TARE_CBLAS_PLAIN, k->rows, d, c, 1, h->logits, c, h->weights, d, 0,
           to, half ? d : (int)stride);
  if (half) tare_share(h->cpu->threads, blocks_of(k->rows), write_some_features_gradient, k);
  for (int64_t i = 0; i < k->rows && !half; i++) carry_scale(h, to + i * stride, d);
}

/* The verbs. */

/** From the last chunk to the first, whose logits are then there to be evaluated. */
static void count_norms(head *h, tare_ghm_state state) {
  chunk k;
  const tare_job job = {.problem = &k.problem, .pass = TARE_PASS_HISTOGRAM, .bins = &h->cpu->bins};
  tare_cpu_clear_counts(h->cpu);
  h->targets = TARE_NO_TARGETS;
  const int64_t rows = h->problem->rows;
  for (int64_t first = rows ? (rows - 1) / h->chunk_rows * h->chunk_rows : -1; first >= 0; first -= h->chunk_rows) {
    open_chunk(h, first, 0, &k);
    tare_cpu_share_pass(h->cpu, &k.tiling, &job);
    tare_cpu_add_targets(h->cpu, k.tiling.groups, &h->targets);
  }
  tare_cpu_collect_counts(h->cpu, h->problem->loss.ghm.bins, state);
}

static void use_bins(head *h, tare_job *job) {
  const tare_ghm_parameters *ghm = &h->problem->loss.ghm;
  const tare_ghm_state state = tare_cpu_state(h->cpu, h->problem);
  tare_bins_make(&h->cpu->bins, &h->problem->loss);
  if (!ghm->use_stored_density) {
    count_norms(h, state);
    tare_ghm_density_from_counts(ghm, state);
  }
  tare_bins_set_weights(&h->cpu->bins, state.inverse_density);
  job->density = TARE_DENSITY_BINS;
  job->bins = &h->cpu->bins;
}

/** The sum of the loss, and of the gradients. */
static double run_chunks(head *h, const tare_job *given) {
  const tare_linear *linear = h->linear;
  const int with_gradient = linear->features_gradient || linear->weights_gradient || linear->bias_gradient;
  double sum = 0;
  chunk k;
  tare_job job = *given;
  h->targets = TARE_NO_TARGETS;
  job.problem = &k.problem;
  for (int64_t first = 0; first < h->problem->rows; first += h->chunk_rows) {
    open_chunk(h, first, with_gradient, &k);
    h->held = -1;
    sum += tare_cpu_share_pass(h->cpu, &k.tiling, &job);
    tare_cpu_add_targets(h->cpu, k.tiling.groups, &h->targets);
    if (linear->bias_gradient) add_bias_gradient(h, &k);
    if (linear->weights_gradient) add_weights_gradient(h, &k);
    if (linear->features_gradient) write_features_gradient(h, &k);
  }
  return sum;
}

static void finish_weights_gradient(const head *h) {
  const int64_t count = h->problem->batch.classes * h->linear->dimensions;
  float *gradient = h->linear->weights_gradient;
  carry_scale(h, h->apart ? h->apart : gradient, count);
  for (int64_t i = 0; h->apart && i < count; i++) gradient[i] += h->apart[i];
}

static void write_bias_gradient(const head *h) {
  const tare_linear *linear = h->linear;
  for (int64_t c = 0; linear->bias_gradient && c < h->problem->batch.classes; c++) {
    const double own = (float)h->bias_sums[c] == 0 && h->carried != 1 ? 0 : h->bias_sums[c] * h->carried;
    linear->bias_gradient[c] = (float)(own + (linear->accumulate ? (double)linear->bias_gradient[c] : 0.0));
  }
}

/** Gradients of a batch without rows. */
static void write_zeros(const tare_problem *problem, const tare_linear *linear) {
  const size_t classes = (size_t)problem->batch.classes;
  if (linear->accumulate) return;
  if (linear->weights_gradient) memset(linear->weights_gradient, 0, 4 * classes * (size_t)linear->dimensions);
  if (linear->bias_gradient) memset(linear->bias_gradient, 0, 4 * classes);
}

/** Everything that can fail, and the labels. */
static tare_status prepare(head *h, uint64_t workspace_bytes, tare_label_scan *scan, tare_error *error) {
  tare_tiling tiling;
  tare_status status = h->problem->rows ? tare_blas_load(&h->sgemm, error) : TARE_STATUS_OK;
  if (!status) status = check_workspace(h->problem, h->linear, workspace_bytes, error);
  if (status) return status;
  tare_tiling_make(&tiling, h->problem);
  return tare_cpu_scan_labels(h->cpu, &tiling, h->problem, scan, error);
}

tare_status tare_cpu_linear_evaluate(tare_backend *self, const tare_problem *problem, const tare_linear *linear,
                                     void *workspace, uint64_t workspace_bytes, tare_stream stream, tare_error *error) {
  head h = {.cpu = (tare_cpu *)self, .problem = problem, .linear = linear};
  tare_label_scan scan;
  (void)stream;
  const tare_status status = prepare(&h, workspace_bytes, &scan, error);
  if (status) return status;
  tare_label_scan rows = scan;
  tare_tiling tiling;
  tare_tiling_make(&tiling, problem);
  tare_cpu_scan_targets(h.cpu, &tiling, problem, &rows);
  const double divisor = tare_cpu_divisor(problem, &rows);
  tare_job job = {.pass = TARE_PASS_EVALUATE};
  const double scale = tare_cpu_scale(&problem->output);
  h.carried = isfinite(scale) ? 1 : scale;
  job.gradient = tare_cpu_gradient_scale(problem, isfinite(scale) ? scale : 1, divisor);
  double sum = 0;
  if (problem->rows) lay_out(&h, workspace, workspace_bytes);
  if (tare_is_ghm(problem)) use_bins(&h, &job);
  if (problem->rows) {
    memset(h.bias_sums, 0, (size_t)problem->batch.classes * sizeof *h.bias_sums);
    sum = run_chunks(&h, &job);
    if (linear->weights_gradient) finish_weights_gradient(&h);
    write_bias_gradient(&h);
  } else {
    write_zeros(problem, linear);
  }
  const tare_status targets = tare_cpu_refuse_targets(problem, &h.targets, &scan.counts, error);
  tare_cpu_write_output(&problem->output, tare_divide(sum, divisor), &scan.counts);
  return targets;
}

tare_status tare_cpu_linear_histogram(tare_backend *self, const tare_problem *problem, const tare_linear *linear,
                                      void *workspace, uint64_t workspace_bytes, tare_stream stream,
                                      tare_error *error) {
  head h = {.cpu = (tare_cpu *)self, .problem = problem, .linear = linear};
  tare_label_scan scan;
  (void)stream;
  const tare_status status = prepare(&h, workspace_bytes, &scan, error);
  if (status) return status;
  if (problem->rows) lay_out(&h, workspace, workspace_bytes);
  tare_bins_make(&h.cpu->bins, &problem->loss);
  count_norms(&h, tare_cpu_state(h.cpu, problem));
  return tare_cpu_refuse_targets(problem, &h.targets, &scan.counts, error);
}
