/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sums of each class (tare_output::class_sums). The batch is cut into slices, by its shape alone. Each slice has sums
 * of its own, and the slices are added in order. So the sums depend neither on threads nor on blocks. The first slice's
 * sums are the output itself; the others lie in the workspace. A fused head cuts each chunk of rows into slices of its
 * own. The first slice of a chunk that follows another adds to the output.
 */
#ifndef TARE_CORE_CLASS_SUMS_H
#define TARE_CORE_CLASS_SUMS_H

#include "problem.h"

static inline int tare_sums_classes(const tare_problem *problem) { return problem->output.class_sums != NULL; }

/** At least 1, also where the batch has no rows. */
int32_t tare_class_sum_slices(const tare_problem *problem);

/** Bytes for the sums of slice 1 and those that follow it, in a batch or a chunk of so many rows. */
uint64_t tare_class_sum_bytes(const tare_problem *problem, int64_t rows);

/** Bytes of a workspace of which another step needs the first `bytes`. */
uint64_t tare_with_class_sums(const tare_problem *problem, uint64_t bytes);

/** The sums of slice 1 and those that follow it, in a workspace of which another step needs the first `bytes`. */
tare_class_sums *tare_class_sum_room(const tare_problem *problem, void *workspace, uint64_t bytes);

/** The problem whose gradients and losses are summed: no other output, and neither divisor nor scale. */
void tare_class_sums_to_measure(const tare_problem *problem, tare_problem *summed);

/** Refuses what has no such sums. */
tare_status tare_check_class_sums(const tare_problem *problem, tare_error *error);

#endif
