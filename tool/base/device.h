/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device that the tool runs on: a context of the library and memory that its calls can use. The rest of the tool
 * gets such memory only here.
 */
#ifndef TARE_TOOL_DEVICE_H
#define TARE_TOOL_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "tare.h"

struct device {
  tare_context *context;
  tare_context_description about;
};

/** Opens a tare_device with `threads` CPU threads (0: the library's choice). Returns TOOL_OK, or TOOL_FAILED after
 *  printing the library's text. */
int device_open(struct device *device, int32_t kind, int32_t threads);
void device_close(struct device *device);

bool device_is_gpu(const struct device *device);

/** Returns TOOL_OK, or prints the context's error text. */
int device_check(const struct device *device, tare_status status);

/** 64-byte aligned memory; complains if there is none. */
int device_alloc(struct device *device, uint64_t bytes, void **memory);
void device_free(struct device *device, void *memory);
void device_put(struct device *device, void *to, const void *host, uint64_t bytes);
void device_get(struct device *device, void *host, const void *from, uint64_t bytes);
void device_clear(struct device *device, void *memory, uint64_t bytes);

/** Waits for all work, and reports its errors. */
int device_wait(struct device *device);

const char *device_kind_name(int32_t kind); /**< "cpu" or "cuda" */

#endif
