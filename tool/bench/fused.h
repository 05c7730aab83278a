/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tare bench --head D`: a classifier of D features and a loss, fused, against product, loss and two products.
 */
#ifndef TARE_TOOL_FUSED_H
#define TARE_TOOL_FUSED_H

#include "bench.h"
#include "product.h"

struct cost {
  struct times times, of_products; /* each over the products' in its round */
  double peak;                     /* bytes beyond inputs and outputs; negative: unknown */
  double loss;
};

struct fused_lane {
  struct contender contender;
  tare_output output;
  uint64_t workspace_bytes;
  struct cost fused, unfused;
};

struct fused {
  const struct bench_options *options;
  struct device *device;
  struct sample sample; /* its labels; the logits are made */
  struct classifier classifier;
  tare_level level;
  tare_batch batch;
  tare_linear linear;
  void *labels, *scalar, *flushed;
  void *workspace, *logits; /* of the two ways */
  uint64_t workspace_bytes, logits_bytes, flushed_bytes;
  struct fused_lane lanes[MAX_CONTENDERS];
  int32_t lane_count;
  struct times products; /* the three alone */
  int64_t rounds;
};

/** The whole benchmark, on a device that is open. */
int fused_bench(const struct bench_options *options, struct device *device);

void fused_print(void *bench);

/** As bench_setting_json and bench_add_results. */
json_t *fused_setting_json(const struct fused *bench);
void fused_add_results(json_t *object, struct fused *bench);

#endif
