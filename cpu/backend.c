/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CPU backend: in what order things happen.
 *
 * A call first reads the labels (counts, errors). GHM then reads the logits once to count gradient norms. The last pass
 * evaluates. The passes are those of cpu/passes.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "core/class_sums.h"
#include "core/divide.h"
#include "core/flags.h"
#include "core/norms.h"
#include "exact.h"
#include "isa.h"
#include "past_caches.h"
#include "selection.h"
#include "threads.h"

static tare_status needs(tare_backend *self, const tare_problem *problem, uint64_t *own_bytes, tare_error *error) {
  (void)self, (void)problem, (void)error; /* it computes everything */
  *own_bytes = 0;
  return TARE_STATUS_OK;
}

/* The verbs. */

void tare_cpu_write_output(const tare_output *output, double loss, const tare_counts *counts) {
  tare_cpu_write_loss(output->loss_dtype, loss, output->loss);
  if (output->counts) *output->counts = *counts;
}

/** Chooses how a gradient is stored that no cache will hold. One in the logits' place has been read before, but not the
 *  rows that get zeros. */
static void choose_stores(const tare_cpu *cpu, const tare_problem *problem, tare_job *job) {
  const double size = (double)tare_dtype_bytes(problem->batch.dtype), classes = (double)problem->batch.classes;
  job->zeros_past_caches = tare_exceeds_caches((double)problem->rows * classes * size, cpu->threads);
  job->past_caches = job->zeros_past_caches;
  for (int32_t i = 0; i < problem->level_count; i++) {
    const tare_array *array = problem->view[i].array;
    if (array[TARE_ARRAY_GRADIENT].data == array[TARE_ARRAY_LOGITS].data) job->past_caches = 0;
  }
}

/** Loss and gradient of the plan's problem, or the one with selected rows. */
static double evaluate_logits(tare_cpu *cpu, const tare_tiling *tiling, const tare_plan *plan,
                              const tare_problem *problem, const tare_scans *scans) {
  tare_job job = {.problem = problem, .pass = TARE_PASS_EVALUATE};
  tare_cpu_divisors divisors;
  tare_cpu_divide(problem, scans, &divisors);
  job.gradient = divisors.gradient[0];
  if (problem->has_level_scalars) job.of_level = divisors.gradient;
  if (plan->density == TARE_DENSITY_SOURCE_KEYS)
    tare_cpu_use_exact_density(cpu, tiling, plan, &job);
  else if (plan->density != TARE_DENSITY_SOURCE_NONE)
    tare_cpu_use_bins(cpu, tiling, plan, &job);
  if (tare_sums_classes(problem)) /* before a gradient takes the place of its logit */
    tare_cpu_sum_classes(cpu, tiling, &job, plan->class_sums, 0);
  choose_stores(cpu, problem, &job);
  const double sum = tare_cpu_run_pass(cpu, tiling, &job);
  return problem->has_level_scalars ? tare_cpu_write_levels(cpu, tiling, problem, &divisors)
                                    : tare_divide(sum, divisors.of_level[0]);
}

/** Everything of a problem whose labels are valid, and which `given` has counted. `counts` gets the rows with an
 *  invalid target. */
static tare_status evaluate_rows(tare_cpu *cpu, const tare_plan *plan, const tare_problem *problem,
                                 const tare_scans *given, tare_counts *counts, double *loss, tare_error *error) {
  tare_tiling tiling;
  tare_tiling_make(&tiling, problem);
  tare_scans scans = *given;
  tare_target_scan found = TARE_NO_TARGETS;
  tare_cpu_scan_targets(cpu, &tiling, problem, &scans);
  tare_cpu_write_sums(problem, &scans);
  if (tare_counts_norms(problem)) tare_cpu_write_norms(cpu, &tiling, problem);
  *loss = 0;
  if (plan->evaluates) *loss = evaluate_logits(cpu, &tiling, plan, problem, &scans);
  tare_cpu_add_targets(cpu, tiling.groups, &found); /* of the last pass */
  return tare_cpu_refuse_targets(problem, &found, counts, error);
}

