/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory and time of a GPU, by CUDA's runtime. A tool that was built without CUDA never gets a GPU context and calls no
 * function of this file. All work is on the default stream.
 */
#ifndef TARE_TOOL_GPU_H
#define TARE_TOOL_GPU_H

#include <stdint.h>

/** NULL, after complaining, if there is no memory. */
void *gpu_alloc(uint64_t bytes);
void gpu_free(void *memory);

/** Copies between host and device in either direction, or within the device, and waits. A failure ends the tool. */
void gpu_copy(void *to, const void *from, uint64_t bytes);
void gpu_clear(void *memory, uint64_t bytes);

/** Puts a copy on the stream and waits for nothing. */
void gpu_start_copy(void *to, const void *from, uint64_t bytes);

/** Bytes of the second-level cache. */
uint64_t gpu_cache_bytes(void);

/** Bytes of free memory; waits for the device. */
uint64_t gpu_free_bytes(void);

/** Flushes the second-level cache by writing `room` bytes of scratch memory. Does not wait. */
void gpu_flush(void *scratch, uint64_t room);

/** Seconds of the work put on the stream between the two, by the device's own clock; gpu_timer_stop waits for it. */
void gpu_timer_start(void);
double gpu_timer_stop(void);

#endif
