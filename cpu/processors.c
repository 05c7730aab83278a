/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A container often has a quota of time on a machine of many processors. Its mask still names them all. With a thread
 * for each the group uses up its time at once, and then none of its threads runs for the rest of the period.
 */
#define _GNU_SOURCE
#include "processors.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PATH = 4096 };

/** The first line of a file; empty if there is none. */
static void read_line(const char *folder, const char *name, char *line, int size) {
  char path[PATH];
  FILE *file = snprintf(path, sizeof path, "%s/%s", folder, name) < PATH ? fopen(path, "re") : NULL;
  if (!file || !fgets(line, size, file)) *line = '\0';
  if (file) fclose(file);
}

static int32_t quota_of_group(const char *folder) {
  char line[64];
  long long quota = -1, period = 0;
  read_line(folder, "cpu.max", line, sizeof line);
  if (sscanf(line, "%lld %lld", &quota, &period) != 2) { /* "max", or version 1 */
    read_line(folder, "cpu.cfs_quota_us", line, sizeof line);
    if (sscanf(line, "%lld", &quota) != 1) return INT32_MAX;
    read_line(folder, "cpu.cfs_period_us", line, sizeof line);
    if (sscanf(line, "%lld", &period) != 1) return INT32_MAX;
  }
  if (quota <= 0 || period <= 0 || quota / period >= INT32_MAX) return INT32_MAX;
  return (int32_t)(quota / period + (quota % period != 0));
}

/** The least of a group and of those around it. In a container /sys may begin with the container's own group. */
static int32_t quota_of_groups(const char *base, const char *group) {
  char folder[2 * PATH];
  int32_t least = INT32_MAX;
  snprintf(folder, sizeof folder, "%s%s", base, group);
  for (;;) {
    const int32_t quota = quota_of_group(folder);
    if (quota < least) least = quota;
    char *end = strrchr(folder + strlen(base), '/');
    if (!end) return least;
    *end = '\0';
  }
}

/** Whether a list of controllers, "cpu,cpuacct", names that of processor time. */
static int has_cpu(const char *controllers) {
  for (const char *at = controllers; at; at = strchr(at, ',')) {
    at += *at == ',';
    if (strncmp(at, "cpu", 3) == 0 && (at[3] == ',' || at[3] == '\0')) return 1;
  }
  return 0;
}

int32_t tare_quota(const char *root) {
  char line[PATH], base[PATH];
  int32_t least = INT32_MAX;
  snprintf(line, sizeof line, "%s/proc/self/cgroup", root);
  FILE *file = fopen(line, "re");
  while (file && fgets(line, sizeof line, file)) { /* NUMBER:CONTROLLERS:GROUP */
    char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group) continue;
    *group++ = '\0';
    group[strcspn(group, "\n")] = '\0';
    const int is_version_2 = controllers[1] == '\0';
    if (!is_version_2 && !has_cpu(controllers + 1)) continue;
    snprintf(base, sizeof base, "%s/sys/fs/cgroup%s", root, is_version_2 ? "" : "/cpu");
    const int32_t quota = quota_of_groups(base, group);
    if (quota < least) least = quota;
  }
  if (file) fclose(file);
  return least;
}

int32_t tare_processors(void) {
  cpu_set_t usable[8]; /* the kernel has at most 8,192 processors, and refuses a mask that is too short */
  const int known = sched_getaffinity(0, sizeof usable, usable) == 0;
  const int32_t masked = known ? CPU_COUNT_S(sizeof usable, usable) : 1, quota = tare_quota("");
  return quota < masked ? quota : masked;
}

int32_t tare_node_count(const char *root) {
  char folder[PATH], line[256];
  int highest = 0;
  if (snprintf(folder, sizeof folder, "%s/sys/devices/system/node", root) >= PATH) return 1;
  read_line(folder, "has_cpu", line, sizeof line); /* "0", "0-1", "0,2-3" */
  const size_t digits = strcspn(line, "\n");
  line[digits] = '\0';
  const char *last = line + digits;
  while (last > line && last[-1] >= '0' && last[-1] <= '9') last--;
  if (sscanf(last, "%d", &highest) != 1 || highest < 0 || highest > 1023) return 1;
  return highest + 1;
}

tare_place tare_current_place(int32_t nodes) {
  unsigned processor = 0, node = 0;
  if (nodes > 1 && syscall(SYS_getcpu, &processor, &node, NULL) == 0)
    return (tare_place){(int32_t)processor, (int32_t)node, nodes};
  const int found = sched_getcpu(); /* no system call */
  return (tare_place){found < 0 ? 0 : found, 0, 1};
}
