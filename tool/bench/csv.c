/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CSV as RFC 4180 has it, with line feeds. A column is a path into the JSON object; what a loss does not have is looked
 * up in its comparison, in its step of a sweep, and in the run.
 */
#define _GNU_SOURCE
#include "csv.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "tool/report.h"

static const char *const of_losses[] = {"label",
                                        "loss",
                                        "class_balanced",
                                        "median_ms",
                                        "median_low_ms",
                                        "median_high_ms",
                                        "p20_ms",
                                        "p80_ms",
                                        "relative_time.median",
                                        "relative_time.low",
                                        "relative_time.high",
                                        "ns_per_element",
                                        "ns_per_element_core",
                                        "gigabytes_per_second",
                                        "copy_ratio",
                                        "focal_ratio",
                                        NULL};
static const char *const of_head[] = {"label",
                                      "loss",
                                      "workspace_bytes",
                                      "fused.median_ms",
                                      "fused.median_low_ms",
                                      "fused.median_high_ms",
                                      "fused.p20_ms",
                                      "fused.p80_ms",
                                      "fused.relative_time.median",
                                      "fused.relative_time.low",
                                      "fused.relative_time.high",
                                      "fused.peak_bytes",
                                      "unfused.median_ms",
                                      "unfused.median_low_ms",
                                      "unfused.median_high_ms",
                                      "unfused.peak_bytes",
                                      "time_ratio",
                                      "of_products",
                                      "memory_ratio",
                                      "dimensions",
                                      "workspace_mb",
                                      NULL};
static const char *const of_comparison[] = {"old_median_ms", "ratio", "relative_ratio", "significant", "verdict", NULL};
static const char *const of_run[] = {"rows",         "classes",       "dtype",   "layout",  "in_place", "distribution",
                                     "device",       "device_name",   "isa",     "threads", "cache",    "rounds",
                                     "noise.spread", "noise.trusted", "version", "date",    NULL};

static void put_text(const char *text) {
  if (!strpbrk(text, ",\"\r\n")) {
    fputs(text, stdout);
    return;
  }
  putchar('"');
  for (; *text; text++) {
    if (*text == '"') putchar('"');
    putchar(*text);
  }
  putchar('"');
}

static void put_value(const json_t *value) {
  if (json_is_string(value)) put_text(json_string_value(value));
  if (json_is_integer(value)) printf("%lld", (long long)json_integer_value(value));
  if (json_is_real(value)) printf("%.17g", json_real_value(value));
  if (json_is_boolean(value)) fputs(json_is_true(value) ? "true" : "false", stdout);
}

/* Where the values of a line are looked up; NULL: nowhere. */
struct places {
  const json_t *of[3];
};

/* A line of the columns' names, or of their values. Returns whether there was a column before. */
static bool put_columns(const char *const *columns, const struct places *places, bool follows) {
  for (; *columns; columns++) {
    if (follows) putchar(',');
    follows = true;
    if (!places) {
      fputs(*columns, stdout);
      continue;
    }
    const json_t *value = NULL;
    for (size_t index = 0; !value && index < sizeof places->of / sizeof places->of[0]; index++)
      value = json_at(places->of[index], *columns);
    put_value(value);
  }
  return follows;
}

static const json_t *compared(const json_t *object, const json_t *loss) {
  const json_t *entry, *label = json_object_get(loss, "label");
  size_t index;
  json_array_foreach(json_at(object, "comparison.losses"), index, entry) {
    if (json_equal(json_object_get(entry, "label"), label)) return entry;
  }
  return NULL;
}

static void put_line(const json_t *object, const struct places *places) {
  const bool head = json_object_get(object, "dimensions") != NULL;
  bool follows = put_columns(head ? of_head : of_losses, places, false);
  if (json_object_get(object, "comparison")) follows = put_columns(of_comparison, places, follows);
  put_columns(of_run, places, follows);
  putchar('\n');
}

static void put_losses(const json_t *object, const json_t *step) {
  const json_t *loss;
  size_t index;
  json_array_foreach(json_object_get(step ? step : object, "losses"), index, loss) {
    put_line(object, &(struct places){{loss, step ? step : compared(object, loss), object}});
  }
}

void csv_print(const json_t *object) {
  const json_t *steps = json_object_get(object, "steps"), *step;
  size_t index;
  put_line(object, NULL);
  json_array_foreach(steps, index, step) { put_losses(object, step); }
  if (!steps) put_losses(object, NULL);
}
