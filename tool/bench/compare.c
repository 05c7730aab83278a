/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two runs beside each other. A time is judged over the yardstick of its own run: a plain copy of the same bytes, or
 * the products of a head. So a machine that is faster today does not make the loss faster. Two medians differ if their
 * intervals do not overlap.
 */
#define _GNU_SOURCE
#include "compare.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "tool/base/infile.h"
#include "tool/base/problem.h"
#include "tool/report.h"

#define EXPECTED "expected what `tare bench --json` of this version or a later one wrote"

/* ---- The earlier run --------------------------------------------------------------------------------------------- */

static int lacks(const char *path, const char *where, const char *field, const char *kind) {
  return complain("--compare %s: %s\"%s\" is missing or not %s; " EXPECTED, path, where, field, kind);
}

static bool is_positive(const json_t *number) { return json_is_number(number) && json_number_value(number) > 0; }

/* An interval is null after too few rounds. */
static bool is_interval(const json_t *relative) {
  const json_t *low = json_object_get(relative, "low"), *high = json_object_get(relative, "high");
  if (json_is_null(low) && json_is_null(high)) return true;
  const double median = json_number_value(json_object_get(relative, "median"));
  return is_positive(low) && is_positive(high) && json_number_value(low) <= median && median <= json_number_value(high);
}

/* Of a head, the fused way is compared. */
static const json_t *times_of(const json_t *loss) {
  const json_t *fused = json_object_get(loss, "fused");
  return fused ? fused : loss;
}

static int check_loss(const char *path, size_t index, const json_t *loss) {
  char where[64];
  const json_t *times = times_of(loss);
  snprintf(where, sizeof where, "in \"losses\", number %zu, ", index + 1);
  if (!json_is_string(json_object_get(loss, "label"))) return lacks(path, where, "label", "a text");
  if (!json_is_object(json_object_get(loss, "parameters"))) return lacks(path, where, "parameters", "an object");
  if (!is_positive(json_object_get(times, "median_ms"))) return lacks(path, where, "median_ms", "a number above 0");
  if (!is_positive(json_at(times, "relative_time.median")))
    return lacks(path, where, "relative_time.median", "a number above 0");
  if (!is_interval(json_object_get(times, "relative_time")))
    return lacks(path, where, "relative_time", "an interval: low, median and high in this order");
  return TOOL_OK;
}

static int check_run(const char *path, const json_t *run) {
  static const char *const texts[] = {"benchmark", "version", "build", "date", "isa"};
  static const char *const whole[] = {"threads", "rounds"};
  if (!json_is_object(run)) return complain("--compare %s: not a JSON object; " EXPECTED, path);
  for (size_t index = 0; index < sizeof texts / sizeof texts[0]; index++)
    if (!json_is_string(json_object_get(run, texts[index]))) return lacks(path, "", texts[index], "a text");
  if (strcmp(json_string_value(json_object_get(run, "benchmark")), "sweep") == 0)
    return complain("--compare %s: it is of --sweep, which is not compared; " EXPECTED " without --sweep", path);
  for (size_t index = 0; index < sizeof whole / sizeof whole[0]; index++)
    if (!json_is_integer(json_object_get(run, whole[index]))) return lacks(path, "", whole[index], "a whole number");
  if (!json_is_boolean(json_at(run, "noise.trusted"))) return lacks(path, "", "noise.trusted", "true or false");
  const json_t *losses = json_object_get(run, "losses"), *loss;
  size_t index;
  if (json_array_size(losses) == 0) return lacks(path, "", "losses", "an array of losses");
  json_array_foreach(losses, index, loss) {
    if (check_loss(path, index, loss) != TOOL_OK) return TOOL_FAILED;
  }
  return TOOL_OK;
}

json_t *comparison_read(const char *path) {
  int64_t size;
  json_error_t error;
  FILE *file = infile_open("--compare", path, "the output of `tare bench --json`", &size);
  if (!file) return NULL;
  json_t *run = json_loadf(file, JSON_REJECT_DUPLICATES, &error);
  fclose(file);
  if (!run) {
    complain("--compare %s: no JSON at line %d, column %d: %s; " EXPECTED, path, error.line, error.column, error.text);
    return NULL;
  }
  if (check_run(path, run) == TOOL_OK) return run;
  json_decref(run);
  return NULL;
}

/* ---- Whether the two can be compared ----------------------------------------------------------------------------- */

