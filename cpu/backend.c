/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CPU backend: in what order things happen, and on which threads.
 *
 * A call first reads the labels (counts, errors), then for GHM the logits once to count gradient norms, then the logits
 * to evaluate. Each pass runs over groups of tiles, any thread any group; a group's sum has a place of its own and they
 * are added in order, so the result depends on neither threads nor timing.
 */
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "backend.h"
#include "core/divide.h"
#include "exact.h"
#include "isa.h"
#include "selection.h"

/* An OpenMP runtime's threads do not survive a fork, and a child that waits for them waits for ever. A process that had
 * one thread when it forked had none to lose. */
static int had_threads, in_forked_child;
static void before_fork(void) {
  struct stat tasks; /* two links, and one more for each thread */
  had_threads = stat("/proc/self/task", &tasks) != 0 || tasks.st_nlink > 3;
}
static void after_fork_in_child(void) { in_forked_child |= had_threads; }
static pthread_once_t fork_handler_once = PTHREAD_ONCE_INIT;
static void install_fork_handler(void) { pthread_atfork(before_fork, NULL, after_fork_in_child); }

int32_t tare_cpu_threads(const tare_cpu *cpu, int64_t work) {
  if (in_forked_child || work < 2) return 1;
  return work < cpu->threads ? (int32_t)work : cpu->threads;
}

static int32_t thread_number(void) {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

/** The first tile of a group; group `groups` is the end. */
static int64_t group_start(const tare_tiling *tiling, int32_t group) {
  const int64_t whole = tiling->tiles / tiling->groups, rest = tiling->tiles % tiling->groups;
  return whole * group + rest * group / tiling->groups;
}

/* Labels. */

static void scan_group(const tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *problem, int32_t group,
                       tare_label_scan *scan, int64_t *per_class) {
  memset(scan, 0, sizeof *scan);
  scan->first_invalid = INT64_MAX;
  for (int64_t i = group_start(tiling, group); i < group_start(tiling, group + 1); i++) {
    tare_tile tile;
    tare_tile_at(tiling, problem, i, &tile);
    cpu->kernels->f64->scan_labels(problem, &tile, scan, per_class);
  }
}

static void add_scan(tare_label_scan *sum, const tare_label_scan *scan) {
  sum->counts.rows += scan->counts.rows;
  sum->counts.counted += scan->counts.counted;
  sum->counts.positives += scan->counts.positives;
  sum->counts.background += scan->counts.background;
  sum->counts.ignored += scan->counts.ignored;
  sum->counts.invalid += scan->counts.invalid;
  sum->weights += scan->weights;
  if (scan->first_invalid >= sum->first_invalid) return;
  sum->first_invalid = scan->first_invalid;
  sum->invalid_label = scan->invalid_label;
}

static tare_status refuse_label(const tare_problem *problem, const tare_label_scan *scan, tare_error *error) {
  const tare_batch *b = &problem->batch;
  char most[32] = "up";
  if (problem->shape != TARE_SHAPE_REGRESSION)
    snprintf(
        most, sizeof most, "%lld",
        b->first_label > INT64_MAX - b->classes ? (long long)INT64_MAX : (long long)(b->first_label + b->classes - 1));
  return tare_fail(error, TARE_STATUS_INVALID_LABEL,
                   "label of row %lld is %lld (%lld such rows); it must be in %lld..%s, background %lld or ignore %lld",
                   (long long)scan->first_invalid, (long long)scan->invalid_label, (long long)scan->counts.invalid,
                   (long long)b->first_label, most, (long long)b->background_label, (long long)b->ignore_label);
}

tare_status tare_cpu_scan_labels(tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *problem,
                                 tare_label_scan *sum, tare_error *error) {
  const int32_t groups = tiling->groups;
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic) num_threads(tare_cpu_threads(cpu, groups))
#endif
  for (int32_t g = 0; g < groups; g++) scan_group(cpu, tiling, problem, g, &cpu->scans[g], NULL);
  memset(sum, 0, sizeof *sum);
  sum->first_invalid = INT64_MAX;
  for (int32_t g = 0; g < groups; g++) add_scan(sum, &cpu->scans[g]);
  return sum->counts.invalid ? refuse_label(problem, sum, error) : TARE_STATUS_OK;
}

