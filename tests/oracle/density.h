/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gradient density of the elements of a batch: histogram, momentum and weights, or the exact density by sorting.
 */
#ifndef TARE_TESTS_ORACLE_DENSITY_H
#define TARE_TESTS_ORACLE_DENSITY_H

#include "oracle.h"

/** From state->total and state->counts: momentum sums and 1/GD of each bin, one step more. An N of 0 is no step. */
void density_update(struct oracle_ghm_state *state, int bins, double momentum, int mmdet);

/** A gradient norm in long double, and what it lacks to 1, which is formed without it: neither end loses its digits. */
struct oracle_norm {
  long double g, rest;
};

/** Of |sigmoid(x)-t| and of |d|/sqrt(d^2+mu^2); where x or d is NaN: 0. */
struct oracle_norm density_norm_c(double x, double t);
struct oracle_norm density_norm_r(double d, double mu);

/** 1/GD of each of n gradient norms among all of them. The window is closed: |g_k - g| <= epsilon/2. */
void density_exact(int64_t n, const struct oracle_norm *norms, double epsilon, double *inverse_density);

/** Fills result->inverse_density, and result->ghm; updates problem->state. */
void density_of_batch(const struct oracle_problem *problem, struct oracle_result *result);

/** malloc that ends the test program instead of returning NULL; zeroed. */
void *density_allocate(int64_t count, size_t size);

#endif /* TARE_TESTS_ORACLE_DENSITY_H */
