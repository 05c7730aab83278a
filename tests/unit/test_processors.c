/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many threads a context takes by default: the processors of the mask, and no more than the quota of a container.
 * The files of control groups and nodes are read from a folder that stands for the machine's.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cpu/processors.h"
#include "cpu/threads.h"

enum { PATH = 512 };

static char root[PATH / 2];

static void make_root(void) {
  const char *folder = getenv("TMPDIR");
  snprintf(root, sizeof root, "%s/tare-processors-XXXXXX", folder ? folder : "/tmp");
  cr_assert_not_null(mkdtemp(root), "%s", root);
}

static void remove_root(void) {
  char command[PATH];
  snprintf(command, sizeof command, "rm -r '%s'", root);
  cr_expect_eq(system(command), 0);
}

/** Writes a file below the root, and makes its folders. */
static void put(const char *name, const char *text) {
  char path[PATH];
  snprintf(path, sizeof path, "%s/%s", root, name);
  for (char *at = path + strlen(root) + 1; (at = strchr(at, '/')) != NULL; *at++ = '/') {
    *at = '\0';
    mkdir(path, 0700);
  }
  FILE *file = fopen(path, "w");
  cr_assert_not_null(file, "%s", path);
  fputs(text, file);
  fclose(file);
}

TestSuite(processors, .init = make_root, .fini = remove_root);

Test(processors, without_control_groups_there_is_no_quota) {
  cr_assert_eq(tare_quota(root), INT32_MAX);
  put("proc/self/cgroup", "0::/\n");
  cr_assert_eq(tare_quota(root), INT32_MAX);
  put("sys/fs/cgroup/cpu.max", "max 100000\n");
  cr_assert_eq(tare_quota(root), INT32_MAX);
}

Test(processors, a_container_sees_its_own_group_as_the_root) {
  put("proc/self/cgroup", "0::/\n");
  put("sys/fs/cgroup/cpu.max", "200000 100000\n");
  cr_assert_eq(tare_quota(root), 2);
  put("sys/fs/cgroup/cpu.max", "250000 100000\n");
  cr_assert_eq(tare_quota(root), 3, "a part of a processor is one");
  put("sys/fs/cgroup/cpu.max", "5000 100000\n");
  cr_assert_eq(tare_quota(root), 1);
}

Test(processors, the_least_of_the_groups_around_counts) {
  put("proc/self/cgroup", "0::/machine/job/step\n");
  put("sys/fs/cgroup/machine/job/step/cpu.max", "max 100000\n");
  put("sys/fs/cgroup/machine/job/cpu.max", "400000 100000\n");
  put("sys/fs/cgroup/machine/cpu.max", "1600000 100000\n");
  cr_assert_eq(tare_quota(root), 4);
  put("sys/fs/cgroup/machine/cpu.max", "150000 50000\n");
  cr_assert_eq(tare_quota(root), 3);
}

Test(processors, version_1) {
  put("proc/self/cgroup", "12:cpuset:/a\n4:cpu,cpuacct:/docker/id\n1:name=systemd:/docker/id\n0::/docker/id\n");
  put("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  put("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  cr_assert_eq(tare_quota(root), INT32_MAX);
  put("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n"); /* the container's own, where its folder does not exist */
  cr_assert_eq(tare_quota(root), 2);
  put("sys/fs/cgroup/cpu/docker/id/cpu.cfs_quota_us", "100000\n");
  put("sys/fs/cgroup/cpu/docker/id/cpu.cfs_period_us", "100000\n");
  cr_assert_eq(tare_quota(root), 1);
  put("proc/self/cgroup", "4:cpuacct,cpuset:/docker/id\n");
  cr_assert_eq(tare_quota(root), INT32_MAX, "cpuacct and cpuset are not cpu");
}

Test(processors, text_that_makes_no_sense_is_no_quota) {
  static const char *const texts[] = {
      "", "\n", "nonsense", "0 100000\n", "100000 0\n", "-1 -1\n", "9223372036854775807 1"};
  put("proc/self/cgroup", "0\n0:\n::\n0::/\n");
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    put("sys/fs/cgroup/cpu.max", texts[i]);
    cr_assert_eq(tare_quota(root), INT32_MAX, "%s", texts[i]);
  }
}

Test(processors, nodes) {
  static const struct {
    const char *text;
    int32_t nodes;
  } files[] = {{"0\n", 1},     {"0-1\n", 2}, {"0-7\n", 8},  {"0,2\n", 3},
               {"0,8-15", 16}, {"\n", 1},    {"junk\n", 1}, {"99999\n", 1}};
  cr_assert_eq(tare_node_count(root), 1);
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    put("sys/devices/system/node/has_cpu", files[i].text);
    cr_assert_eq(tare_node_count(root), files[i].nodes, "%s", files[i].text);
  }
  const int32_t counts[] = {1, 2, tare_node_count("")};
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
    const tare_place place = tare_current_place(counts[i]);
    cr_assert(place.processor >= 0 && place.node >= 0 && place.nodes == counts[i]);
  }
  cr_assert_lt(tare_current_place(tare_node_count("")).node, tare_node_count(""));
}

Test(processors, the_mask_of_the_thread_counts) {
  cpu_set_t all, one;
  cr_assert_eq(sched_getaffinity(0, sizeof all, &all), 0);
  const int usable = CPU_COUNT(&all);
  cr_assert_eq(tare_processors(), usable < tare_quota("") ? usable : tare_quota(""));
  CPU_ZERO(&one);
  for (int i = 0; i < CPU_SETSIZE && !CPU_COUNT(&one); i++)
    if (CPU_ISSET(i, &all)) CPU_SET(i, &one);
  cr_assert_eq(sched_setaffinity(0, sizeof one, &one), 0);
  cr_assert_eq(tare_processors(), 1);
  unsetenv("OMP_NUM_THREADS");
  cr_assert_eq(tare_default_threads(), 1);
  setenv("OMP_NUM_THREADS", "3,2", 1);
  cr_assert_eq(tare_default_threads(), 3, "the program's wish comes first");
}