/* Targets. */

void tare_cpu_add_targets(const tare_cpu *cpu, int32_t groups, tare_target_scan *sum) {
  for (int32_t g = 0; g < groups; g++) {
    const tare_target_scan *found = &cpu->results[g].targets;
    const int64_t rows = sum->rows + found->rows;
    if (found->first_row < sum->first_row) *sum = *found;
    sum->rows = rows;
  }
}

/** Takes rows that a target or a score spoils out of those that count. A row with a score has a class. */
static void leave_out(const tare_problem *problem, int64_t rows, tare_counts *counts) {
  counts->counted -= rows;
  if (problem->has_scores) counts->positives -= rows;
}

void tare_cpu_scan_targets(tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *problem,
                           tare_label_scan *scan) {
  const tare_job job = {.problem = problem, .pass = TARE_PASS_TARGETS};
  tare_target_scan found = TARE_NO_TARGETS;
  if (!(problem->checks_targets || problem->has_scores) || !tare_counts_rows(&problem->output)) return;
  tare_cpu_run_pass(cpu, tiling, &job);
  tare_cpu_add_targets(cpu, tiling->groups, &found);
  leave_out(problem, found.rows, &scan->counts);
  scan->weights = 0;
  for (int32_t g = 0; g < tiling->groups; g++) scan->weights += cpu->results[g].weights;
}

tare_status tare_cpu_refuse_targets(const tare_problem *problem, const tare_target_scan *found, tare_counts *counts,
                                    tare_error *error) {
  if (!found->rows) return TARE_STATUS_OK;
  leave_out(problem, found->rows, counts);
  counts->invalid += found->rows;
  if (problem->has_scores)
    return tare_fail(
        error, TARE_STATUS_INVALID_TARGET,
        "score of row %lld, class %lld is %g (%lld such rows); it must be in [0,1]; such rows added nothing "
        "and their gradient is 0",
        (long long)found->first_row, (long long)found->cls, found->value, (long long)found->rows);
  return tare_fail(error, TARE_STATUS_INVALID_TARGET,
                   "target of row %lld, class %lld is %g (%lld such rows); it must be %s; such rows added nothing and "
                   "their gradient is 0",
                   (long long)found->first_row, (long long)found->cls, found->value, (long long)found->rows,
                   problem->shape == TARE_SHAPE_SOFTMAX ? "finite and >= 0" : "in [0,1]");
}

/* Passes over the logits. */

static tare_tile_function *tile_function(const tare_cpu *cpu, const tare_problem *problem) {
  const tare_kernels *kernels = cpu->kernels;
  const tare_kernels_of_type *of_type = problem->batch.dtype == TARE_DTYPE_F64 ? kernels->f64 : kernels->f32;
  if (problem->shape == TARE_SHAPE_REGRESSION) return kernels->f64->regression;
  return problem->shape == TARE_SHAPE_SOFTMAX ? of_type->softmax : of_type->sigmoid;
}

static void run_group(const tare_cpu *cpu, const tare_tiling *tiling, const tare_job *job, int32_t group,
                      tare_scratch *scratch) {
  tare_tile_function *run = tile_function(cpu, job->problem);
  cpu->results[group] = (tare_group_result){.targets = TARE_NO_TARGETS};
  for (int64_t i = group_start(tiling, group); i < group_start(tiling, group + 1); i++) {
    tare_tile tile;
    tare_tile_at(tiling, job->problem, i, &tile);
    run(job, &tile, scratch, &cpu->results[group]);
  }
}

static double sum_of_groups(const tare_cpu *cpu, int32_t groups) {
  double sum = 0;
  for (int32_t g = 0; g < groups; g++) sum += cpu->results[g].loss;
  return sum;
}

