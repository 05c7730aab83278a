/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory as the system counts it: how much is free, and the peak of a piece of work.
 */
#ifndef TARE_TOOL_MEMORY_H
#define TARE_TOOL_MEMORY_H

#include "device.h"

/** Memory that returns to the system when it is released, so that the next peak does not include it. */
int working_alloc(struct device *device, uint64_t bytes, void **memory);
void working_free(struct device *device, void *memory, uint64_t bytes);

/** Bytes that the device could still give: free memory of the GPU, or of the system within the limit of the process's
 *  group. Negative if unknown. */
double memory_free_bytes(const struct device *device);

/** Whether the limits of the process itself leave room for `bytes` more. */
bool memory_is_allowed(double bytes);

/** Starts a new measurement. memory_peak returns the most bytes used since, beyond those in use at the start; negative
 *  if unknown. On a GPU it returns the bytes in use at its call, since no call allocates there. */
void memory_mark(struct device *device);
double memory_peak(struct device *device);

#endif