/* What must be the same, by its name in JSON and by the option or the thing it is. */
static const struct field {
  const char *name, *word, *absent;
} fields[] = {{"benchmark", "the benchmark", "none"},
              {"device", "--device", "none"},
              {"device_name", "the name of the device", "none"},
              {"dtype", "--dtype", "none"},
              {"rows", "--rows", "none"},
              {"classes", "--classes", "none"},
              {"dimensions", "--head", "none"},
              {"workspace_mb", "--workspace", "ample"},
              {"layout", "--layout", "none"},
              {"in_place", "the gradient", "none"},
              {"distribution", "--distribution", "none"},
              {"labels", "--labels", "none"}};

struct value {
  char of[160];
};

static struct value value_of(const json_t *value, const char *absent) {
  struct value text;
  if (json_is_string(value))
    snprintf(text.of, sizeof text.of, "%s", json_string_value(value));
  else if (json_is_integer(value))
    snprintf(text.of, sizeof text.of, "%lld", (long long)json_integer_value(value));
  else if (json_is_real(value))
    snprintf(text.of, sizeof text.of, "%g", json_real_value(value));
  else if (json_is_boolean(value))
    snprintf(text.of, sizeof text.of, "%s", json_is_true(value) ? "in place" : "apart");
  else
    snprintf(text.of, sizeof text.of, "%s", value && !json_is_null(value) ? "no text or number" : absent);
  return text;
}

int comparison_check(const char *path, const json_t *old, const json_t *setting) {
  for (size_t index = 0; index < sizeof fields / sizeof fields[0]; index++) {
    const struct field *field = &fields[index];
    const json_t *there = json_object_get(old, field->name), *here = json_object_get(setting, field->name);
    if (there == here || (there && here && json_equal(there, here))) continue;
    return complain("--compare %s: %s is %s there and %s here; only runs on the same batch and device are compared",
                    path, field->word, value_of(there, field->absent).of, value_of(here, field->absent).of);
  }
  return TOOL_OK;
}

/* ---- The comparison ---------------------------------------------------------------------------------------------- */

static const char *label_of(const json_t *loss) { return json_string_value(json_object_get(loss, "label")); }

/* A label of this run is NULL where memory for it was missing, which is reported later. */
static const json_t *find_loss(const json_t *run, const char *label) {
  const json_t *losses = json_object_get(run, "losses"), *loss;
  size_t index;
  json_array_foreach(losses, index, loss) {
    if (label && label_of(loss) && strcmp(label_of(loss), label) == 0) return loss;
  }
  return NULL;
}

/* A parameter that only one of the two versions has is no difference. */
static bool same_parameters(const json_t *old, const json_t *now) {
  const char *name;
  json_t *value;
  json_object_foreach(json_object_get(old, "parameters"), name, value) {
    const json_t *here = json_at(json_object_get(now, "parameters"), name);
    if (here && !json_equal(value, here)) return false;
  }
  return true;
}

static bool is_trusted(const json_t *run) { return json_is_true(json_at(run, "noise.trusted")); }

static double number_of(const json_t *times, const char *path) { return json_number_value(json_at(times, path)); }

/* "faster", "slower" and "same" are findings; everything else says why there is none. */
static const char *verdict_of(bool trusted, const json_t *old, const json_t *now) {
  if (!json_is_number(json_at(old, "relative_time.low")) || !json_is_number(json_at(now, "relative_time.low")))
    return "too few rounds";
  if (!trusted) return "noisy";
  if (number_of(now, "relative_time.high") < number_of(old, "relative_time.low")) return "faster";
  if (number_of(now, "relative_time.low") > number_of(old, "relative_time.high")) return "slower";
  return "same";
}

static json_t *significance_of(const char *verdict) {
  if (strcmp(verdict, "same") == 0) return json_false();
  return strcmp(verdict, "faster") == 0 || strcmp(verdict, "slower") == 0 ? json_true() : json_null();
}

static json_t *compare_loss(bool trusted, const json_t *old, const json_t *now) {
  const json_t *there = times_of(old), *here = times_of(now);
  const bool same = same_parameters(old, now);
  const char *verdict = same ? verdict_of(trusted, there, here) : "other parameters";
  const double before = number_of(there, "median_ms"), after = number_of(here, "median_ms");
  json_t *object = json_object();
  json_set(object, "label", json_string(label_of(now)));
  json_set(object, "old_median_ms", json_number(before));
  json_set(object, "new_median_ms", json_number(after));
  json_set(object, "ratio", same ? json_number(after / before) : json_null());
  json_set(object, "relative_ratio",
           same ? json_number(number_of(here, "relative_time.median") / number_of(there, "relative_time.median"))
                : json_null());
  json_set(object, "significant", significance_of(verdict));
  json_set(object, "verdict", json_string(verdict));
  return object;
}

