/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peak memory of a piece of work, as the system counts it.
 */
#ifndef TARE_TOOL_MEMORY_H
#define TARE_TOOL_MEMORY_H

#include "device.h"

/** Memory that the system takes back when it is released, so that the next peak does not start from it. */
int working_alloc(struct device *device, uint64_t bytes, void **memory);
void working_free(struct device *device, void *memory, uint64_t bytes);

/** Starts anew; memory_peak gives the bytes beyond what was in use then, negative where the system cannot say. On a GPU
 *  it is what is in use when memory_peak is called: nothing there comes and goes within a call. */
void memory_mark(struct device *device);
double memory_peak(struct device *device);

#endif
