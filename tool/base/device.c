/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Device memory. On the CPU it is ordinary memory, and work is done when a call returns; on a GPU it is the GPU's.
 */
#define _GNU_SOURCE
#include "device.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "gpu.h"
#include "problem.h"
#include "words.h"

bool device_is_gpu(const struct device *device) { return device->about.device == TARE_DEVICE_CUDA; }

int device_open(struct device *device, int32_t kind, int32_t threads) {
  *device = (struct device){0};
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = kind;
  options.threads = threads;
  if (tare_context_create(&device->context, &options) != TARE_STATUS_OK)
    return complain("%s", words_of_options(tare_error_text(NULL)));
  device->about.struct_size = sizeof device->about;
  int status = device_check(device, tare_context_describe(device->context, &device->about));
#ifndef TARE_TOOL_GPU
  if (status == TOOL_OK && device_is_gpu(device)) {
    status = complain("%s works, but this tool was built without CUDA; use --device cpu", device->about.device_name);
  }
#endif
  if (status != TOOL_OK) device_close(device);
  return status;
}

void device_close(struct device *device) {
  tare_context_destroy(device->context);
  device->context = NULL;
}

int device_check(const struct device *device, tare_status status) {
  if (status == TARE_STATUS_OK) return TOOL_OK;
  const char *text = tare_error_text(device->context);
  return complain("%s", *text ? words_of_options(text) : tare_status_name(status));
}

int device_alloc(struct device *device, uint64_t bytes, void **memory) {
  *memory = NULL;
  if (device_is_gpu(device)) {
    *memory = gpu_alloc(bytes);
    return *memory ? TOOL_OK : TOOL_FAILED;
  }
  uint64_t rounded = bytes == 0 ? 64 : (bytes + 63) / 64 * 64;
  if (rounded >= bytes && rounded <= PTRDIFF_MAX) *memory = aligned_alloc(64, (size_t)rounded);
  return *memory ? TOOL_OK : complain("no memory for %" PRIu64 " bytes; use fewer rows at a time", bytes);
}

void device_free(struct device *device, void *memory) {
  if (device_is_gpu(device))
    gpu_free(memory);
  else
    free(memory);
}

void device_put(struct device *device, void *to, const void *host, uint64_t bytes) {
  if (device_is_gpu(device))
    gpu_copy(to, host, bytes);
  else if (bytes)
    memcpy(to, host, (size_t)bytes);
}

void device_get(struct device *device, void *host, const void *from, uint64_t bytes) {
  if (device_is_gpu(device))
    gpu_copy(host, from, bytes);
  else if (bytes)
    memcpy(host, from, (size_t)bytes);
}

void device_clear(struct device *device, void *memory, uint64_t bytes) {
  if (device_is_gpu(device))
    gpu_clear(memory, bytes);
  else if (bytes)
    memset(memory, 0, (size_t)bytes);
}

int device_wait(struct device *device) { return device_check(device, tare_context_synchronize(device->context, NULL)); }

const char *device_kind_name(int32_t kind) { return kind == TARE_DEVICE_CUDA ? "cuda" : "cpu"; }
