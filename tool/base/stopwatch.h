/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time and its statistics.
 */
#ifndef TARE_TOOL_STOPWATCH_H
#define TARE_TOOL_STOPWATCH_H

#include <stdbool.h>
#include <stddef.h>

double seconds_now(void); /**< monotonic */

/** Times of one thing. */
struct times {
  double *of;
  size_t count, capacity;
};
int times_add(struct times *times, double seconds); /**< TOOL_OK, or TOOL_FAILED after complaining */
/** Linear interpolation between the nearest ranks; sorts the times. 0 if there is none. */
double times_quantile(struct times *times, double fraction);

/** A confidence interval of the median: two of the times themselves, by the binomial distribution. It needs no other
 *  assumption on how times are distributed. */
struct interval {
  bool known; /**< false: fewer than six times, which have no such interval */
  double low, high;
};
#define INTERVAL_CONFIDENCE 0.95
struct interval times_median_interval(struct times *times);

/** How far apart the times of one thing lie: from the 20th to the 80th percentile, over the median. Where this is more
 *  than NOISE_LIMIT, other work kept the machine busy, and times taken in the same rounds are not trusted. */
struct noise {
  bool known; /**< false: fewer than two times; then they are not trusted */
  double spread;
  bool trusted;
};
#define NOISE_LIMIT 0.2
struct noise times_noise(struct times *times);

void times_free(struct times *times);

#endif
