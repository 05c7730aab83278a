/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tare bench --sweep`: the benchmark at growing sizes, and how the time of an element changes with them.
 */
#ifndef TARE_TOOL_SWEEP_H
#define TARE_TOOL_SWEEP_H

#include "bench.h"

enum { SWEEP_STEPS = 32 };

struct sweep {
  const struct bench_options *options;
  int64_t sizes[SWEEP_STEPS];
  int32_t size_count;
  json_t *setting;      /* of the first step, without what changes */
  json_t *steps;        /* an array: what each step measured */
  int64_t ended_before; /* the first size that was left out; 0: none */
  char reason[256];     /* why it was */
};

/** The sweep of options->sweep; `device` is open, and each step opens its own. */
int sweep_bench(const struct bench_options *options, struct device *device);

/** "rows", "classes" or "threads". */
const char *sweep_name(const struct sweep *sweep);

json_t *sweep_json(const struct sweep *sweep);
void sweep_print(void *sweep);

/** Draws the picture of --plot to `file`. TOOL_OK, or TOOL_FAILED after complaining. */
int sweep_chart(FILE *file, struct sweep *sweep);

#endif
