/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Passes over labels and logits. A pass runs over groups of tiles, any thread any group. Each group has a place of its
 * own for its sums, and groups are added in order. So the result depends on neither threads nor timing.
 */
#include <stdio.h>
#include <string.h>

#include "backend.h"
#include "core/class_sums.h"
#include "core/norms.h"
#include "past_caches.h"
#include "threads.h"

/* Labels. */

static void scan_group(const tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *problem, int32_t group,
                       tare_label_scan *scan, int64_t *per_class) {
  memset(scan, 0, sizeof *scan);
  scan->first_invalid = INT64_MAX;
  const int64_t end = tare_group_start(tiling, group + 1);
  for (int64_t i = tare_group_start(tiling, group); i < end; i++) {
    tare_tile tile;
    tare_tile_at(tiling, problem, i, &tile);
    cpu->kernels->all->scan_labels(problem, &tile, scan, per_class);
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
  sum->targets += scan->targets;
  sum->ones += scan->ones;
  sum->elements += scan->elements;
  if (scan->first_invalid >= sum->first_invalid) return;
  sum->first_invalid = scan->first_invalid;
  sum->invalid_label = scan->invalid_label;
}

/** Whether a label names a class, one that the loss excludes. */
static int is_excluded_label(const tare_problem *problem, int64_t label) {
  const uint64_t cls = (uint64_t)label - (uint64_t)problem->batch.first_label;
  return label >= problem->batch.first_label && cls < (uint64_t)problem->batch.classes &&
         tare_is_excluded(problem, (int64_t)cls);
}

static tare_status refuse_label(const tare_problem *problem, const tare_label_scan *scan, tare_error *error) {
  const tare_batch *b = &problem->batch;
  if (is_excluded_label(problem, scan->invalid_label))
    return tare_fail(error, TARE_STATUS_INVALID_LABEL,
                     "label of row %lld is %lld (%lld invalid rows), a class that the loss excludes with %s",
                     (long long)scan->first_invalid, (long long)scan->invalid_label, (long long)scan->counts.invalid,
                     problem->class_offset ? "an offset of -inf" : "a margin of +inf");
  char most[32] = "up";
  if (problem->family != TARE_LOSS_FAMILY_REGRESSION)
    snprintf(
        most, sizeof most, "%lld",
        b->first_label > INT64_MAX - b->classes ? (long long)INT64_MAX : (long long)(b->first_label + b->classes - 1));
  return tare_fail(error, TARE_STATUS_INVALID_LABEL,
                   "label of row %lld is %lld (%lld such rows); it must be in %lld..%s, background %lld or ignore %lld",
                   (long long)scan->first_invalid, (long long)scan->invalid_label, (long long)scan->counts.invalid,
                   (long long)b->first_label, most, (long long)b->background_label, (long long)b->ignore_label);
}

typedef struct label_pass {
  tare_cpu *cpu;
  const tare_tiling *tiling;
  const tare_problem *problem;
} label_pass;

static void scan_labels_of_group(void *argument, int64_t group, int32_t thread) {
  const label_pass *pass = argument;
  (void)thread;
  scan_group(pass->cpu, pass->tiling, pass->problem, (int32_t)group, &pass->cpu->scans[group], NULL);
}

tare_status tare_cpu_scan_labels(tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *problem,
                                 tare_scans *scans, tare_error *error) {
  label_pass pass = {cpu, tiling, problem};
  tare_share(cpu->threads, tiling->groups, scan_labels_of_group, &pass);
  scans->all = (tare_label_scan){.first_invalid = INT64_MAX};
  for (int32_t level = 0; level < problem->level_count; level++) {
    tare_label_scan *const sum = &scans->of_level[level];
    *sum = (tare_label_scan){.first_invalid = INT64_MAX};
    for (int32_t g = tiling->first_group[level]; g < tiling->first_group[level + 1]; g++) add_scan(sum, &cpu->scans[g]);
    add_scan(&scans->all, sum);
  }
  return scans->all.counts.invalid ? refuse_label(problem, &scans->all, error) : TARE_STATUS_OK;
}

void tare_cpu_count_classes(const tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *problem,
                            int64_t *per_class) {
  tare_label_scan scan;
  for (int32_t g = 0; g < tiling->groups; g++) scan_group(cpu, tiling, problem, g, &scan, per_class);
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

/** What the pass over targets found in a level. */
static void add_targets_of_level(const tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *problem,
                                 int32_t level, tare_label_scan *scan) {
  int64_t spoilt = 0;
  scan->weights = 0;
  for (int32_t g = tiling->first_group[level]; g < tiling->first_group[level + 1]; g++) {
    const tare_group_result *found = &cpu->results[g];
    spoilt += found->targets.rows;
    scan->weights += found->weights;
    scan->targets += found->targets_sum;
    scan->ones += found->ones;
    scan->elements += found->elements;
  }
  leave_out(problem, spoilt, &scan->counts);
}

void tare_cpu_scan_targets(tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *problem, tare_scans *scans) {
  const tare_job job = {.problem = problem, .pass = TARE_PASS_TARGETS};
  const int is_spoilt = (problem->checks_targets || problem->has_scores) && tare_counts_rows(&problem->output);
  if (!is_spoilt && !tare_sums_elements(problem)) return;
  tare_cpu_run_pass(cpu, tiling, &job);
  scans->all = (tare_label_scan){.first_invalid = INT64_MAX};
  for (int32_t level = 0; level < problem->level_count; level++) {
    add_targets_of_level(cpu, tiling, problem, level, &scans->of_level[level]);
    add_scan(&scans->all, &scans->of_level[level]);
  }
}

tare_status tare_cpu_refuse_targets(const tare_problem *problem, const tare_target_scan *found, tare_counts *counts,
                                    tare_error *error) {
  if (!found->rows) return TARE_STATUS_OK;
  leave_out(problem, found->rows, counts);
  counts->invalid += found->rows;
  if (tare_has_bins(problem) && tare_bin_numbers(problem) == 1)
    return tare_fail(error, TARE_STATUS_INVALID_TARGET,
                     "score of row %lld, its target between bins, is %g (%lld such rows); it must be finite; such rows "
                     "added nothing and their gradient is 0",
                     (long long)found->first_row, found->value, (long long)found->rows);
  if (tare_has_bins(problem))
    return tare_fail(error, TARE_STATUS_INVALID_TARGET,
                     "score of row %lld, bin %lld is %g (%lld such rows); it must be in [0,1e30], and 0 after the last "
                     "bin; such rows added nothing and their gradient is 0",
                     (long long)found->first_row, (long long)found->cls, found->value, (long long)found->rows);
  if (problem->has_scores)
    return tare_fail(
        error, TARE_STATUS_INVALID_TARGET,
        "score of row %lld, class %lld is %g (%lld such rows); it must be in [0,1]; such rows added nothing "
        "and their gradient is 0",
        (long long)found->first_row, (long long)found->cls, found->value, (long long)found->rows);
  const char *const range = problem->family == TARE_LOSS_FAMILY_SOFTMAX ? "finite and >= 0" : "in [0,1]";
  return tare_fail(error, TARE_STATUS_INVALID_TARGET,
                   "target of row %lld, class %lld is %g (%lld such rows); it must be %s; such rows added nothing and "
                   "their gradient is 0",
                   (long long)found->first_row, (long long)found->cls, found->value, (long long)found->rows,
                   tare_is_excluded(problem, found->cls) ? "0, as an offset of -inf excludes the class" : range);
}

/* Passes over the logits. */

static tare_tile_function *tile_function(const tare_cpu *cpu, const tare_problem *problem) {
  const tare_kernels *kernels = cpu->kernels;
  const tare_kernels_of_type *of_type = problem->batch.dtype == TARE_DTYPE_F64 ? kernels->f64 : kernels->f32;
  if (problem->family == TARE_LOSS_FAMILY_REGRESSION) return kernels->all->regression;
  return problem->family == TARE_LOSS_FAMILY_SOFTMAX ? of_type->softmax : of_type->sigmoid;
}

static void run_group(const tare_cpu *cpu, const tare_tiling *tiling, const tare_job *job, int32_t group,
                      tare_scratch *scratch) {
  tare_tile_function *run = tile_function(cpu, job->problem);
  tare_job of_level;
  if (job->of_level) {
    of_level = *job;
    of_level.gradient = job->of_level[tare_level_of_group(tiling, group)];
    job = &of_level;
  }
  cpu->results[group] = (tare_group_result){.targets = TARE_NO_TARGETS};
  const int64_t end = tare_group_start(tiling, group + 1);
  for (int64_t i = tare_group_start(tiling, group); i < end; i++) {
    tare_tile tile;
    tare_tile_at(tiling, job->problem, i, &tile);
    run(job, &tile, scratch, &cpu->results[group]);
  }
  if (job->zeros_past_caches) tare_end_past_caches();
}

double tare_cpu_sum_of_level(const tare_cpu *cpu, const tare_tiling *tiling, int32_t level) {
  double sum = 0;
  for (int32_t g = tiling->first_group[level]; g < tiling->first_group[level + 1]; g++) sum += cpu->results[g].loss;
  return sum;
}

static double sum_of_levels(const tare_cpu *cpu, const tare_tiling *tiling) {
  double sum = 0;
  for (int32_t level = 0; level < TARE_MAX_LEVELS; level++) sum += tare_cpu_sum_of_level(cpu, tiling, level);
  return sum;
}

typedef struct logit_pass {
  const tare_cpu *cpu;
  const tare_tiling *tiling;
  const tare_job *job;
} logit_pass;

static void run_group_of_pass(void *argument, int64_t group, int32_t thread) {
  const logit_pass *pass = argument;
  run_group(pass->cpu, pass->tiling, pass->job, (int32_t)group, &pass->cpu->scratch[thread]);
}

double tare_cpu_run_pass(tare_cpu *cpu, const tare_tiling *tiling, const tare_job *job) {
  logit_pass pass = {cpu, tiling, job};
  tare_share(cpu->threads, tiling->groups, run_group_of_pass, &pass);
  return sum_of_levels(cpu, tiling);
}

/* Sums of each class. */

typedef struct sums_pass {
  const tare_cpu *cpu;
  const tare_tiling *tiling;
  const tare_job *job;
  tare_class_sums *room; /* of slice 1 and those that follow it */
  int32_t slices;
  int adds; /* slice 0: to what the output holds */
} sums_pass;

static tare_class_sums *sums_of_slice(const sums_pass *pass, int64_t slice) {
  const tare_problem *problem = pass->job->problem;
  return slice ? pass->room + (slice - 1) * problem->batch.classes : problem->output.class_sums;
}

static void sum_slice(void *argument, int64_t slice, int32_t thread) {
  const sums_pass *pass = argument;
  const tare_problem *problem = pass->job->problem;
  tare_scratch *scratch = &pass->cpu->scratch[thread];
  tare_tile_function *run = tile_function(pass->cpu, problem);
  tare_group_result unused = {.targets = TARE_NO_TARGETS};
  scratch->class_sums = sums_of_slice(pass, slice);
  if (slice || !pass->adds)
    memset(scratch->class_sums, 0, (size_t)problem->batch.classes * sizeof *scratch->class_sums);
  const int64_t end = tare_part_start(pass->tiling->tiles, pass->slices, slice + 1);
  for (int64_t i = tare_part_start(pass->tiling->tiles, pass->slices, slice); i < end; i++) {
    tare_tile tile;
    tare_tile_at(pass->tiling, problem, i, &tile);
    run(pass->job, &tile, scratch, &unused);
  }
  scratch->class_sums = NULL;
}

static void add_sums(tare_class_sums *sum, const tare_class_sums *more) {
  sum->loss += more->loss;
  sum->positive_gradient += more->positive_gradient;
  sum->negative_gradient += more->negative_gradient;
  sum->count += more->count;
}

void tare_cpu_sum_classes(tare_cpu *cpu, const tare_tiling *tiling, const tare_job *evaluation, tare_class_sums *room,
                          int adds) {
  tare_problem summed;
  tare_job job = *evaluation;
  tare_class_sums_to_measure(evaluation->problem, &summed);
  job.problem = &summed;
  job.gradient = (tare_gradient_scale){.factor = 1};
  sums_pass pass = {cpu, tiling, &job, room, tare_class_sum_slices(&summed), adds};
  tare_share(cpu->threads, pass.slices, sum_slice, &pass);
  for (int32_t slice = 1; slice < pass.slices; slice++)
    for (int64_t c = 0; c < summed.batch.classes; c++)
      add_sums(&summed.output.class_sums[c], &sums_of_slice(&pass, slice)[c]);
}

/* Gradient density. */

tare_ghm_state tare_cpu_state(tare_cpu *cpu, const tare_problem *problem) {
  const tare_ghm_parameters *ghm = &problem->loss.ghm;
  if (!ghm->state) memset(cpu->state, 0, (2 + 3 * (size_t)ghm->bins) * sizeof *cpu->state);
  return tare_ghm_state_at(ghm->state ? ghm->state : cpu->state, ghm->bins);
}

void tare_cpu_clear_counts(tare_cpu *cpu, int32_t bins) {
  for (int32_t t = 0; t < cpu->threads; t++)
    for (int part = 0; part < 4; part++) memset(cpu->scratch[t].histogram[part], 0, (size_t)bins * sizeof(int64_t));
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

void tare_cpu_count_norms(tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *problem, tare_ghm_state state) {
  const tare_job job = {.problem = problem, .pass = TARE_PASS_HISTOGRAM, .bins = &cpu->bins};
  tare_cpu_clear_counts(cpu, problem->loss.ghm.bins);
  tare_cpu_run_pass(cpu, tiling, &job);
  tare_cpu_collect_counts(cpu, problem->loss.ghm.bins, state);
}

void tare_cpu_use_bins(tare_cpu *cpu, const tare_tiling *tiling, const tare_plan *plan, tare_job *job) {
  const tare_problem *problem = plan->problem;
  const tare_ghm_state state = tare_cpu_state(cpu, problem);
  tare_bins_make(&cpu->bins, &problem->loss);
  if (plan->density == TARE_DENSITY_SOURCE_COUNTS) {
    tare_cpu_count_norms(cpu, tiling, problem, state);
    tare_ghm_density_from_counts(&problem->loss.ghm, state);
  }
  tare_bins_set_weights(&cpu->bins, state.inverse_density);
  job->density = TARE_DENSITY_USE_BINS;
  job->bins = &cpu->bins;
}

void tare_cpu_write_norms(tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *problem) {
  tare_problem counted;
  tare_loss_spec loss;
  int64_t total;
  const tare_job job = {.problem = &counted, .pass = TARE_PASS_HISTOGRAM, .bins = &cpu->bins};
  const tare_ghm_state state = {.total = &total, .counts = problem->output.norm_histogram};
  tare_norms_to_count(problem, &counted);
  tare_norms_spec(problem, &loss);
  tare_bins_make(&cpu->bins, &loss);
  tare_cpu_clear_counts(cpu, problem->output.norm_bins);
  tare_cpu_run_pass(cpu, tiling, &job);
  tare_cpu_collect_counts(cpu, problem->output.norm_bins, state);
}
