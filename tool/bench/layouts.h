/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layouts of the benchmark: rows, or a head's own NCHW or NHWC, of one level or of five as a feature pyramid has.
 */
#ifndef TARE_TOOL_BENCH_HEAD_H
#define TARE_TOOL_BENCH_HEAD_H

#include "tool/run.h"

struct head {
  tare_level levels[RUN_LEVELS]; /**< shapes and strides; no pointers */
  int32_t level_count;
};

/** Cuts the rows of a sample into the levels of a layout (LAYOUT_...), level after level, and puts its logits in their
 *  order, so that every layout holds the same batch. TOOL_OK, or TOOL_FAILED after complaining. */
int head_arrange(struct head *head, int32_t layout, struct sample *sample);

/** Gives a run the levels, on its own arrays; without a gradient of its own it runs in place. */
void head_place(const struct head *head, struct run *run);

#endif