double tare_cpu_run_pass(tare_cpu *cpu, const tare_tiling *tiling, const tare_job *job) {
  const int32_t groups = tiling->groups;
  if (job->pass == TARE_PASS_COLLECT) {
    for (int32_t g = 0; g < groups; g++) run_group(cpu, tiling, job, g, cpu->scratch);
    return 0;
  }
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic) num_threads(tare_cpu_threads(cpu, groups))
#endif
  for (int32_t g = 0; g < groups; g++) run_group(cpu, tiling, job, g, &cpu->scratch[thread_number()]);
  return sum_of_groups(cpu, groups);
}

/* The same on threads of the call's own. */

typedef struct sharing {
  void (*work)(void *argument, int64_t piece, int32_t thread);
  void *argument;
  int64_t pieces;
  _Atomic int64_t next_piece;
  _Atomic int32_t next_thread;
} sharing;

static void *take_pieces(void *shared) {
  sharing *s = shared;
  const int32_t thread = atomic_fetch_add(&s->next_thread, 1);
  for (int64_t piece; (piece = atomic_fetch_add(&s->next_piece, 1)) < s->pieces;) s->work(s->argument, piece, thread);
  return NULL;
}

void tare_cpu_share(const tare_cpu *cpu, int64_t pieces, void (*work)(void *argument, int64_t piece, int32_t thread),
                    void *argument) {
  sharing s = {work, argument, pieces, 0, 0};
  pthread_t threads[1024];
  const int32_t wanted = tare_cpu_threads(cpu, pieces);
  int32_t made = 0;
  while (made + 1 < wanted && pthread_create(&threads[made], NULL, take_pieces, &s) == 0) made++;
  take_pieces(&s);
  for (int32_t t = 0; t < made; t++) pthread_join(threads[t], NULL);
}

typedef struct own_pass {
  const tare_cpu *cpu;
  const tare_tiling *tiling;
  const tare_job *job;
} own_pass;

static void run_shared_group(void *argument, int64_t group, int32_t thread) {
  const own_pass *pass = argument;
  run_group(pass->cpu, pass->tiling, pass->job, (int32_t)group, &pass->cpu->scratch[thread]);
}

double tare_cpu_share_pass(tare_cpu *cpu, const tare_tiling *tiling, const tare_job *job) {
  own_pass pass = {cpu, tiling, job};
  tare_cpu_share(cpu, tiling->groups, run_shared_group, &pass);
  return sum_of_groups(cpu, tiling->groups);
}

/* Gradient density. */

tare_ghm_state tare_cpu_state(tare_cpu *cpu, const tare_problem *problem) {
  const tare_ghm_parameters *ghm = &problem->loss.ghm;
  if (!ghm->state) memset(cpu->state, 0, sizeof cpu->state);
  return tare_ghm_state_at(ghm->state ? ghm->state : cpu->state, ghm->bins);
}

void tare_cpu_clear_counts(tare_cpu *cpu) {
  for (int32_t t = 0; t < cpu->threads; t++) memset(cpu->scratch[t].histogram, 0, sizeof cpu->scratch[t].histogram);
}

void tare_cpu_collect_counts(tare_cpu *cpu, int32_t bins, tare_ghm_state state) {
  *state.total = 0;
  for (int32_t k = 0; k < bins; k++) {
    state.counts[k] = 0;
    for (int32_t t = 0; t < cpu->threads; t++)
      for (int part = 0; part < 4; part++) state.counts[k] += cpu->scratch[t].histogram[part][k];
    *state.total += state.counts[k];
  }
}

static void count_norms(tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *problem, tare_ghm_state state) {
  const tare_job job = {.problem = problem, .pass = TARE_PASS_HISTOGRAM, .bins = &cpu->bins};
  tare_cpu_clear_counts(cpu);
  tare_cpu_run_pass(cpu, tiling, &job);
  tare_cpu_collect_counts(cpu, problem->loss.ghm.bins, state);
}

static void use_bins(tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *problem, tare_job *job) {
  const tare_ghm_state state = tare_cpu_state(cpu, problem);
  tare_bins_make(&cpu->bins, &problem->loss);
  if (!problem->loss.ghm.use_stored_density) {
    count_norms(cpu, tiling, problem, state);
    tare_ghm_density_from_counts(&problem->loss.ghm, state);
  }
  tare_bins_set_weights(&cpu->bins, state.inverse_density);
  job->density = TARE_DENSITY_BINS;
  job->bins = &cpu->bins;
}

