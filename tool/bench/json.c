/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the benchmark found, as JSON.
 */
#define _GNU_SOURCE
#include "bench.h"
#include "tool/base/convert.h"
#include "tool/parameters.h"
#include "tool/provenance.h"
#include "tool/report.h"

static void set_interval(json_t *object, struct interval interval, double unit, const char *low, const char *high) {
  json_set(object, low, interval.known ? json_number(interval.low * unit) : json_null());
  json_set(object, high, interval.known ? json_number(interval.high * unit) : json_null());
}

void json_set_times(json_t *object, struct times *times) {
  json_set(object, "median_ms", json_number(times_quantile(times, 0.5) * 1e3));
  json_set(object, "p20_ms", json_number(times_quantile(times, 0.2) * 1e3));
  json_set(object, "p80_ms", json_number(times_quantile(times, 0.8) * 1e3));
  set_interval(object, times_median_interval(times), 1e3, "median_low_ms", "median_high_ms");
}

json_t *json_relative(struct times *ratios) {
  json_t *object = json_object();
  json_set(object, "median", json_number(times_quantile(ratios, 0.5)));
  set_interval(object, times_median_interval(ratios), 1, "low", "high");
  return object;
}

static json_t *lane_json(struct bench *bench, struct lane *lane) {
  const struct figures figures = bench_figures(bench, lane);
  tare_loss_spec *loss = &lane->contender.loss;
  json_t *object = json_object();
  json_set(object, "label", json_string(lane->contender.label));
  json_set(object, "loss", json_string(tare_loss_name(loss->kind)));
  json_set(object, "class_balanced", json_boolean(lane->contender.class_balanced));
  json_set(object, "parameters", provenance_parameters(loss));
  json_set(object, "columns", json_integer((json_int_t)lane->run.batch.classes));
  json_set_times(object, &lane->times);
  json_set(object, "relative_time", json_relative(&lane->of_copy));
  json_set(object, "ns_per_element", json_number(figures.ns_element));
  json_set(object, "ns_per_element_core", json_number(figures.ns_core));
  json_set(object, "gigabytes_per_second", json_number(figures.gigabytes));
  json_set(object, "copy_ratio", json_number(figures.ratio));
  if (figures.of_focal > 0) json_set(object, "focal_ratio", json_real(figures.of_focal));
  const double *gamma = gamma_of(loss);
  if (gamma) json_set(object, "gamma", json_real(*gamma));
  if (kind_is_ghm(loss->kind)) json_set(object, "bins", json_integer(loss->ghm.bins));
  return object;
}

static json_t *copy_json(struct bench *bench) {
  json_t *object = json_object();
  json_set_times(object, &bench->copies);
  json_set(object, "first_ms", json_number(times_quantile(&bench->first_copies, 0.5) * 1e3));
  json_set(object, "last_ms", json_number(times_quantile(&bench->last_copies, 0.5) * 1e3));
  json_set(object, "gigabytes_per_second", json_number(bench_copy_rate(bench) * 1e-9));
  return object;
}

static void set_device(json_t *object, const tare_context_description *about) {
  json_set(object, "device", json_string(device_kind_name(about->device)));
  json_set(object, "device_name", json_text(about->device_name));
  json_set(object, "reason", json_text(about->reason));
  json_set(object, "isa", json_text(about->instruction_set));
  json_set(object, "threads", json_integer(about->threads));
}

json_t *bench_setting_json(const struct bench *bench) {
  const struct bench_options *options = &bench->options;
  json_t *object = json_object();
  json_set(object, "benchmark", json_string("losses"));
  json_set(object, "command", json_incref(options->command));
  provenance_add(object);
  set_device(object, &bench->device.about);
  json_set(object, "dtype", json_string(dtype_name(bench->batch.dtype)));
  json_set(object, "rows", json_integer((json_int_t)bench->batch.rows));
  json_set(object, "classes", json_integer((json_int_t)bench->batch.classes));
  json_set(object, "layout", json_string(bench_layout_name(bench)));
  json_set(object, "in_place", json_boolean(!options->apart));
  json_set(object, "distribution", json_text(options->distribution_text));
  if (options->labels) json_set(object, "labels", json_text(options->labels));
  json_set(object, "logits_bytes", json_integer((json_int_t)bench_logits_bytes(bench)));
  json_set(object, "cache_bytes", json_integer((json_int_t)bench_cache_bytes(bench)));
  json_set(object, "cache", json_string(bench_is_cold(bench) ? "cold" : "warm"));
  return object;
}

void bench_add_results(json_t *object, struct bench *bench) {
  json_t *losses = json_array();
  json_set(object, "rounds", json_integer((json_int_t)bench->rounds));
  json_set(object, "noise", provenance_noise(times_noise(&bench->copies)));
  json_set(object, "confidence", json_real(INTERVAL_CONFIDENCE));
  json_set(object, "copy", copy_json(bench));
  for (int32_t index = 0; index < bench->lane_count; index++) {
    json_append(losses, lane_json(bench, &bench->lanes[index]));
  }
  json_set(object, "losses", losses);
}
