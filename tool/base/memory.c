/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory: on Linux the kernel's counts, and the peak of resident memory, which can be reset; on a GPU the driver's.
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

/* A line of a file of the kernel, "NAME: 12 kB", in bytes; negative if there is none. */
static double kernel_line(const char *path, const char *name) {
  char line[256];
  double found = -1;
  FILE *file = fopen(path, "re");
  while (file && fgets(line, sizeof line, file)) {
    long long kibibytes;
    if (strncmp(line, name, strlen(name)) == 0 && sscanf(line + strlen(name), ": %lld", &kibibytes) == 1) {
      found = (double)kibibytes * 1024;
    }
  }
  if (file) fclose(file);
  return found;
}

static double status_line(const char *name) { return kernel_line("/proc/self/status", name); }

/* The first line of a file that is a number, or another word before one ("anon 12"); negative if there is none. */
static double group_number(const char *group, const char *file_name, const char *form) {
  char path[512], line[128];
  double found = -1;
  long long number;
  snprintf(path, sizeof path, "/sys/fs/cgroup%s/%s", group, file_name);
  FILE *file = fopen(path, "re");
  while (file && found < 0 && fgets(line, sizeof line, file))
    if (sscanf(line, form, &number) == 1) found = (double)number;
  if (file) fclose(file);
  return found;
}

/* What is left to the process's group ("0::/user.slice"), of what is no cache; negative if it has no limit. */
static double group_free_bytes(void) {
  char line[256] = "", *group;
  FILE *file = fopen("/proc/self/cgroup", "re");
  while (file && fgets(line, sizeof line, file) && strncmp(line, "0::", 3) != 0) continue;
  if (file) fclose(file);
  if (strncmp(line, "0::", 3) != 0) return -1;
  group = line + 3;
  group[strcspn(group, "\n")] = 0;
  const double limit = group_number(group, "memory.max", "%lld"),
               used = group_number(group, "memory.stat", "anon %lld");
  return limit < 0 || used < 0 ? -1 : limit > used ? limit - used : 0;
}

double memory_free_bytes(const struct device *device) {
  if (device_is_gpu(device)) return (double)gpu_free_bytes();
  const double system = kernel_line("/proc/meminfo", "MemAvailable"), group = group_free_bytes();
  return group >= 0 && (system < 0 || group < system) ? group : system;
}

/* Nothing is touched, so the trial takes no memory. */
bool memory_is_allowed(double bytes) {
  if (!(bytes < 0x1p62)) return false;
  void *trial = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (trial == MAP_FAILED) return false;
  munmap(trial, (size_t)bytes);
  return true;
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