static void use_exact_density(tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *problem, int64_t most_keys,
                              double *workspace, tare_job *job) {
  job->density = TARE_DENSITY_EXACT;
  if (!most_keys) return; /* nor is there a workspace */
  double *key = workspace, *spare = key + most_keys, *weight = spare + most_keys;
  tare_collected_keys keys = {.key = key};
  const tare_job collect = {.problem = problem, .pass = TARE_PASS_COLLECT, .collected = &keys};
  tare_cpu_run_pass(cpu, tiling, &collect);
  tare_exact_density(problem, keys.count, key, spare, weight, &job->sorted);
}

static int64_t elements_of(const tare_problem *problem) { return problem->rows * problem->batch.classes; }

static tare_status workspace_size(tare_backend *self, const tare_problem *problem, uint64_t *bytes, tare_error *error) {
  (void)self, (void)error;
  const int is_exact = tare_is_ghm(problem) && problem->loss.ghm.density == TARE_GHM_DENSITY_EXACT;
  *bytes = is_exact ? tare_exact_bytes(elements_of(problem)) : tare_selection_bytes(problem);
  return TARE_STATUS_OK;
}

/* The verbs. */

double tare_cpu_divisor(const tare_problem *problem, const tare_label_scan *scan) {
  const tare_output *output = &problem->output;
  const double classes = problem->shape == TARE_SHAPE_SOFTMAX ? 1.0 : (double)problem->batch.classes;
  double divisor = 1;
  switch ((tare_normalizer)output->normalizer) {
    case TARE_NORMALIZER_SUM:
      break;
    case TARE_NORMALIZER_ELEMENTS:
      divisor = classes * (double)scan->counts.counted;
      break;
    case TARE_NORMALIZER_ROWS:
      divisor = (double)scan->counts.counted;
      break;
    case TARE_NORMALIZER_POSITIVES:
      divisor = (double)scan->counts.positives;
      break;
    case TARE_NORMALIZER_WEIGHTS:
      divisor = scan->weights;
      break;
    case TARE_NORMALIZER_VALUE:
      return output->normalizer_pointer ? *output->normalizer_pointer : output->normalizer_value;
  }
  return divisor == 0 ? 1 : divisor;
}

/** Whether the kernels can multiply by it: float's own range for all logits but f64, and GHM-R's kernel is in double. */
static int is_ordinary(const tare_problem *problem, double factor) {
  if (problem->batch.dtype == TARE_DTYPE_F64 || problem->shape == TARE_SHAPE_REGRESSION) return isfinite(factor);
  return factor == 0 || (fabs(factor) >= FLT_MIN && fabs(factor) <= FLT_MAX);
}

tare_gradient_scale tare_cpu_gradient_scale(const tare_problem *problem, double scale, double divisor) {
  const double factor = tare_divide(scale, divisor);
  if (is_ordinary(problem, factor)) return (tare_gradient_scale){.factor = factor};
  return (tare_gradient_scale){.factor = 1, .after = 1, .scale = scale, .divisor = divisor};
}

double tare_cpu_scale(const tare_output *output) {
  const float *scale = output->gradient_scale_pointer;
  return output->gradient_scale * (scale ? (double)*scale : 1.0);
}

void tare_cpu_write_output(const tare_output *output, double loss, const tare_counts *counts) {
  if (output->loss && output->loss_dtype == TARE_DTYPE_F64) *(double *)output->loss = loss;
  if (output->loss && output->loss_dtype == TARE_DTYPE_F32) *(float *)output->loss = (float)loss;
  if (output->counts) *output->counts = *counts;
}