/* The labels of a run's losses that the other does not have. */
static json_t *only_in(const json_t *run, const json_t *other) {
  json_t *labels = json_array();
  const json_t *losses = json_object_get(run, "losses"), *loss;
  size_t index;
  json_array_foreach(losses, index, loss) {
    if (!find_loss(other, label_of(loss))) json_append(labels, json_string(label_of(loss)));
  }
  return labels;
}

static const char *const facts[] = {"version", "build", "date", "isa", "threads", "cache", "rounds", "noise"};

json_t *comparison_of(const char *path, const json_t *old, const json_t *now) {
  json_t *object = json_object(), *losses = json_array();
  const bool trusted = is_trusted(old) && is_trusted(now);
  json_set(object, "file", json_text(path));
  for (size_t index = 0; index < sizeof facts / sizeof facts[0]; index++) {
    json_t *value = json_object_get(old, facts[index]);
    if (value) json_set(object, facts[index], json_incref(value));
  }
  const json_t *loss;
  size_t index;
  json_array_foreach(json_object_get(now, "losses"), index, loss) {
    const json_t *before = find_loss(old, label_of(loss));
    if (before) json_append(losses, compare_loss(trusted, before, loss));
  }
  json_set(object, "losses", losses);
  json_set(object, "only_old", only_in(old, now));
  json_set(object, "only_new", only_in(now, old));
  return object;
}

/* ---- For people -------------------------------------------------------------------------------------------------- */

static void print_facts(const json_t *comparison, const json_t *now) {
  struct table table = {.alignment = "lll"};
  table_cell(&table, "%s", "");
  table_cell(&table, "old");
  table_cell(&table, "new");
  for (size_t index = 0; index < sizeof facts / sizeof facts[0]; index++) {
    const json_t *there = json_object_get(comparison, facts[index]), *here = json_object_get(now, facts[index]);
    if (!there || !here || strcmp(facts[index], "noise") == 0) continue;
    table_cell(&table, "%s", facts[index]);
    table_cell(&table, "%s", value_of(there, "").of);
    table_cell(&table, "%s", value_of(here, "").of);
  }
  table_cell(&table, "noise");
  table_cell(&table, "%s", is_trusted(comparison) ? "little" : "do not trust its times");
  table_cell(&table, "%s", is_trusted(now) ? "little" : "do not trust its times");
  table_print(&table, true);
}

static void ratio_cell(struct table *table, const json_t *ratio) {
  if (json_is_number(ratio))
    table_cell(table, "%.3f", json_number_value(ratio));
  else
    table_cell(table, "%s", "");
}

static void print_labels(const char *what, const json_t *labels) {
  size_t index;
  const json_t *label;
  if (json_array_size(labels) == 0) return;
  printf("%s: ", what);
  json_array_foreach(labels, index, label) { printf("%s%s", index ? "; " : "", json_string_value(label)); }
  printf(".\n");
}

void comparison_print(const json_t *comparison, const json_t *now) {
  static const char *const heading[] = {"loss", "old ms", "new ms", "new/old"};
  const char *yardstick = json_object_get(now, "copy") ? "copies" : "products";
  struct table table = {.alignment = "lrrrrl"};
  const json_t *loss;
  size_t index;
  printf("\nCompared with %s:\n\n", json_string_value(json_object_get(comparison, "file")));
  print_facts(comparison, now);
  printf("\n");
  for (index = 0; index < sizeof heading / sizeof heading[0]; index++) table_cell(&table, "%s", heading[index]);
  table_cell(&table, "beside %s", yardstick);
  table_cell(&table, "verdict");
  json_array_foreach(json_object_get(comparison, "losses"), index, loss) {
    table_cell(&table, "%s", label_of(loss));
    table_cell(&table, "%.3f", number_of(loss, "old_median_ms"));
    table_cell(&table, "%.3f", number_of(loss, "new_median_ms"));
    ratio_cell(&table, json_object_get(loss, "ratio"));
    ratio_cell(&table, json_object_get(loss, "relative_ratio"));
    table_cell(&table, "%s", json_string_value(json_object_get(loss, "verdict")));
  }
  table_print(&table, true);
  printf(
      "\nbeside %s: new/old of the times over those of their own run's %s. same: their 95 %% intervals overlap.\n"
      "noisy: one of the runs is not trusted.\n",
      yardstick, yardstick);
  print_labels("Only in the old run", json_object_get(comparison, "only_old"));
  print_labels("Only in the new run", json_object_get(comparison, "only_new"));
}
