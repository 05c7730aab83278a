/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the CPU backend share: its context, and the passes over labels and logits. */
#ifndef TARE_CPU_BACKEND_H
#define TARE_CPU_BACKEND_H

#include "core/backend.h"
#include "radix_sort.h"
#include "rows.h"

#define TARE_NO_TARGETS ((tare_target_scan){.first_row = INT64_MAX})

typedef struct tare_cpu {
  tare_backend base;
  const tare_kernels *kernels;
  int32_t threads;
  tare_scratch *scratch;          /* [threads] */
  tare_group_result *results;     /* [TARE_MAX_GROUPS] */
  tare_label_scan *scans;         /* [TARE_MAX_GROUPS] */
  tare_digit_table *digit_tables; /* [tare_sort_tables(threads)] */
  tare_bins bins;
  uint64_t state[2 + 3 * TARE_MAX_BINS]; /* of a GHM call without a state of the caller's */
} tare_cpu;

/** Reads all labels; an invalid one is an error. */
tare_status tare_cpu_scan_labels(tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *problem,
                                 tare_scans *scans, tare_error *error);

/** Before the divisor is known: takes rows that have an invalid target or score out of what has been scanned, and sums
 *  targets where that is wanted. */
void tare_cpu_scan_targets(tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *problem, tare_scans *scans);

/** Adds what the last pass found of invalid targets. */
void tare_cpu_add_targets(const tare_cpu *cpu, int32_t groups, tare_target_scan *sum);

/** Counts such rows as invalid, and returns TARE_STATUS_INVALID_TARGET if there are any. */
tare_status tare_cpu_refuse_targets(const tare_problem *problem, const tare_target_scan *found, tare_counts *counts,
                                    tare_error *error);

/** Runs every tile and returns the sum of the loss. */
double tare_cpu_run_pass(tare_cpu *cpu, const tare_tiling *tiling, const tare_job *job);

/** The sum of a level's loss in the last pass. */
double tare_cpu_sum_of_level(const tare_cpu *cpu, const tare_tiling *tiling, int32_t level);

/** One more in `per_class` for each label of a class. */
void tare_cpu_count_classes(const tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *problem,
                            int64_t *per_class);

/** The state of a GHM call: the caller's, or a fresh one. */
tare_ghm_state tare_cpu_state(tare_cpu *cpu, const tare_problem *problem);

/** Before and after the passes that count gradient norms, TARE_PASS_HISTOGRAM. */
void tare_cpu_clear_counts(tare_cpu *cpu, int32_t bins);
void tare_cpu_collect_counts(tare_cpu *cpu, int32_t bins, tare_ghm_state state);

/** Counts the gradient norms of a batch into a state. */
void tare_cpu_count_norms(tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *problem, tare_ghm_state state);

/** Puts the gradient density into the job, by bins. */
void tare_cpu_use_bins(tare_cpu *cpu, const tare_tiling *tiling, const tare_plan *plan, tare_job *job);

/** The sums of each class, of the losses and gradients that `evaluation` is going to compute. `adds`: to what the
 *  output holds. */
void tare_cpu_sum_classes(tare_cpu *cpu, const tare_tiling *tiling, const tare_job *evaluation, tare_class_sums *room,
                          int adds);

/* Divisors (divisors.c). */

/** By what each level is divided, and how its gradient is scaled. */
typedef struct tare_cpu_divisors {
  double of_level[TARE_MAX_LEVELS];
  tare_gradient_scale gradient[TARE_MAX_LEVELS];
} tare_cpu_divisors;

void tare_cpu_divide(const tare_problem *problem, const tare_scans *scans, tare_cpu_divisors *divisors);

/** The sums of the normalizers, if they are wanted, of what has been scanned. */
void tare_cpu_write_sums(const tare_problem *problem, const tare_scans *scans);

/** The normalizer's divisor. */
double tare_cpu_divisor(const tare_problem *problem, const tare_label_scan *scan);

/** Writes a loss, if `to` is not NULL. */
void tare_cpu_write_loss(int32_t dtype, double loss, void *to);

/** Writes the levels' losses, of the last pass, and returns their sum. */
double tare_cpu_write_levels(const tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *problem,
                             const tare_cpu_divisors *divisors);

/** The host's scale times the device's. */
double tare_cpu_scale(const tare_output *output);

/** How the kernels apply scale/divisor. */
tare_gradient_scale tare_cpu_gradient_scale(const tare_problem *problem, double scale, double divisor);

void tare_cpu_scale_gradients(const tare_cpu *cpu, const tare_scaling *scaling);

/** The histogram of gradient norms beside a loss. */
void tare_cpu_write_norms(tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *problem);

/** The loss of masks. */
tare_status tare_cpu_evaluate_masks(tare_cpu *cpu, const tare_mask_problem *problem, tare_error *error);

void tare_cpu_balance_classes(const tare_balance_step *step);

/** Weighs, collects or steps running gradients. */
void tare_cpu_balance_gradients(const tare_gradient_step *step);

/** The flags of a loss and a gradient that are not finite; both have been written. */
void tare_cpu_set_flags(const tare_cpu *cpu, const tare_tiling *tiling, const tare_problem *problem, double loss);

void tare_cpu_write_output(const tare_output *output, double loss, const tare_counts *counts);

/* The fused head: see struct tare_backend. */
tare_status tare_cpu_linear_needs(tare_backend *self, const tare_problem *problem, const tare_linear *linear,
                                  tare_linear_needs *needs, tare_error *error);
tare_status tare_cpu_linear_evaluate(tare_backend *self, const tare_linear_plan *plan, tare_stream stream,
                                     tare_error *error);
tare_status tare_cpu_linear_histogram(tare_backend *self, const tare_linear_plan *plan, tare_stream stream,
                                      tare_error *error);

#endif
