/* SPDX-License-Identifier: Apache-2.0 */
/* How many processors the process may use, and how they are grouped. */
#ifndef TARE_CPU_PROCESSORS_H
#define TARE_CPU_PROCESSORS_H

#include <stdint.h>

#include "ranges.h"

/** The processors of this thread's mask, or fewer where its control group has less time: at least 1. */
int32_t tare_processors(void);

/** The processors that the control groups of the process have time for, rounded up; INT32_MAX: any number. `root` is
 *  the folder of proc and sys: "", or another one in a test. Version 1 and 2. */
int32_t tare_quota(const char *root);

/** The NUMA nodes that have processors, counted up to the highest: at least 1. */
int32_t tare_node_count(const char *root);

/** Where this thread runs at the moment, on a machine of so many nodes. */
tare_place tare_current_place(int32_t nodes);

#endif