/** Loss and gradient of a problem whose labels are valid. `counts` gets the rows with an invalid target. */
static tare_status evaluate_rows(tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *problem,
                                 const tare_label_scan *scan, void *workspace, tare_counts *counts, double *loss,
                                 tare_error *error) {
  tare_label_scan rows = *scan;
  tare_target_scan found = TARE_NO_TARGETS;
  tare_cpu_scan_targets(cpu, tiling, problem, &rows);
  const double divisor = tare_cpu_divisor(problem, &rows);
  tare_job job = {.problem = problem, .pass = TARE_PASS_EVALUATE};
  job.gradient = tare_cpu_gradient_scale(problem, tare_cpu_scale(&problem->output), divisor);
  if (tare_is_ghm(problem) && problem->loss.ghm.density == TARE_GHM_DENSITY_EXACT)
    use_exact_density(cpu, tiling, problem, elements_of(problem), workspace, &job);
  else if (tare_is_ghm(problem))
    use_bins(cpu, tiling, problem, &job);
  *loss = tare_divide(tare_cpu_run_pass(cpu, tiling, &job), divisor);
  tare_cpu_add_targets(cpu, tiling->groups, &found);
  return tare_cpu_refuse_targets(problem, &found, counts, error);
}

static tare_status evaluate(tare_backend *self, const tare_problem *problem, void *workspace, uint64_t workspace_bytes,
                            tare_stream stream, tare_error *error) {
  tare_cpu *cpu = (tare_cpu *)self;
  tare_tiling tiling;
  tare_label_scan scan;
  uint64_t needed;
  (void)stream;
  workspace_size(self, problem, &needed, error);
  if (needed > workspace_bytes)
    return tare_fail(error, TARE_STATUS_WORKSPACE_TOO_SMALL,
                     "workspace has %llu bytes; this call needs %llu: see tare_workspace_size and "
                     "tare_context_set_workspace",
                     (unsigned long long)workspace_bytes, (unsigned long long)needed);
  tare_tiling_make(&tiling, problem);
  tare_status status = tare_cpu_scan_labels(cpu, &tiling, problem, &scan, error);
  if (status) return status;
  tare_counts counts = scan.counts; /* of the caller's labels */
  tare_problem selected;
  const tare_problem *const caller = problem;
  if (tare_selects(problem)) {
    tare_cpu_select(cpu, &tiling, problem, workspace, &selected);
    problem = &selected;
    status = tare_cpu_scan_labels(cpu, &tiling, problem, &scan, error);
    if (status) return status;
  }
  double loss;
  status = evaluate_rows(cpu, &tiling, problem, &scan, workspace, &counts, &loss, error);
  tare_cpu_write_output(&caller->output, loss, &counts);
  return status;
}

static tare_status label_counts(tare_backend *self, const tare_problem *problem, tare_counts *counts,
                                int64_t *per_class, tare_stream stream, tare_error *error) {
  tare_cpu *cpu = (tare_cpu *)self;
  tare_tiling tiling;
  tare_label_scan scan, again;
  (void)stream;
  tare_tiling_make(&tiling, problem);
  const tare_status status = tare_cpu_scan_labels(cpu, &tiling, problem, &scan, error);
  if (status) return status;
  if (counts) *counts = scan.counts;
  if (!per_class) return TARE_STATUS_OK;
  memset(per_class, 0, (size_t)problem->batch.classes * sizeof *per_class);
  for (int32_t g = 0; g < tiling.groups; g++) scan_group(cpu, &tiling, problem, g, &again, per_class);
  return TARE_STATUS_OK;
}

static tare_status ghm_histogram(tare_backend *self, const tare_problem *problem, tare_stream stream,
                                 tare_error *error) {
  tare_cpu *cpu = (tare_cpu *)self;
  tare_tiling tiling;
  tare_label_scan scan;
  (void)stream;
  tare_tiling_make(&tiling, problem);
  const tare_status status = tare_cpu_scan_labels(cpu, &tiling, problem, &scan, error);
  if (status) return status;
  tare_bins_make(&cpu->bins, &problem->loss);
  count_norms(cpu, &tiling, problem, tare_cpu_state(cpu, problem));
  tare_target_scan found = TARE_NO_TARGETS;
  tare_cpu_add_targets(cpu, tiling.groups, &found);
  return tare_cpu_refuse_targets(problem, &found, &scan.counts, error);
}

