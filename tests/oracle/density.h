/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gradient density of the elements of a batch: histogram, momentum and weights, or the exact density by sorting.
 */
#ifndef TARE_TESTS_ORACLE_DENSITY_H
#define TARE_TESTS_ORACLE_DENSITY_H

#include "oracle.h"

/** From state->total and state->counts: momentum sums and 1/GD of each bin, one step more. An N of 0 is no step. */
void density_update(struct oracle_ghm_state *state, int bins, double momentum, int mmdet);

/** 1/GD of each of n gradient norms among all of them; a NaN stands as 0. */
void density_exact(int64_t n, const double *norms, double epsilon, double *inverse_density);

/** malloc that ends the test program instead of returning NULL; zeroed. */
void *density_allocate(int64_t count, size_t size);

#endif /* TARE_TESTS_ORACLE_DENSITY_H */
