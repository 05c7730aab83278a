/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peak memory: on Linux the kernel's count of resident memory, whose peak can be reset; on a GPU the driver's count.
 */
#define _GNU_SOURCE
#include "memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "gpu.h"
#include "problem.h"

static double in_use; /* at the mark; negative: unknown */

int working_alloc(struct device *device, uint64_t bytes, void **memory) {
  if (device_is_gpu(device)) return device_alloc(device, bytes, memory);
  *memory = mmap(NULL, bytes ? (size_t)bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (*memory != MAP_FAILED) return TOOL_OK;
  *memory = NULL;
  return complain("no memory for %" PRIu64 " bytes; use fewer rows", bytes);
}

void working_free(struct device *device, void *memory, uint64_t bytes) {
  if (device_is_gpu(device))
    device_free(device, memory);
  else if (memory)
    munmap(memory, bytes ? (size_t)bytes : 1);
}

/* A line of /proc/self/status in bytes; negative if there is none. */
static double status_line(const char *name) {
  char line[256];
  double found = -1;
  FILE *file = fopen("/proc/self/status", "re");
  while (file && fgets(line, sizeof line, file)) {
    long long kibibytes;
    if (strncmp(line, name, strlen(name)) == 0 && sscanf(line + strlen(name), ": %lld", &kibibytes) == 1) {
      found = (double)kibibytes * 1024;
    }
  }
  if (file) fclose(file);
  return found;
}

static bool forget_peak(void) {
  FILE *file = fopen("/proc/self/clear_refs", "we");
  if (!file) return false;
  bool written = fputs("5", file) >= 0;
  return fclose(file) == 0 && written;
}

void memory_mark(struct device *device) {
  if (device_is_gpu(device))
    in_use = -(double)gpu_free_bytes();
  else
    in_use = forget_peak() ? status_line("VmRSS") : -1;
}

double memory_peak(struct device *device) {
  if (device_is_gpu(device)) return -(double)gpu_free_bytes() - in_use;
  double peak = status_line("VmHWM");
  return in_use < 0 || peak < in_use ? -1 : peak - in_use;
}
