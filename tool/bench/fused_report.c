/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the comparison of the fused head found, as a table and as JSON.
 */
#define _GNU_SOURCE
#include <stdio.h>

#include "fused.h"
#include "tool/base/convert.h"
#include "tool/provenance.h"
#include "tool/report.h"

struct fused_figures {
  double fused, unfused, ratio, of_products, memory_ratio;
};

static struct fused_figures figures_of(struct fused *bench, struct fused_lane *lane) {
  struct fused_figures f = {.fused = times_quantile(&lane->fused.times, 0.5),
                            .unfused = times_quantile(&lane->unfused.times, 0.5)};
  f.ratio = f.unfused > 0 ? f.fused / f.unfused : 0;
  f.of_products = f.fused > 0 ? times_quantile(&bench->products, 0.5) / f.fused : 0;
  f.memory_ratio = lane->fused.peak > 0 ? lane->unfused.peak / lane->fused.peak : 0;
  return f;
}

static void memory_cell(struct table *table, double bytes) {
  if (bytes < 0)
    table_cell(table, "unknown");
  else
    table_cell(table, "%.1f", bytes * 1e-6);
}

static double operations(const struct fused *bench) {
  const struct classifier *c = &bench->classifier;
  return 6 * (double)c->rows * (double)c->classes * (double)c->dimensions;
}

void fused_print(void *contents) {
  struct fused *bench = contents;
  const struct classifier *c = &bench->classifier;
  const tare_context_description *about = &bench->device->about;
  printf("A classifier of %s features and %s classes on %s rows %s, its loss, and both gradients\n",
         grouped(c->dimensions).of, grouped(c->classes).of, grouped(c->rows).of, dtype_name(c->dtype));
  printf("on %s, %s, %d thread%s; %lld round%s, each both ways. The logits would be %.1f MB.\n\n", about->device_name,
         about->instruction_set, about->threads, about->threads == 1 ? "" : "s", (long long)bench->rounds,
         bench->rounds == 1 ? "" : "s", (double)bench->logits_bytes * 1e-6);
  static const char *const heading[] = {"loss",        "fused ms", "unfused ms", "fused/unfused",
                                        "of products", "fused MB", "unfused MB", "unfused/fused"};
  struct table table = {.alignment = "lrrrrrrr"};
  for (size_t index = 0; index < sizeof heading / sizeof heading[0]; index++) table_cell(&table, "%s", heading[index]);
  for (int32_t index = 0; index < bench->lane_count; index++) {
    struct fused_lane *lane = &bench->lanes[index];
    struct fused_figures f = figures_of(bench, lane);
    table_cell(&table, "%s", lane->contender.label);
    table_cell(&table, "%.1f", f.fused * 1e3);
    table_cell(&table, "%.1f", f.unfused * 1e3);
    table_cell(&table, "%.3f", f.ratio);
    table_cell(&table, "%.2f", f.of_products);
    memory_cell(&table, lane->fused.peak);
    memory_cell(&table, lane->unfused.peak);
    table_cell(&table, "%.1f", f.memory_ratio);
  }
  table_print(&table, true);
  double products = times_quantile(&bench->products, 0.5);
  struct noise noise = times_noise(&bench->products);
  printf(
      "\nms: median. unfused: a product, the loss with its gradient in place, and two products, by the same BLAS.\n"
      "of products: the time of the three products alone, %.1f ms (%.0f GFLOP/s; their p20 to p80 spread is %.0f %%\n"
      "of it), over the fused time. MB: measured peak of memory beyond inputs and outputs.\n",
      products * 1e3, products > 0 ? operations(bench) / products * 1e-9 : 0, noise.spread * 100);
  noise_print("products", noise);
}

static json_t *cost_json(struct cost *cost) {
  json_t *object = json_object();
  json_set_times(object, &cost->times);
  json_set(object, "relative_time", json_relative(&cost->of_products));
  json_set(object, "peak_bytes", json_number(cost->peak));
  json_set(object, "loss", json_number(cost->loss));
  return object;
}

static json_t *lane_json(struct fused *bench, struct fused_lane *lane) {
  const struct fused_figures f = figures_of(bench, lane);
  const tare_loss_spec *loss = &lane->contender.loss;
  json_t *object = json_object();
  json_set(object, "label", json_string(lane->contender.label));
  json_set(object, "loss", json_string(tare_loss_name(loss->kind)));
  json_set(object, "parameters", provenance_parameters(loss));
  json_set(object, "workspace_bytes", json_integer((json_int_t)lane->workspace_bytes));
  json_set(object, "fused", cost_json(&lane->fused));
  json_set(object, "unfused", cost_json(&lane->unfused));
  json_set(object, "time_ratio", json_number(f.ratio));
  json_set(object, "of_products", json_number(f.of_products));
  json_set(object, "memory_ratio", json_number(f.memory_ratio));
  return object;
}

json_t *fused_setting_json(const struct fused *bench) {
  const struct classifier *c = &bench->classifier;
  const tare_context_description *about = &bench->device->about;
  json_t *object =
      json_pack("{s:s, s:O, s:s, s:s, s:s, s:i, s:s, s:I, s:I, s:I, s:s, s:I}", "benchmark", "head", "command",
                bench->options->command, "device", device_kind_name(about->device), "device_name", about->device_name,
                "isa", about->instruction_set, "threads", about->threads, "dtype", dtype_name(c->dtype), "rows",
                (json_int_t)c->rows, "classes", (json_int_t)c->classes, "dimensions", (json_int_t)c->dimensions,
                "distribution", bench->options->distribution_text, "logits_bytes", (json_int_t)bench->logits_bytes);
  if (bench->options->workspace_given) json_set(object, "workspace_mb", json_real(bench->options->workspace));
  provenance_add(object);
  return object;
}

void fused_add_results(json_t *object, struct fused *bench) {
  json_t *losses = json_array();
  json_set(object, "rounds", json_integer((json_int_t)bench->rounds));
  json_set(object, "noise", provenance_noise(times_noise(&bench->products)));
  json_set(object, "confidence", json_real(INTERVAL_CONFIDENCE));
  json_set(object, "products_ms", json_number(times_quantile(&bench->products, 0.5) * 1e3));
  for (int32_t index = 0; index < bench->lane_count; index++) {
    json_append(losses, lane_json(bench, &bench->lanes[index]));
  }
  json_set(object, "losses", losses);
}