/** Counts the rows that are selected; but the positives stay those of the caller's labels. */
static tare_status scan_selected(tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *selected,
                                 tare_scans *scans, tare_error *error) {
  const tare_scans given = *scans;
  const tare_status status = tare_cpu_scan_labels(cpu, tiling, selected, scans, error);
  scans->all.counts.positives = given.all.counts.positives;
  for (int level = 0; level < selected->level_count; level++)
    scans->of_level[level].counts.positives = given.of_level[level].counts.positives;
  return status;
}

static tare_status evaluate(tare_backend *self, const tare_plan *plan, tare_stream stream, tare_error *error) {
  tare_cpu *cpu = (tare_cpu *)self;
  const tare_problem *problem = plan->problem;
  tare_tiling tiling;
  tare_scans scans;
  (void)stream;
  tare_tiling_make(&tiling, problem);
  tare_status status = tare_cpu_scan_labels(cpu, &tiling, problem, &scans, error);
  if (status) return status;
  tare_counts counts = scans.all.counts; /* of the caller's labels */
  tare_problem selected;
  if (plan->selects) {
    tare_cpu_select(cpu, &tiling, plan, &selected);
    problem = &selected;
    status = scan_selected(cpu, &tiling, problem, &scans, error);
    if (status) return status;
  }
  double loss;
  status = evaluate_rows(cpu, plan, problem, &scans, &counts, &loss, error);
  tare_cpu_write_output(&plan->problem->output, loss, &counts);
  if (tare_has_flags(&plan->problem->output)) tare_cpu_set_flags(cpu, &tiling, plan->problem, loss);
  return status;
}

static tare_status label_counts(tare_backend *self, const tare_problem *problem, tare_counts *counts,
                                int64_t *per_class, tare_stream stream, tare_error *error) {
  tare_cpu *cpu = (tare_cpu *)self;
  tare_tiling tiling;
  tare_scans scans;
  (void)stream;
  tare_tiling_make(&tiling, problem);
  const tare_status status = tare_cpu_scan_labels(cpu, &tiling, problem, &scans, error);
  if (status) return status;
  if (counts) *counts = scans.all.counts;
  if (!per_class) return TARE_STATUS_OK;
  memset(per_class, 0, (size_t)problem->batch.classes * sizeof *per_class);
  tare_cpu_count_classes(cpu, &tiling, problem, per_class);
  return TARE_STATUS_OK;
}

static tare_status ghm_histogram(tare_backend *self, const tare_problem *problem, tare_stream stream,
                                 tare_error *error) {
  tare_cpu *cpu = (tare_cpu *)self;
  tare_tiling tiling;
  tare_scans scans;
  (void)stream;
  tare_tiling_make(&tiling, problem);
  const tare_status status = tare_cpu_scan_labels(cpu, &tiling, problem, &scans, error);
  if (status) return status;
  tare_bins_make(&cpu->bins, &problem->loss);
  tare_cpu_count_norms(cpu, &tiling, problem, tare_cpu_state(cpu, problem));
  tare_target_scan found = TARE_NO_TARGETS;
  tare_cpu_add_targets(cpu, tiling.groups, &found);
  return tare_cpu_refuse_targets(problem, &found, &scans.all.counts, error);
}

static tare_status ghm_density_update(tare_backend *self, const tare_problem *problem, tare_stream stream,
                                      tare_error *error) {
  (void)stream, (void)error;
  tare_ghm_density_from_counts(&problem->loss.ghm, tare_cpu_state((tare_cpu *)self, problem));
  return TARE_STATUS_OK;
}

static tare_status balance_classes(tare_backend *self, const tare_balance_step *step, tare_stream stream,
                                   tare_error *error) {
  (void)self, (void)stream, (void)error;
  tare_cpu_balance_classes(step);
  return TARE_STATUS_OK;
}

