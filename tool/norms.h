/* SPDX-License-Identifier: Apache-2.0 */
/* The library's histogram of gradient norms beside a sigmoid loss, of `tare eval --norm-histogram`. */
#ifndef TARE_TOOL_NORMS_H
#define TARE_TOOL_NORMS_H

#include "report.h"
#include "run.h"

/** Counts the gradient norms of a run's batch, in a run of its own. `counts` [bins], to be freed. TOOL_OK, or
 *  TOOL_FAILED after complaining. */
int norms_measure(struct run *run, int32_t bins, int64_t **counts);

void print_norms(const int64_t *counts, int32_t bins);
json_t *json_norms(const int64_t *counts, int32_t bins);

#endif
