/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counts per class from a file: .npy of integers, or .csv whose last column counts.
 */
#ifndef TARE_TOOL_COUNTS_H
#define TARE_TOOL_COUNTS_H

#include <stdint.h>

struct counts {
  int64_t classes;
  int64_t *of; /**< [classes], in the order of the file; free() it */
};

/** Returns TOOL_OK, or TOOL_FAILED after complaining. A first line of a .csv that holds no number is its heading. */
int counts_read(const char *path, struct counts *counts);

#endif
