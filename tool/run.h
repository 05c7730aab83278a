/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One loss on one batch, with everything that tare_evaluate needs in memory of the device.
 */
#ifndef TARE_TOOL_RUN_H
#define TARE_TOOL_RUN_H

#include <stdbool.h>

#include "sample.h"
#include "tool/base/device.h"
#include "tool/base/stopwatch.h"

enum { RUN_LEVELS = 5 };

struct run {
  struct device *device;
  struct run *owner; /**< whose arrays these are; NULL: its own */
  tare_loss_spec loss;
  tare_level levels[TARE_MAX_LEVELS]; /**< batch.level_count of them; an array of several is one, level after level */
  bool has_level_losses;
  tare_batch batch;
  tare_output output; /**< loss (f64) and counts */
  void *logits, *gradient, *labels, *targets, *scores, *row_weights, *class_weights, *offset, *log_counts, *margins,
      *class_mask, *row_loss, *columns[COLUMN_VECTORS]; /**< owned by the owner */
  void *scalars, *state, *workspace;                    /**< every run's own */
  uint64_t state_bytes, workspace_bytes;
};

/** A run must not be copied or moved. `gradient` false: none is made, for running in place or for none.
 *  TOOL_OK, or TOOL_FAILED after complaining; run_release is right in both cases. */
int run_prepare(struct run *run, struct device *device, const struct sample *sample, const tare_loss_spec *loss,
                bool gradient);

/** Another loss on the arrays of `owner`, which must outlive it. */
int run_borrow(struct run *run, struct run *owner, const tare_loss_spec *loss);

/** What loss and gradient are divided by. */
struct divisor {
  int32_t normalizer;
  double value, addend, minimum;
};

/** Before run_once. Without it nothing is divided. */
void run_divide(struct run *run, const struct divisor *divisor);

int run_add_row_loss(struct run *run);
void run_release(struct run *run);

/** Evaluates once, from a fresh GHM state, and waits. The batch's arrays and parameters must not have changed shape. */
int run_once(struct run *run);

/** The same without waiting: on a GPU the work may still be running. */
int run_start(struct run *run);

/** What run_once takes: the median over some repetitions, about `budget` seconds in all, at least one. */
struct timing {
  double seconds;
  struct noise noise; /**< of the repetitions */
};
int run_time(struct run *run, double budget, struct timing *timing);

/** Bytes that one evaluation reads and writes: logits, gradient, labels, targets, scores and row weights, each once. */
double run_bytes(const struct run *run);

struct result {
  double loss, divisor, grad_l1, grad_l2;
  double level_losses[TARE_MAX_LEVELS]; /**< if the run has them */
  tare_counts counts;
};
/** What run_once left on the device; the norms are 0 if there is no gradient. */
int run_result(const struct run *run, struct result *result);

/** The gradient in host memory; free() it. */
int run_gradient(const struct run *run, void **gradient);

#endif
