/* SPDX-License-Identifier: Apache-2.0 */
/* The histogram of gradient norms beside a loss (tare_output::norm_histogram): by a pass of its own over the logits. */
#ifndef TARE_CORE_NORMS_H
#define TARE_CORE_NORMS_H

#include "problem.h"

static inline int tare_counts_norms(const tare_problem *problem) { return problem->output.norm_histogram != NULL; }

/** The loss whose bins the norms have: those of GHM-C. */
void tare_norms_spec(const tare_problem *problem, tare_loss_spec *loss);

/** The problem whose elements are counted: cross-entropy with the caller's row, class and element weights, and nothing
 *  written. */
void tare_norms_to_count(const tare_problem *problem, tare_problem *counted);

/** Refuses what has no such histogram. `unseen`: the logits are a fused head's. */
tare_status tare_check_norms(const tare_problem *problem, int unseen, tare_error *error);

#endif
