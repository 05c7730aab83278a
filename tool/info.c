/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tare info`: describes the library and this machine. All facts come from the library.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"
#include "tool/base/device.h"
#include "tool/base/parse.h"
#include "tool/base/problem.h"
#include "tool/base/words.h"
#include "verbs.h"

enum { JSON = 256, MAX_GPUS = 64 };

static const struct argp_option described[] = {{"json", JSON, 0, 0, "Print one JSON object instead of a table", 0},
                                               {0, 0, 0, 0, 0, 0}};

/* NOLINTNEXTLINE(readability-non-const-parameter): argp's signature */
static error_t read_option(int key, char *text, struct argp_state *state) {
  (void)text;
  if (key != JSON) return ARGP_ERR_UNKNOWN;
  *(bool *)state->input = true;
  return 0;
}

static tare_status describe(int32_t device, int32_t index, tare_context_description *about) {
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = device;
  options.device_index = index;
  tare_context *context;
  tare_status status = tare_context_create(&context, &options);
  if (status == TARE_STATUS_OUT_OF_MEMORY) report_incomplete(); /* it exists and must not be left out */
  if (status != TARE_STATUS_OK) return status;
  *about = (tare_context_description){.struct_size = sizeof *about};
  status = tare_context_describe(context, about);
  tare_context_destroy(context);
  return status;
}

/* Which values of TARE_ISA this machine takes: the library refuses the others when it makes a context. */
static json_t *instruction_sets(void) {
  static const char *const names[] = {"baseline", "avx2", "avx512", "sve"};
  const char *now = getenv("TARE_ISA");
  char *kept = now ? strdup(now) : NULL;
  if (now && !kept) report_incomplete();
  json_t *found = json_array();
  tare_context_description about;
  for (size_t index = 0; index < sizeof names / sizeof names[0]; index++) {
    if (setenv("TARE_ISA", names[index], 1) != 0) report_incomplete();
    if (describe(TARE_DEVICE_CPU, -1, &about) == TARE_STATUS_OK) json_append(found, json_string(names[index]));
  }
  if (kept)
    setenv("TARE_ISA", kept, 1);
  else
    unsetenv("TARE_ISA");
  free(kept);
  return found;
}

/* Every GPU that the library can use; `reason` says why there is none. Nobody asked for one, so it does not say what to
 * do without. */
static json_t *gpus(char *reason, size_t size) {
  json_t *found = json_array();
  tare_context_description about;
  for (int32_t index = 0; index < MAX_GPUS; index++) {
    tare_status status = describe(TARE_DEVICE_CUDA, index, &about);
    if (status != TARE_STATUS_OK && index == 0) {
      const char *text = words_of_options(tare_error_text(NULL));
      snprintf(reason, size, "%s", status == TARE_STATUS_NOT_BUILT ? "this library was built without CUDA" : text);
    }
    if (status != TARE_STATUS_OK) break;
    json_append(found, json_pack("{s:i, s:s, s:s}", "index", about.device_index, "name", about.device_name,
                                 "instruction_set", about.instruction_set));
  }
  return found;
}

static json_t *loss_names(void) {
  json_t *names = json_array();
  for (int32_t index = 0; index < tare_loss_count(); index++) {
    json_append(names, json_string(tare_loss_name(tare_loss_kind_at(index))));
  }
  return names;
}

static char *joined(const json_t *strings, const char *separator) {
  char *text = strdup("");
  if (!text) report_incomplete();
  size_t index;
  json_t *string;
  json_array_foreach(strings, index, string) {
    char *longer;
    if (!text || asprintf(&longer, "%s%s%s", text, index ? separator : "", json_string_value(string)) < 0) {
      report_incomplete();
      return text;
    }
    free(text);
    text = longer;
  }
  return text;
}

static void print_table(const json_t *object) {
  struct table table = {.alignment = "ll"};
  const json_t *cpu = json_object_get(object, "cpu"), *cuda = json_object_get(object, "cuda");
  char *sets = joined(json_object_get(cpu, "instruction_sets"), " or ");
  char *losses = joined(json_object_get(object, "losses"), ", ");
  table_cell(&table, "version");
  table_cell(&table, "%s (header %s)", json_string_value(json_object_get(object, "version")),
             json_string_value(json_object_get(object, "header_version")));
  table_cell(&table, "build");
  table_cell(&table, "%s", json_string_value(json_object_get(object, "build")));
  table_cell(&table, "losses");
  table_cell(&table, "%s", losses);
  table_cell(&table, "cpu");
  table_cell(&table, "%s", json_string_value(json_object_get(cpu, "name")));
  table_cell(&table, "instruction set");
  table_cell(&table, "%s (TARE_ISA can force %s)", json_string_value(json_object_get(cpu, "instruction_set")), sets);
  table_cell(&table, "threads");
  table_cell(&table, "%lld", (long long)json_integer_value(json_object_get(cpu, "threads")));
  const json_t *devices = json_object_get(cuda, "devices");
  for (size_t index = 0; index < json_array_size(devices); index++) {
    const json_t *gpu = json_array_get(devices, index);
    table_cell(&table, "gpu %zu", index);
    table_cell(&table, "%s, %s", json_string_value(json_object_get(gpu, "name")),
               json_string_value(json_object_get(gpu, "instruction_set")));
  }
  if (json_array_size(devices) == 0) {
    table_cell(&table, "no gpu");
    table_cell(&table, "%s", json_string_value(json_object_get(cuda, "reason")));
  }
  table_cell(&table, "--device auto");
  table_cell(&table, "%s", json_string_value(json_object_get(object, "auto")));
  table_print(&table, false);
  free(sets);
  free(losses);
}

static struct text version_text(int32_t version) {
  struct text text;
  snprintf(text.of, sizeof text.of, "%d.%d.%d", version / 10000, version / 100 % 100, version % 100);
  return text;
}

int verb_info(int argc, char **argv) {
  static const struct argp argp = {described, read_option, NULL, "Shows devices, instruction set, build and versions.",
                                   NULL,      NULL,        NULL};
  bool as_json = false;
  int status = parse_arguments(&argp, NULL, argc, argv, &as_json);
  if (status != TOOL_OK) return status;
  tare_context_description cpu, automatic;
  if (describe(TARE_DEVICE_CPU, -1, &cpu) != TARE_STATUS_OK ||
      describe(TARE_DEVICE_AUTO, -1, &automatic) != TARE_STATUS_OK) {
    return complain("%s", words_of_options(tare_error_text(NULL)));
  }
  char reason[512] = "";
  json_t *found = gpus(reason, sizeof reason);
  json_t *object =
      json_pack("{s:s, s:s, s:s, s:o, s:{s:s, s:s, s:i, s:o}, s:{s:o, s:s}, s:s}", "version",
                version_text(tare_version()).of, "header_version", version_text(TARE_VERSION_NUMBER).of, "build",
                tare_build_description(), "losses", loss_names(), "cpu", "name", cpu.device_name, "instruction_set",
                cpu.instruction_set, "threads", cpu.threads, "instruction_sets", instruction_sets(), "cuda", "devices",
                found, "reason", reason, "auto", device_kind_name(automatic.device));
  if (!object) return complain("out of memory");
  if (as_json) return json_print(object) == TOOL_OK ? finish_output() : TOOL_FAILED;
  print_table(object);
  json_decref(object);
  return finish_output();
}
