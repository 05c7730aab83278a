/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SplitMix64 (Steele, Lea, Flood 2014), and what tests draw from it.
 */
#include "random.h"

#include <math.h>
#include <stdlib.h>

uint64_t random_seed(void) {
  const char *seed = getenv("TARE_TEST_SEED");
  return seed == NULL || *seed == '\0' ? 1 : strtoull(seed, NULL, 10);
}

random_source random_from(uint64_t salt) {
  random_source source = {random_seed() * UINT64_C(0x9E3779B97F4A7C15) ^ salt};
  random_bits(&source);
  return source;
}

uint64_t random_bits(random_source *source) {
  source->state += UINT64_C(0x9E3779B97F4A7C15);
  uint64_t z = source->state;
  z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
  return z ^ (z >> 31);
}

double random_uniform(random_source *source) { return (double)(random_bits(source) >> 11) * 0x1p-53; }

int64_t random_below(random_source *source, int64_t n) { return (int64_t)(random_bits(source) % (uint64_t)n); }

double random_normal(random_source *source) {
  const double radius = sqrt(-2.0 * log(1.0 - random_uniform(source)));
  return radius * cos(6.283185307179586 * random_uniform(source));
}