static tare_status evaluate_masks(tare_backend *self, const tare_mask_problem *problem, tare_stream stream,
                                  tare_error *error) {
  (void)stream;
  return tare_cpu_evaluate_masks((tare_cpu *)self, problem, error);
}

static tare_status balance_gradients(tare_backend *self, const tare_gradient_step *step, tare_stream stream,
                                     tare_error *error) {
  (void)self, (void)stream, (void)error;
  tare_cpu_balance_gradients(step);
  return TARE_STATUS_OK;
}

static tare_status check(tare_backend *self, tare_stream stream, tare_error *error) {
  (void)self, (void)stream, (void)error; /* a CPU call has reported what it found */
  return TARE_STATUS_OK;
}

static tare_status scale_gradients(tare_backend *self, const tare_scaling *scaling, tare_stream stream,
                                   tare_error *error) {
  (void)stream;
  (void)error;
  tare_cpu_scale_gradients((const tare_cpu *)self, scaling);
  return TARE_STATUS_OK;
}

static tare_status clear(tare_backend *self, void *data, uint64_t bytes, tare_stream stream, tare_error *error) {
  (void)self, (void)stream, (void)error;
  memset(data, 0, bytes);
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
  free(cpu->digit_tables);
  free(cpu);
}

static const tare_backend verbs = {.destroy = destroy,
                                   .describe = describe,
                                   .needs = needs,
                                   .evaluate = evaluate,
                                   .label_counts = label_counts,
                                   .ghm_histogram = ghm_histogram,
                                   .ghm_density_update = ghm_density_update,
                                   .balance_classes = balance_classes,
                                   .evaluate_masks = evaluate_masks,
                                   .balance_gradients = balance_gradients,
                                   .check = check,
                                   .scale_gradients = scale_gradients,
                                   .clear = clear,
                                   .linear_needs = tare_cpu_linear_needs,
                                   .linear_evaluate = tare_cpu_linear_evaluate,
                                   .linear_histogram = tare_cpu_linear_histogram};

tare_status tare_cpu_backend_create(const tare_context_options *options, tare_backend **backend, tare_error *error) {
  const tare_kernels *kernels;
  const tare_status status = tare_kernels_select(&kernels, error);
  if (status) return status;
  tare_cpu *cpu = calloc(1, sizeof *cpu);
  if (!cpu) return tare_fail(error, TARE_STATUS_OUT_OF_MEMORY, "no memory for a CPU context (%zu bytes)", sizeof *cpu);
  cpu->base = verbs;
  cpu->kernels = kernels;
  cpu->threads = options->threads ? options->threads : tare_default_threads();
  cpu->scratch = aligned_alloc(64, (size_t)cpu->threads * sizeof *cpu->scratch);
  cpu->results = calloc(TARE_MAX_GROUPS, sizeof *cpu->results);
  cpu->scans = calloc(TARE_MAX_GROUPS, sizeof *cpu->scans);
  cpu->digit_tables = calloc((size_t)tare_sort_tables(cpu->threads), sizeof *cpu->digit_tables);
  if (!cpu->scratch || !cpu->results || !cpu->scans || !cpu->digit_tables) {
    const size_t bytes = (size_t)cpu->threads * sizeof *cpu->scratch + TARE_MAX_GROUPS * sizeof *cpu->scans;
    destroy(&cpu->base);
    return tare_fail(error, TARE_STATUS_OUT_OF_MEMORY, "no memory for the scratch of %d threads (%zu bytes)",
                     options->threads ? options->threads : tare_default_threads(), bytes);
  }
  for (int32_t t = 0; t < cpu->threads; t++) {
    cpu->scratch[t].in_double = &kernels->all->in_double;
    cpu->scratch[t].class_sums = NULL;
  }
  tare_find_last_cache();
  tare_start_threads(cpu->threads);
  *backend = &cpu->base;
  return TARE_STATUS_OK;
}