static tare_status ghm_density_update(tare_backend *self, const tare_problem *problem, tare_stream stream,
                                      tare_error *error) {
  (void)stream, (void)error;
  tare_ghm_density_from_counts(&problem->loss.ghm, tare_cpu_state((tare_cpu *)self, problem));
  return TARE_STATUS_OK;
}

static tare_status check(tare_backend *self, tare_stream stream, tare_error *error) {
  (void)self, (void)stream, (void)error; /* a CPU call has reported what it found */
  return TARE_STATUS_OK;
}

static void read_cpu_name(char *name, size_t size) {
  char line[256];
  FILE *file = fopen("/proc/cpuinfo", "r");
  snprintf(name, size, "CPU");
  while (file && fgets(line, sizeof line, file)) {
    const char *colon = strstr(line, ": ");
    if (strncmp(line, "model name", 10) || !colon) continue;
    snprintf(name, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
    break;
  }
  if (file) fclose(file);
}

static void describe(tare_backend *self, tare_context_description *description) {
  const tare_cpu *cpu = (const tare_cpu *)self;
  description->device = TARE_DEVICE_CPU;
  description->device_index = -1;
  description->threads = cpu->threads;
  read_cpu_name(description->device_name, sizeof description->device_name);
  snprintf(description->instruction_set, sizeof description->instruction_set, "%s", cpu->kernels->name);
}

static void destroy(tare_backend *self) {
  tare_cpu *cpu = (tare_cpu *)self;
  free(cpu->scratch);
  free(cpu->results);
  free(cpu->scans);
  free(cpu);
}

static int32_t default_threads(void) {
#ifdef _OPENMP
  const int threads = omp_get_max_threads();
  return threads > 1024 ? 1024 : threads;
#else
  return 1;
#endif
}

tare_status tare_cpu_backend_create(const tare_context_options *options, tare_backend **backend, tare_error *error) {
  const tare_kernels *kernels;
  const tare_status status = tare_kernels_select(&kernels, error);
  if (status) return status;
  tare_cpu *cpu = calloc(1, sizeof *cpu);
  if (!cpu) return tare_fail(error, TARE_STATUS_OUT_OF_MEMORY, "no memory for a CPU context (%zu bytes)", sizeof *cpu);
  cpu->base = (tare_backend){.destroy = destroy,
                             .describe = describe,
                             .evaluate = evaluate,
                             .workspace_size = workspace_size,
                             .label_counts = label_counts,
                             .ghm_histogram = ghm_histogram,
                             .ghm_density_update = ghm_density_update,
                             .check = check,
                             .linear_evaluate = tare_cpu_linear_evaluate,
                             .linear_histogram = tare_cpu_linear_histogram,
                             .linear_workspace = tare_cpu_linear_workspace};
  cpu->kernels = kernels;
  cpu->threads = options->threads ? options->threads : default_threads();
#ifndef _OPENMP
  cpu->threads = 1;
#endif
  cpu->scratch = aligned_alloc(64, (size_t)cpu->threads * sizeof *cpu->scratch);
  cpu->results = calloc(TARE_MAX_GROUPS, sizeof *cpu->results);
  cpu->scans = calloc(TARE_MAX_GROUPS, sizeof *cpu->scans);
  if (!cpu->scratch || !cpu->results || !cpu->scans) {
    const size_t bytes = (size_t)cpu->threads * sizeof *cpu->scratch + TARE_MAX_GROUPS * sizeof *cpu->scans;
    destroy(&cpu->base);
    return tare_fail(error, TARE_STATUS_OUT_OF_MEMORY, "no memory for the scratch of %d threads (%zu bytes)",
                     options->threads ? options->threads : default_threads(), bytes);
  }
  for (int32_t t = 0; t < cpu->threads; t++) cpu->scratch[t].in_double = &kernels->f64->in_double;
  pthread_once(&fork_handler_once, install_fork_handler);
  *backend = &cpu->base;
  return TARE_STATUS_OK;
}
