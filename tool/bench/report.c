/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the benchmark found, as a table.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <unistd.h>

#include "bench.h"
#include "tool/base/convert.h"
#include "tool/base/gpu.h"
#include "tool/report.h"

/* The last cache of the first core, as the kernel knows it; the C library counts all of a package's together. */
static int64_t cpu_cache_bytes(void) {
  int64_t largest = 0;
  for (int index = 0; index < 8; index++) {
    char path[96];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", index);
    FILE *file = fopen(path, "re");
    if (!file) break;
    long long kibibytes;
    if (fscanf(file, "%lldK", &kibibytes) == 1 && kibibytes * 1024 > largest) largest = kibibytes * 1024;
    fclose(file);
  }
  if (largest > 0) return largest;
  long bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
  return bytes > 0 ? bytes : 0;
}

double bench_copy_rate(struct bench *bench) {
  const struct sample *sample = &bench->batch;
  double bytes = 2 * (double)sample->rows * (double)sample->classes * (double)dtype_size(sample->dtype);
  double median = times_quantile(&bench->copies, 0.5);
  return median > 0 ? bytes / median : 0;
}

/* A GPU's cores are not counted. */
static int32_t cores(const struct bench *bench) {
  return device_is_gpu(&bench->device) ? 1 : bench->device.about.threads;
}

struct figures bench_figures(struct bench *bench, struct lane *lane) {
  struct figures figures = {.median = times_quantile(&lane->times, 0.5),
                            .p20 = times_quantile(&lane->times, 0.2),
                            .p80 = times_quantile(&lane->times, 0.8)};
  double elements = (double)bench->batch.rows * (double)lane->run.batch.classes;
  figures.ns_element = figures.median / elements * 1e9;
  figures.ns_core = figures.ns_element * cores(bench);
  figures.gigabytes = run_bytes(&lane->run) / figures.median * 1e-9;
  double rate = bench_copy_rate(bench);
  figures.of_focal = times_quantile(&lane->of_focal, 0.5);
  figures.ratio = rate > 0 ? figures.gigabytes * 1e9 / rate : 0;
  return figures;
}

int64_t bench_cache_bytes(const struct bench *bench) {
  return device_is_gpu(&bench->device) ? (int64_t)gpu_cache_bytes() : cpu_cache_bytes();
}

const char *bench_layout_name(const struct bench *bench) { return bench_layouts[bench->options.layout].name; }

bool bench_is_cold(const struct bench *bench) {
  if (device_is_gpu(&bench->device)) return true; /* flushed before each run */
  double bytes = bench_logits_bytes(bench);
  return bytes * (bench->options.apart ? 2 : 1) > (double)bench_cache_bytes(bench);
}

static void print_heading(const struct bench *bench) {
  const tare_context_description *about = &bench->device.about;
  double bytes = bench_logits_bytes(bench);
  printf("Loss and gradient of %s x %s %s (%s, %s, %s)\n", grouped(bench->batch.rows).of,
         grouped(bench->batch.classes).of, dtype_name(bench->batch.dtype), bench_layout_name(bench),
         bench->options.apart ? "gradient apart" : "in place", bench->options.distribution_text);
  if (device_is_gpu(&bench->device)) {
    printf("on %s, %s; %lld rounds of every loss; restoring the logits is not timed.\n", about->device_name,
           about->instruction_set, (long long)bench->rounds);
    printf("The logits are %.1f MB; the GPU's cache is flushed before each run.\n\n", bytes * 1e-6);
    return;
  }
  printf("on %s, %s, %d thread%s; %lld rounds of every loss; restoring the logits is not timed.\n", about->device_name,
         about->instruction_set, about->threads, about->threads == 1 ? "" : "s", (long long)bench->rounds);
  if (*about->reason) printf("Not on a GPU: %s\n", about->reason);
  printf("The logits are %.1f MB and the last cache %.1f MB: the caches are %s.\n\n", bytes * 1e-6,
         (double)bench_cache_bytes(bench) * 1e-6,
         bench_is_cold(bench) ? "cold (too small to hold the batch)" : "warm (they hold the batch)");
}

static void add_copy_row(struct table *table, const char *name, struct times *times, double elements, double bytes,
                         double median_of_all, int32_t threads) {
  double median = times_quantile(times, 0.5);
  table_cell(table, "%s", name);
  table_cell(table, "%.3f", median * 1e3);
  table_cell(table, "%.3f", times_quantile(times, 0.2) * 1e3);
  table_cell(table, "%.3f", times_quantile(times, 0.8) * 1e3);
  table_cell(table, "%.3f", median / elements * 1e9);
  table_cell(table, "%.3f", median / elements * 1e9 * threads);
  table_cell(table, "%.2f", bytes / median * 1e-9);
  table_cell(table, "%.2f", median_of_all / median);
  table_cell(table, "%s", "");
}

void noise_print(const char *what, struct noise noise) {
  if (noise.known && !noise.trusted) {
    printf("The %s vary a lot from round to round: other work keeps this machine busy. Do not trust these times.\n",
           what);
  }
}

void bench_print(void *contents) {
  struct bench *bench = contents;
  print_heading(bench);
  static const char *const heading[] = {"loss",       "ms",   "p20",     "p80",   "ns/element",
                                        "ns x cores", "GB/s", "of copy", "focals"};
  struct table table = {.alignment = "lrrrrrrrr"};
  for (size_t index = 0; index < sizeof heading / sizeof heading[0]; index++) table_cell(&table, "%s", heading[index]);
  double elements = (double)bench->batch.rows * (double)bench->batch.classes;
  double bytes = 2 * elements * (double)dtype_size(bench->batch.dtype), all = times_quantile(&bench->copies, 0.5);
  int32_t threads = cores(bench);
  add_copy_row(&table, "copy, before", &bench->first_copies, elements, bytes, all, threads);
  for (int32_t index = 0; index < bench->lane_count; index++) {
    struct figures figures = bench_figures(bench, &bench->lanes[index]);
    table_cell(&table, "%s", bench->lanes[index].contender.label);
    table_cell(&table, "%.3f", figures.median * 1e3);
    table_cell(&table, "%.3f", figures.p20 * 1e3);
    table_cell(&table, "%.3f", figures.p80 * 1e3);
    table_cell(&table, "%.3f", figures.ns_element);
    table_cell(&table, "%.3f", figures.ns_core);
    table_cell(&table, "%.2f", figures.gigabytes);
    table_cell(&table, "%.2f", figures.ratio);
    if (figures.of_focal > 0)
      table_cell(&table, "%.2f", figures.of_focal);
    else
      table_cell(&table, "%s", "");
  }
  add_copy_row(&table, "copy, after", &bench->last_copies, elements, bytes, all, threads);
  table_print(&table, true);
  struct noise noise = times_noise(&bench->copies);
  printf(
      "\nms: median run time; p20, p80: its 20th and 80th percentiles. ns x cores: ns per element times threads.\n"
      "GB/s: logits read and gradient written, with labels and targets. of copy: that rate over the rate of plain\n"
      "copies of the logits (their median; p20 to p80 spread is %.0f %% of it). focals: the median ratio to\n"
      "the time of the first sigmoid-focal in the same round. ghm-r has [rows, 4].\n",
      noise.spread * 100);
  noise_print("copies", noise);
}
