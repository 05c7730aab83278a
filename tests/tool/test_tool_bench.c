/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `tare bench` writes for programs. Times differ from run to run; what they are of, and how they are judged, does
 * not.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/answer.h"
#include "support/tool.h"

TestSuite(tool_bench, .init = tool_use_built, .timeout = 300);

#define SMALL "bench --device cpu --threads 1 --rows 60 --classes 3 "

static answer_json *bench_json(const tool_folder *folder, const char *command) {
  tool_answer answer = tool_run(folder, 0, "%s", command);
  cr_assert_eq(answer.status, 0, "%s: exit %d: %s", command, answer.status, answer.err);
  answer_json *json = answer_read(answer.out);
  tool_answer_free(&answer);
  return json;
}

/* ---- Where the figures come from --------------------------------------------------------------------------------- */

static void check_provenance(const answer_json *json, const char *verb) {
  static const char *const texts[] = {"version", "build", "date", "device", "device_name"};
  cr_assert_str_eq(answer_text(json, "command.0"), "tare");
  cr_assert_str_eq(answer_text(json, "command.1"), verb);
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    cr_assert_neq(answer_text(json, texts[i])[0], '\0', "%s: no %s", verb, texts[i]);
  }
  cr_assert_eq(strlen(answer_text(json, "date")), strlen("2026-01-31T12:00:00Z"));
  cr_assert_eq(answer_number(json, "threads"), 1);
  cr_assert_eq(answer_number(json, "noise.limit"), 0.2);
}

/* The verdict and its reason are one. */
static void check_noise(const answer_json *json) {
  const double spread = answer_number(json, "noise.spread");
  cr_assert_eq(answer_flag(json, "noise.trusted"), spread <= 0.2, "spread %g", spread);
}

Test(tool_bench, json_says_where_it_comes_from) {
  const tool_folder folder = tool_folder_with_files();
  answer_json *json = bench_json(&folder, SMALL "--loss sigmoid-poly1 --gamma 1.5 --repeat 9 --json");
  check_provenance(json, "bench");
  check_noise(json);
  cr_assert_str_eq(answer_text(json, "benchmark"), "losses");
  cr_assert_eq(answer_count(json, "command"), 17);
  cr_assert_eq(answer_number(json, "confidence"), 0.95);
  cr_assert_eq(answer_number(json, "losses.0.parameters.gamma"), 1.5);
  cr_assert_eq(answer_number(json, "losses.0.parameters.epsilon"), 1);
  answer_free(json);
  char command[1024];
  snprintf(command, sizeof command,
           "eval --device cpu --threads 1 --loss ghm-c --json --logits %s/x.npy --labels %s/y.npy", folder.path,
           folder.path);
  json = bench_json(&folder, command);
  check_provenance(json, "eval");
  check_noise(json);
  answer_free(json);
  tool_folder_remove(&folder);
}

Test(tool_bench, json_of_a_head_says_where_it_comes_from) {
  const tool_folder folder = tool_folder_make();
  tool_answer answer = tool_run(&folder, 0, SMALL "--head 8 --repeat 6 --json");
  if (strstr(answer.err, "CBLAS") || strstr(answer.err, "cblas")) cr_skip_test("no CBLAS: %s", answer.err);
  answer_json *json = answer_read(answer.out);
  check_provenance(json, "bench");
  check_noise(json);
  cr_assert_str_eq(answer_text(json, "benchmark"), "head");
  cr_assert_eq(answer_number(json, "losses.0.parameters.gamma"), 2);
  cr_assert_leq(answer_number(json, "losses.0.fused.median_low_ms"), answer_number(json, "losses.0.fused.median_ms"));
  cr_assert_gt(answer_number(json, "losses.0.unfused.relative_time.low"), 0);
  answer_free(json);
  tool_answer_free(&answer);
  tool_folder_remove(&folder);
}

/* ---- The interval of the median ---------------------------------------------------------------------------------- */

/* Six is the fewest whose smallest and largest hold the median in 95 of 100 cases: 1 - 2/64. */
Test(tool_bench, interval_of_the_median) {
  static const char *const medians[][3] = {
      {"losses.0.median_low_ms", "losses.0.median_ms", "losses.0.median_high_ms"},
      {"losses.0.relative_time.low", "losses.0.relative_time.median", "losses.0.relative_time.high"}};
  const tool_folder folder = tool_folder_make();
  answer_json *few = bench_json(&folder, SMALL "--loss sigmoid-ce --repeat 5 --json");
  answer_json *enough = bench_json(&folder, SMALL "--loss sigmoid-ce --repeat 6 --json");
  answer_json *many = bench_json(&folder, SMALL "--loss sigmoid-ce --repeat 3000 --json");
  for (size_t i = 0; i < sizeof medians / sizeof *medians; i++) {
    cr_assert(answer_is_null(few, medians[i][0]) && answer_is_null(few, medians[i][2]));
    for (int k = 0; k < 2; k++) {
      const answer_json *json = k ? many : enough;
      cr_assert_gt(answer_number(json, medians[i][0]), 0);
      cr_assert_leq(answer_number(json, medians[i][0]), answer_number(json, medians[i][1]));
      cr_assert_leq(answer_number(json, medians[i][1]), answer_number(json, medians[i][2]));
    }
  }
  /* of six the extremes; of 3,000 the ranks 1,446 and 1,555, which lie between the 20th and the 80th percentile */
  cr_assert_leq(answer_number(enough, "losses.0.median_low_ms"), answer_number(enough, "losses.0.p20_ms"));
  cr_assert_geq(answer_number(enough, "losses.0.median_high_ms"), answer_number(enough, "losses.0.p80_ms"));
  cr_assert_geq(answer_number(many, "losses.0.median_low_ms"), answer_number(many, "losses.0.p20_ms"));
  cr_assert_leq(answer_number(many, "losses.0.median_high_ms"), answer_number(many, "losses.0.p80_ms"));
  answer_free(few);
  answer_free(enough);
  answer_free(many);
  tool_folder_remove(&folder);
}
