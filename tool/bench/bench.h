/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The benchmark's parts: its command line, the batch that every loss runs on, the measuring, the report.
 */
#ifndef TARE_TOOL_BENCH_H
#define TARE_TOOL_BENCH_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "contenders.h"
#include "copy.h"
#include "tool/base/parse.h"
#include "tool/base/stopwatch.h"
#include "tool/run.h"
#include "tool/synthetic.h"

enum { SWEEP_NONE, SWEEP_ROWS, SWEEP_CLASSES, SWEEP_THREADS };
enum { LAYOUT_ROWS, LAYOUT_NCHW, LAYOUT_NHWC, LAYOUT_LEVELS };
extern const struct choice bench_layouts[];

struct bench_options {
  struct contender_filter filter;
  int64_t rows, classes, repeat;
  int64_t dimensions; /* of the fused head; 0: none */
  double workspace;   /* its bound in MB; 0: ample */
  bool rows_given, classes_given, workspace_given, apart, json, csv;
  int32_t dtype, device, threads, layout, sweep;
  double budget; /* seconds of measuring */
  struct distribution distribution;
  const char *distribution_text, *file, *labels, *plot, *compare;
  json_t *command; /* as it was given */
  json_t *old;     /* what --compare names; NULL: nothing */
};

/** Returns TOOL_OK or TOOL_MISUSED, after complaining. */
int bench_options_read(struct bench_options *options, int argc, char **argv);

/* One loss with its times; each over that of focal in the same round (none for another batch), and over the mean of the
 * round's two copies. */
struct lane {
  struct contender contender;
  struct run run;
  struct times times, of_focal, of_copy;
};

struct bench {
  struct bench_options options;
  struct device device;
  struct sample batch, boxes;
  struct run base, box_base, balanced_base; /* own the arrays; each lane borrows from one */
  bool has_boxes, has_balanced;
  struct lane lanes[MAX_CONTENDERS];
  int32_t lane_count;
  struct copier *copier;
  struct times copies, first_copies, last_copies;
  void *copy_target;
  void *pristine, *pristine_boxes, *flushed; /* on a GPU: the logits again, and what flushing the cache writes to */
  uint64_t flushed_bytes;
  int64_t rounds;
};

/** Makes or reads the batch, in the layout asked for, and sets up every loss on it. TOOL_OK, or TOOL_FAILED after
 *  complaining; bench_release is right in both cases. */
int bench_prepare(struct bench *bench);
void bench_release(struct bench *bench);

/** Puts the logits back that a run in place has overwritten. */
void bench_restore(struct bench *bench, struct run *run);

/** The number of rounds to take, by the seconds of one and the seconds to spend; at least as many as a median needs
 *  for its interval. */
int64_t bench_rounds_within(double round, double budget);

/** Takes the times of every loss and of the copies, round by round. TOOL_OK, or TOOL_FAILED after complaining. */
int bench_measure(struct bench *bench);

/** Bytes of the logits. */
double bench_logits_bytes(const struct bench *bench);

/** Caches are called cold only if the logits do not fit in the last cache. */
bool bench_is_cold(const struct bench *bench);

/** Bytes of the last cache of the device. */
int64_t bench_cache_bytes(const struct bench *bench);

const char *bench_layout_name(const struct bench *bench);

/** Bytes that a plain copy reads and writes in a second, by the median of all copies. */
double bench_copy_rate(struct bench *bench);

struct figures {
  double median, p20, p80, ns_element, ns_core, gigabytes, ratio, of_focal;
};
struct figures bench_figures(struct bench *bench, struct lane *lane);

/** Draws the picture of --plot to `file`. TOOL_OK, or TOOL_FAILED after complaining. */
int bench_chart(FILE *file, struct bench *bench);

void bench_print(void *bench);

/** What was found: as an object, which is taken over, and by a function that prints tables of it. */
struct bench_report {
  json_t *object;
  void (*print)(void *contents);
  void *contents;
};

/** Prints it as tables, JSON or CSV, with the comparison. TOOL_OK, or TOOL_FAILED after complaining. */
int bench_write(const struct bench_options *options, const struct bench_report *report);

/** Says so if `what` ("copies") took too different times for the rest to be trusted. */
void noise_print(const char *what, struct noise noise);

/** What is measured on what: all that is known before the first round. */
json_t *bench_setting_json(const struct bench *bench);

/** Adds what the rounds found to an object. */
void bench_add_results(json_t *object, struct bench *bench);

/** Adds "median_ms", "p20_ms", "p80_ms", and the median's interval as "median_low_ms" and "median_high_ms", which are
 *  null after too few rounds. */
void json_set_times(json_t *object, struct times *times);

/** {median, low, high} of times without a unit: each is over the yardstick's in its round. */
json_t *json_relative(struct times *ratios);

#endif
