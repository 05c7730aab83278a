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

enum { LAYOUT_ROWS, LAYOUT_NCHW, LAYOUT_NHWC, LAYOUT_LEVELS };
extern const struct choice bench_layouts[];

struct bench_options {
  struct contender_filter filter;
  int64_t rows, classes, repeat;
  int64_t dimensions; /* of the fused head; 0: none */
  double workspace;   /* its bound in MB; 0: ample */
  bool rows_given, classes_given, workspace_given, apart, json;
  int32_t dtype, device, threads, layout;
  struct distribution distribution;
  const char *distribution_text, *file, *labels, *plot;
};

/** Returns TOOL_OK or TOOL_MISUSED, after complaining. */
int bench_options_read(struct bench_options *options, int argc, char **argv);

struct lane { /* one loss with its times, and each over that of focal in the same round (none for another batch) */
  struct contender contender;
  struct run run;
  struct times times, of_focal;
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

/** The number of rounds to take, by the seconds of one. */
int64_t bench_rounds_within(double round);

/** Bytes of the logits. */
double bench_logits_bytes(const struct bench *bench);

/** Caches are called cold only if the logits do not fit in the last cache. */
bool bench_is_cold(const struct bench *bench);

/** Draws the picture of --plot to `file`. TOOL_OK, or TOOL_FAILED after complaining. */
int bench_chart(FILE *file, struct bench *bench);

void bench_print(struct bench *bench);
json_t *bench_json(struct bench *bench);

#endif
