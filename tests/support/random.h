/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random numbers for tests: one small generator, its seed printed with every failure. The environment variable
 * TARE_TEST_SEED (default 1) changes every test's data.
 */
#ifndef TARE_TESTS_RANDOM_H
#define TARE_TESTS_RANDOM_H

#include <stdint.h>

typedef struct random_source {
  uint64_t state;
} random_source;

/** The run's seed. */
uint64_t random_seed(void);

/** A source that depends on the run's seed and on `salt`. */
random_source random_from(uint64_t salt);

uint64_t random_bits(random_source *source);

/** Uniform in [0,1). */
double random_uniform(random_source *source);

/** Uniform in 0..n-1; n >= 1. */
int64_t random_below(random_source *source, int64_t n);

/** Normal of mean 0 and deviation 1. */
double random_normal(random_source *source);

#endif
