/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tare bench --compare` and `--csv`. The earlier run is one of the tool's own, with values put in by the test.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/answer.h"
#include "support/devices.h"
#include "support/tool.h"

TestSuite(tool_compare, .init = tool_use_built, .timeout = 300);

#define BATCH "bench --device cpu --threads 1 --rows 4000 --classes 8 "
#define LOSSES "--loss sigmoid-ce --loss softmax-ce "
#define ROUNDS "--repeat 40 "

/* A folder with old.json: an earlier run, whose times are said to be trusted. */
static tool_folder folder_with_old(void) {
  const tool_folder folder = tool_folder_make();
  char path[512];
  cr_assert_eq(tool_shell(&folder, "\"$TARE\" " BATCH LOSSES ROUNDS "--json >old.json"), 0);
  tool_file(path, sizeof path, &folder, "old.json");
  json_t *run = json_load_file(path, 0, NULL);
  cr_assert_not_null(run);
  json_object_set_new(json_object_get(run, "noise"), "trusted", json_true());
  cr_assert_eq(json_dump_file(run, path, 0), 0);
  json_decref(run);
  return folder;
}

/* Writes a.json: old.json with `value` (JSON) at a path ("losses.0.label"); NULL: without what is there. */
static void put(const tool_folder *folder, const char *path, const char *value) {
  char file[512], words[128], *rest = NULL;
  tool_file(file, sizeof file, folder, "old.json");
  json_t *run = json_load_file(file, 0, NULL), *at = run;
  cr_assert_not_null(run);
  snprintf(words, sizeof words, "%s", path);
  const char *word = strtok_r(words, ".", &rest);
  for (const char *next = strtok_r(NULL, ".", &rest); next; word = next, next = strtok_r(NULL, ".", &rest)) {
    at = json_is_array(at) ? json_array_get(at, strtoul(word, NULL, 10)) : json_object_get(at, word);
  }
  cr_assert(json_is_object(at), "%s", path);
  if (value)
    json_object_set_new(at, word, json_loads(value, JSON_DECODE_ANY, NULL));
  else
    json_object_del(at, word);
  tool_file(file, sizeof file, folder, "a.json");
  cr_assert_eq(json_dump_file(run, file, 0), 0);
  json_decref(run);
}

static answer_json *compare(const tool_folder *folder, const char *losses) {
  const int status = tool_shell(folder, "\"$TARE\" " BATCH "%s" ROUNDS "--json --compare a.json", losses);
  char *out = tool_text(folder, "out"), *err = tool_text(folder, "err");
  cr_assert_eq(status, 0, "exit %d: %s", status, err);
  answer_json *json = answer_read(out);
  free(out);
  free(err);
  return json;
}

static void check_significance(const answer_json *json, const char *verdict) {
  if (strcmp(verdict, "faster") == 0 || strcmp(verdict, "slower") == 0)
    cr_assert(answer_flag(json, "comparison.losses.0.significant"), "%s", verdict);
  else if (strcmp(verdict, "same") == 0)
    cr_assert_not(answer_flag(json, "comparison.losses.0.significant"));
  else
    cr_assert(answer_is_null(json, "comparison.losses.0.significant"), "%s", verdict);
}

/* The verdict on the first loss. On a busy machine the new run itself may be noisy; then it is taken again. */
static void expect_verdict(const tool_folder *folder, const char *path, const char *value, const char *verdict) {
  const int most = test_under_qemu() ? 2 : 20; /* where nearly every run is noisy, and takes seconds */
  put(folder, path, value);
  for (int tries = 0; tries < most; tries++) {
    answer_json *json = compare(folder, LOSSES);
    const bool trusted = answer_flag(json, "noise.trusted");
    const char *found = answer_text(json, "comparison.losses.0.verdict");
    check_significance(json, found);
    if (strcmp(found, verdict) != 0) cr_assert(!trusted && strcmp(found, "noisy") == 0, "%s: %s", path, found);
    answer_free(json);
    if (trusted) return;
  }
}

Test(tool_compare, verdicts) {
  const tool_folder folder = folder_with_old();
#define RELATIVE "losses.0.relative_time"
  expect_verdict(&folder, RELATIVE, "{\"median\": 9e9, \"low\": 9e9, \"high\": 9e9}", "faster");
  expect_verdict(&folder, RELATIVE, "{\"median\": 1e-9, \"low\": 1e-9, \"high\": 1e-9}", "slower");
  expect_verdict(&folder, RELATIVE, "{\"median\": 1, \"low\": 1e-9, \"high\": 9e9}", "same");
  expect_verdict(&folder, RELATIVE, "{\"median\": 1, \"low\": null, \"high\": null}", "too few rounds");
  expect_verdict(&folder, "noise.trusted", "false", "noisy");
  expect_verdict(&folder, "losses.0.parameters.alpha", "0.125", "other parameters");
  tool_folder_remove(&folder);
}

/* A parameter that the earlier version did not have is no other parameter. */
Test(tool_compare, parameters_of_another_version) {
  const tool_folder folder = folder_with_old();
  put(&folder, "losses.0.parameters", "{\"alpha\": -1.0, \"forgotten\": 3}");
  answer_json *json = compare(&folder, LOSSES);
  cr_assert_neq(strcmp(answer_text(json, "comparison.losses.0.verdict"), "other parameters"), 0);
  answer_free(json);
  tool_folder_remove(&folder);
}

Test(tool_compare, ratios_and_facts) {
  const tool_folder folder = folder_with_old();
  put(&folder, "losses.0.median_ms", "5000.0");
  answer_json *json = compare(&folder, LOSSES);
  const double now = answer_number(json, "losses.0.median_ms");
  cr_assert_eq(answer_number(json, "comparison.losses.0.old_median_ms"), 5000);
  cr_assert_eq(answer_number(json, "comparison.losses.0.new_median_ms"), now);
  cr_assert_float_eq(answer_number(json, "comparison.losses.0.ratio"), now / 5000, 1e-12);
  cr_assert_gt(answer_number(json, "comparison.losses.0.relative_ratio"), 0);
  answer_free(json);
  tool_folder_remove(&folder);
}

static void expect_out(const tool_folder *folder, const char *word) {
  char *out = tool_text(folder, "out");
  cr_assert_not_null(strstr(out, word), "no '%s' in: %s", word, out);
  free(out);
}

/* Threads, instruction set and version may differ: they are shown. */
Test(tool_compare, table) {
  const tool_folder folder = folder_with_old();
  put(&folder, "version", "\"0.0.7\"");
  cr_assert_eq(tool_shell(&folder,
                          "sed 's/\"threads\": 1,/\"threads\": 77,/; s/\"isa\": \"[a-z0-9]*\"/\"isa\": \"mmx\"/' "
                          "a.json >b.json; \"$TARE\" " BATCH "--loss sigmoid-ce --loss sigmoid-focal " ROUNDS
                          "--compare b.json"),
               0);
  static const char *const words[] = {"Compared with b.json",
                                      "0.0.7",
                                      "77",
                                      "mmx",
                                      "new/old",
                                      "Only in the old run: softmax-ce.",
                                      "Only in the new run: sigmoid-focal, gamma 2; sigmoid-focal, gamma 1.5"};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) expect_out(&folder, words[i]);
  tool_folder_remove(&folder);
}

static void expect_error(const tool_folder *folder, const char *command, const char *word, const char *also) {
  tool_expect_refused(folder, command, 1, word);
  char *err = tool_text(folder, "err"), *out = tool_text(folder, "out");
  cr_assert_not_null(strstr(err, also), "no '%s' in: %s", also, err);
  cr_assert_eq(strchr(err, '\n')[1], '\0', "more than a line: %s", err);
  cr_assert_str_eq(out, "");
  free(err);
  free(out);
}

#define COMPARE "\"$TARE\" " BATCH LOSSES ROUNDS "--compare a.json "

/* The field and both values are named, before anything is measured. */
Test(tool_compare, another_batch_or_device) {
  static const struct {
    const char *path, *value, *said;
  } cases[] = {
      {"device", "\"cuda\"", "--device is cuda there and cpu here"},
      {"device_name", "\"Abacus\"", "the name of the device is Abacus there and "},
      {"dtype", "\"f16\"", "--dtype is f16 there and f32 here"},
      {"rows", "4001", "--rows is 4001 there and 4000 here"},
      {"classes", "9", "--classes is 9 there and 8 here"},
      {"layout", "\"nchw\"", "--layout is nchw there and rows here"},
      {"in_place", "false", "the gradient is apart there and in place here"},
      {"distribution", "\"normal:0,1\"", "--distribution is normal:0,1 there and detector here"},
      {"labels", "\"y.npy\"", "--labels is y.npy there and none here"},
      {"dimensions", "8", "--head is 8 there and none here"},
      {"benchmark", "\"head\"", "the benchmark is head there and losses here"},
      {"rows", NULL, "--rows is none there and 4000 here"},
      {"rows", "[4000]", "--rows is no text or number there and 4000 here"},
  };
  const tool_folder folder = folder_with_old();
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    put(&folder, cases[i].path, cases[i].value);
    expect_error(&folder, COMPARE, cases[i].said, "--compare a.json: ");
  }
  tool_folder_remove(&folder);
}

Test(tool_compare, fields_that_are_missing_or_wrong) {
  static const char *const cases[][3] = {
      {"benchmark", NULL, "\"benchmark\" is missing or not a text"},
      {"version", NULL, "\"version\" is missing or not a text"},
      {"date", "7", "\"date\" is missing or not a text"},
      {"threads", "\"two\"", "\"threads\" is missing or not a whole number"},
      {"rounds", "1.5", "\"rounds\" is missing or not a whole number"},
      {"noise", "true", "\"noise.trusted\" is missing or not true or false"},
      {"losses", "{}", "\"losses\" is missing or not an array of losses"},
      {"losses", "[]", "\"losses\" is missing or not an array of losses"},
      {"losses", "[3]", "in \"losses\", number 1, \"label\" is missing or not a text"},
      {"losses.1.label", "3", "in \"losses\", number 2, \"label\" is missing or not a text"},
      {"losses.0.parameters", NULL, "\"parameters\" is missing or not an object"},
      {"losses.0.median_ms", "0", "\"median_ms\" is missing or not a number above 0"},
      {"losses.0.median_ms", "\"NaN\"", "\"median_ms\" is missing or not a number above 0"},
      {"losses.0.relative_time", NULL, "\"relative_time.median\" is missing or not a number above 0"},
      {"losses.0.relative_time.low", NULL, "\"relative_time\" is missing or not an interval"},
      {"losses.0.relative_time.low", "1e9", "\"relative_time\" is missing or not an interval"},
      {"losses.0.relative_time.high", "null", "\"relative_time\" is missing or not an interval"},
      {"benchmark", "\"sweep\"", "it is of --sweep, which is not compared"},
  };
  const tool_folder folder = folder_with_old();
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    put(&folder, cases[i][0], cases[i][1]);
    expect_error(&folder, COMPARE, cases[i][2], "expected what `tare bench --json` of this version");
  }
  tool_folder_remove(&folder);
}

Test(tool_compare, files_that_are_damaged_or_foreign) {
  static const char *const cases[][2] = {
      {": >a.json", "no JSON at line "},
      {"head -c 300 old.json >a.json", "no JSON at line 1"},
      {"cat old.json old.json >a.json", "no JSON at line "},
      {"echo '[1, 2]' >a.json", "not a JSON object"},
      {"echo '{\"a\": 1, \"a\": 2}' >a.json", "no JSON at line 1"},
      {"printf '\\377\\376' >a.json", "no JSON at line 1"},
      {"\"$TARE\" info --json >a.json", "\"benchmark\" is missing"},
  };
  const tool_folder folder = folder_with_old();
  char command[1024];
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    cr_assert_eq(tool_shell(&folder, "%s", cases[i][0]), 0, "%s", cases[i][0]);
    expect_error(&folder, COMPARE, cases[i][1], "expected what `tare bench --json` of this version");
  }
  snprintf(command, sizeof command, "%s", "rm a.json; " COMPARE);
  expect_error(&folder, command, "--compare a.json: cannot open", "No such file");
  snprintf(command, sizeof command, "%s", "\"$TARE\" " BATCH LOSSES "--compare .");
  expect_error(&folder, command, "--compare .: neither a file nor a pipe",
               "expected the output of `tare bench --json`");
  tool_folder_remove(&folder);
}

Test(tool_compare, options_that_do_not_go_together) {
  const tool_folder folder = folder_with_old();
  tool_expect_refused(&folder, "\"$TARE\" " BATCH "--csv --json", 2, "--csv with --json: give one of them");
  tool_expect_refused(&folder, COMPARE "--compare a.json", 2, "--compare is given twice");
  tool_expect_refused(&folder, "\"$TARE\" " BATCH "--compare", 2, "--compare");
  tool_expect_refused(&folder, "\"$TARE\" " BATCH "--csv=3", 2, "--csv");
  tool_expect_refused(&folder, "cp old.json a.svg; \"$TARE\" " BATCH LOSSES "--compare a.svg --plot a.svg", 1,
                      "--plot a.svg");
  tool_folder_remove(&folder);
}

/* A head is compared by its fused way, over its own products. */
Test(tool_compare, a_head) {
  const tool_folder folder = tool_folder_make();
#define HEAD "\"$TARE\" bench --device cpu --threads 1 --rows 60 --classes 5 --head 8 --repeat 6 "
  const int status = tool_shell(&folder, HEAD "--json >old.json");
  char *text = tool_text(&folder, "err");
  if (strstr(text, "CBLAS") || strstr(text, "cblas")) cr_skip_test("no CBLAS: %s", text);
  cr_assert_eq(status, 0, "%s", text);
  free(text);
  cr_assert_eq(tool_shell(&folder, HEAD "--compare old.json"), 0);
  expect_out(&folder, "beside products");
  expect_out(&folder, "Compared with old.json");
  cr_assert_eq(tool_shell(&folder, HEAD "--compare old.json --csv"), 0);
  expect_out(&folder, ",fused.relative_time.low,");
  expect_out(&folder, ",verdict,");
  cr_assert_eq(tool_shell(&folder, HEAD "--compare old.json --json"), 0);
  text = tool_text(&folder, "out");
  answer_json *json = answer_read(text);
  cr_assert_eq(answer_count(json, "comparison.losses"), 3);
  cr_assert_gt(answer_number(json, "comparison.losses.0.relative_ratio"), 0);
  answer_free(json);
  free(text);
  tool_expect_refused(&folder, HEAD "--workspace 0.5 --compare old.json", 1, "--workspace is ample there and 0.5 here");
  tool_folder_remove(&folder);
}

Test(tool_compare, through_a_pipe) {
  const tool_folder folder = folder_with_old();
  cr_assert_eq(tool_shell(&folder, "\"$TARE\" " BATCH LOSSES "--repeat 1 --compare - <old.json"), 0);
  expect_out(&folder, "too few rounds");
  tool_folder_remove(&folder);
}

/* ---- CSV --------------------------------------------------------------------------------------------------------- */

/* The fields of a line, which are cut apart in place. Returns their number and goes to the next line. */
static int split(char **line, char **fields, int most) {
  int count = 0;
  char *at = *line, end = ',';
  while (end == ',') {
    cr_assert_lt(count, most);
    const bool quoted = *at == '"';
    if (quoted) at++;
    fields[count++] = at;
    at += quoted ? strcspn(at, "\"") : strcspn(at, ",\n");
    if (quoted) *at++ = '\0';
    end = *at;
    cr_assert(end == ',' || end == '\n', "a line that does not end: %s", *line);
    *at++ = '\0';
  }
  *line = at;
  return count;
}

static int column_of(char *const *header, int columns, const char *name) {
  for (int column = 0; column < columns; column++) {
    if (strcmp(header[column], name) == 0) return column;
  }
  cr_assert_fail("no column %s", name);
  return 0;
}

Test(tool_compare, a_line_for_each_loss) {
  enum { MOST = 64 };
  char *header[MOST], *fields[MOST];
  const tool_folder folder = folder_with_old();
  cr_assert_eq(tool_shell(&folder, "\"$TARE\" " BATCH "--loss sigmoid-focal --repeat 9 --csv"), 0);
  char *out = tool_text(&folder, "out"), *line = out;
  const int columns = split(&line, header, MOST);
  static const char *const labels[] = {"sigmoid-focal, gamma 2", "sigmoid-focal, gamma 1.5",
                                       "sigmoid-focal, gamma 3.7"};
  for (int i = 0; i < 3; i++) {
    cr_assert_eq(split(&line, fields, MOST), columns);
    cr_assert_str_eq(fields[column_of(header, columns, "label")], labels[i]);
    cr_assert_str_eq(fields[column_of(header, columns, "rows")], "4000");
    cr_assert_str_eq(fields[column_of(header, columns, "in_place")], "true");
    const char *median = fields[column_of(header, columns, "median_ms")];
    cr_assert_gt(strlen(median), 12, "not all digits: %s", median);
    cr_assert_leq(strtod(fields[column_of(header, columns, "median_low_ms")], NULL), strtod(median, NULL));
  }
  cr_assert_str_eq(line, "");
  free(out);
  tool_folder_remove(&folder);
}

Test(tool_compare, csv_has_the_comparison) {
  enum { MOST = 64 };
  char *header[MOST], *fields[MOST];
  const tool_folder folder = folder_with_old();
  cr_assert_eq(tool_shell(&folder, "\"$TARE\" " BATCH
                                   "--loss sigmoid-ce --loss sigmoid-poly1 --repeat 3 --csv --compare old.json"),
               0);
  char *out = tool_text(&folder, "out"), *line = out;
  const int columns = split(&line, header, MOST), verdict = column_of(header, columns, "verdict");
  cr_assert_eq(split(&line, fields, MOST), columns);
  cr_assert_str_eq(fields[verdict], "too few rounds");
  cr_assert_gt(strtod(fields[column_of(header, columns, "old_median_ms")], NULL), 0);
  cr_assert_eq(split(&line, fields, MOST), columns);
  cr_assert_str_eq(fields[verdict], "", "a loss that the earlier run does not have");
  free(out);
  tool_folder_remove(&folder);
}
