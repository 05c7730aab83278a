/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time and its statistics.
 */
#ifndef TARE_TOOL_STOPWATCH_H
#define TARE_TOOL_STOPWATCH_H

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
void times_free(struct times *times);

#endif
