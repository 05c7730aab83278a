/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tare bench --sweep`: the sizes, the forms of the report, and how a sweep ends that needs more memory than there is.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/answer.h"
#include "support/devices.h"
#include "support/tool.h"

TestSuite(tool_sweep, .init = tool_use_built, .timeout = 300);

#define SWEEP "bench --device cpu --repeat 1 --loss sigmoid-ce "
#define ONE "--threads 1 "

static answer_json *sweep_json(const tool_folder *folder, const char *arguments) {
  tool_answer answer = tool_run(folder, 0, SWEEP "%s --json", arguments);
  cr_assert_eq(answer.status, 0, "%s: exit %d: %s", arguments, answer.status, answer.err);
  answer_json *json = answer_read(answer.out);
  tool_answer_free(&answer);
  return json;
}

static double of_step(const answer_json *json, size_t step, const char *name) {
  char path[128];
  snprintf(path, sizeof path, "steps.%zu.%s", step, name);
  return answer_number(json, path);
}

/* The sizes in order, and that each has times and a verdict. */
static void expect_sizes(const answer_json *json, const char *what, const double *sizes, size_t count) {
  cr_assert_str_eq(answer_text(json, "benchmark"), "sweep");
  cr_assert_str_eq(answer_text(json, "sweep"), what);
  cr_assert_eq(answer_count(json, "steps"), count, "%s: %zu steps", what, answer_count(json, "steps"));
  for (size_t step = 0; step < count; step++) {
    cr_assert_eq(of_step(json, step, what), sizes[step], "%s, step %zu", what, step);
    cr_assert_gt(of_step(json, step, "losses.0.ns_per_element"), 0);
    cr_assert_gt(of_step(json, step, "copy.median_ms"), 0);
    cr_assert_eq(of_step(json, step, "noise.limit"), 0.2);
  }
  cr_assert(answer_is_null(json, "ended_before"));
}

Test(tool_sweep, rows) {
  const double sizes[] = {1024, 4096, 5000};
  const tool_folder folder = tool_folder_make();
  answer_json *json = sweep_json(&folder, ONE "--sweep rows --rows 5000 --classes 3");
  expect_sizes(json, "rows", sizes, 3);
  for (size_t step = 0; step < 3; step++) cr_assert_eq(of_step(json, step, "classes"), 3);
  cr_assert_str_eq(answer_text(json, "command.1"), "bench");
  cr_assert_neq(answer_text(json, "version")[0], '\0');
  answer_free(json);
  json = sweep_json(&folder, ONE "--sweep rows --rows 1024 --classes 3");
  expect_sizes(json, "rows", sizes, 1);
  answer_free(json);
  tool_folder_remove(&folder);
}

Test(tool_sweep, classes_keep_the_number_of_elements) {
  const double sizes[] = {1, 2, 3};
  const tool_folder folder = tool_folder_make();
  answer_json *json = sweep_json(&folder, ONE "--sweep classes --classes 3");
  expect_sizes(json, "classes", sizes, 3);
  for (size_t step = 0; step < 3; step++) {
    const double elements = of_step(json, step, "rows") * sizes[step];
    cr_assert(elements > 8388600 && elements <= 8388608, "%g elements", elements);
  }
  answer_free(json);
  tool_folder_remove(&folder);
}

Test(tool_sweep, threads) {
  const double sizes[] = {1, 2, 3, 4, 6, 7};
  const tool_folder folder = tool_folder_make();
  answer_json *json = sweep_json(&folder, "--threads 7 --sweep threads --rows 300 --classes 3");
  expect_sizes(json, "threads", sizes, 6);
  answer_free(json);
  tool_folder_remove(&folder);
}

/* Unless losses are named, there are four, each with one set of parameters. */
Test(tool_sweep, main_losses) {
  static const char *const labels[] = {"sigmoid-ce", "sigmoid-focal, gamma 2", "softmax-ce", "ghm-c, 30 bins"};
  const tool_folder folder = tool_folder_make();
  tool_answer answer = tool_run(&folder, 0, "bench --sweep rows --rows 100 --classes 3 --repeat 1 --device cpu --json");
  answer_json *json = answer_read(answer.out);
  cr_assert_eq(answer_count(json, "steps.0.losses"), 4);
  for (int i = 0; i < 4; i++) {
    char path[64];
    snprintf(path, sizeof path, "steps.0.losses.%d.label", i);
    cr_assert_str_eq(answer_text(json, path), labels[i]);
  }
  answer_free(json);
  tool_answer_free(&answer);
  tool_folder_remove(&folder);
}

static void expect_title(const tool_folder *folder) {
  tool_answer answer = tool_run(folder, 0, SWEEP ONE "--sweep rows --rows 50 --classes 1");
  cr_assert_not_null(strstr(answer.out, "Loss and gradient by rows: 1 class f32 ("), "%s", answer.out);
  tool_answer_free(&answer);
}

static int lines_of(const char *text) {
  int lines = 0;
  for (; *text; text++) lines += *text == '\n';
  return lines;
}

/* Seven losses are two tables of five and two; CSV has a line for each loss and size. */
Test(tool_sweep, table_and_csv) {
  const tool_folder folder = tool_folder_make();
  tool_answer answer = tool_run(&folder, 0,
                                "bench --device cpu --threads 1 --repeat 1 --sweep rows --rows 2000 --classes 3 --loss "
                                "sigmoid-ce --loss softmax-ce --loss sigmoid-focal --loss ghm-c");
  cr_assert_eq(answer.status, 0, "%s", answer.err);
  static const char *const words[] = {"by rows: 3 classes f32", ", 1 thread;", "copy", "1,024", "2,000",
                                      "ghm-c, 30 bins"};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    cr_assert_not_null(strstr(answer.out, words[i]), "no '%s' in: %s", words[i], answer.out);
  }
  const char *first = strstr(answer.out, "1,024");
  cr_assert_not_null(strstr(first + 1, "1,024"), "one table: %s", answer.out);
  tool_answer_free(&answer);
  answer = tool_run(&folder, 0, SWEEP ONE "--loss sigmoid-focal --sweep rows --rows 2000 --classes 3 --csv");
  cr_assert_eq(answer.status, 0, "%s", answer.err);
  cr_assert_eq(lines_of(answer.out), 1 + 2 * 4, "%s", answer.out);
  cr_assert_not_null(strstr(answer.out, ",1024,3,f32,"), "%s", answer.out);
  cr_assert_not_null(strstr(answer.out, ",2000,3,f32,"), "%s", answer.out);
  tool_answer_free(&answer);
  expect_title(&folder);
  tool_folder_remove(&folder);
}

Test(tool_sweep, lines_in_a_picture) {
  if (system("command -v gnuplot >/dev/null") != 0) cr_skip_test("gnuplot is not installed");
  static const char *const sweeps[][2] = {{"--sweep rows --rows 2000", "1,024"},
                                          {"--sweep rows --rows 5", "5"}, /* of one point */
                                          {"--sweep threads --threads 2 --rows 50", "threads"}};
  const tool_folder folder = tool_folder_make();
  char path[512];
  tool_file(path, sizeof path, &folder, "sweep.svg");
  for (size_t i = 0; i < sizeof sweeps / sizeof *sweeps; i++) {
    tool_answer answer = tool_run(&folder, 0, SWEEP "--classes 3 --plot %s %s", path, sweeps[i][0]);
    cr_assert_eq(answer.status, 0, "%s", answer.err);
    cr_assert_str_eq(answer.err, "");
    char *svg = tool_file_text(path);
    const char *const texts[] = {"<svg", "<title>Loss and gradient by ", "a plain copy of the logits", "sigmoid-ce",
                                 sweeps[i][1]};
    for (size_t k = 0; k < sizeof texts / sizeof *texts; k++)
      cr_assert_not_null(strstr(svg, texts[k]), "%s: no %s", sweeps[i][0], texts[k]);
    free(svg);
    tool_answer_free(&answer);
  }
  tool_folder_remove(&folder);
}

/* ---- What is refused --------------------------------------------------------------------------------------------- */

Test(tool_sweep, options_that_do_not_go_together) {
  static const char *const cases[][2] = {
      {"--sweep columns", "--sweep columns: expected one of rows, classes, threads"},
      {"--sweep row", "did you mean rows?"},
      {"--sweep", "--sweep"},
      {"--sweep rows --sweep rows", "--sweep is given twice"},
      {"--sweep rows --rows 0", "--rows 0"},
      {"--sweep classes --classes 2.5", "--classes '2.5': not a whole number"},
      {"--sweep threads --threads 1025", "--threads 1025"},
      {"--sweep classes --rows 10", "--sweep classes with --rows"},
      {"--sweep rows --head 8", "--sweep with --head"},
      {"--sweep rows --compare x.npy", "--sweep with --compare"},
      {"--sweep rows --distribution file:x.npy", "no --distribution file:"},
      {"--sweep rows --csv --json", "--csv with --json"},
      {"--sweep rows --plot a.txt", "--plot 'a.txt': a picture is .svg, .png or .pdf"},
  };
  const tool_folder folder = tool_folder_with_files();
  char command[512];
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    snprintf(command, sizeof command, "\"$TARE\" bench --device cpu %s", cases[i][0]);
    tool_expect_refused(&folder, command, 2, cases[i][1]);
  }
  tool_expect_nothing_left(&folder, "--sweep");
  tool_folder_remove(&folder);
}

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

#ifdef __SANITIZE_ADDRESS__
#define NEEDS_A_LIMIT() cr_skip_test("the sanitizers need more address space than the limit of this case")
#else
#define NEEDS_A_LIMIT() \
  if (test_under_qemu()) cr_skip_test("an emulator's own memory counts, too")
#endif

/* 262,144 rows need about 550 MB, and the process may have 490. */
Test(tool_sweep, ends_where_memory_does) {
  NEEDS_A_LIMIT();
  const tool_folder folder = tool_folder_make();
  cr_assert_eq(tool_shell(&folder, "ulimit -v 480000; \"$TARE\" " SWEEP ONE "--sweep rows --json"), 0);
  char *text = tool_text(&folder, "out");
  answer_json *json = answer_read(text);
  cr_assert_eq(answer_number(json, "ended_before"), 262144);
  cr_assert_not_null(strstr(answer_text(json, "reason_of_end"), "262,144 rows need about 0."));
  cr_assert_eq(answer_count(json, "steps"), 4);
  answer_free(json);
  free(text);
  cr_assert_eq(tool_shell(&folder, "ulimit -v 480000; \"$TARE\" " SWEEP ONE "--sweep rows"), 0);
  text = tool_text(&folder, "out");
  cr_assert_not_null(strstr(text, "The sweep ends here: 262,144 rows need about 0."), "%s", text);
  cr_assert_not_null(strstr(text, "65,536"), "%s", text);
  free(text);
  tool_folder_remove(&folder);
}

Test(tool_sweep, without_memory_for_a_single_size) {
  NEEDS_A_LIMIT();
  const tool_folder folder = tool_folder_make();
  const char *const command = "ulimit -v 480000; \"$TARE\" " SWEEP ONE "--sweep rows --rows 1000 --classes 1000000";
  tool_expect_refused(&folder, command, 1, "--sweep rows: 1,000 rows need about ");
  tool_folder_remove(&folder);
}

/* ---- Progress ---------------------------------------------------------------------------------------------------- */

/* On a terminal the percentage is that of the whole sweep: it does not fall, and the second of two sizes begins at 50.
 */
Test(tool_sweep, progress_is_of_the_whole) {
  if (system("script -qec true /dev/null >/dev/null 2>&1") != 0)
    cr_skip_test("no script (util-linux) that makes a terminal");
  const tool_folder folder = tool_folder_make();
  cr_assert_eq(
      tool_shell(&folder,
                 "script -qec '\"$TARE\" bench --device cpu --threads 1 --loss sigmoid-focal --gamma 1.3 --sweep rows "
                 "--rows 4096 --classes 80 --repeat 12000' /dev/null"),
      0);
  char *text = tool_text(&folder, "out");
  int shown = 0, last = 0;
  for (const char *at = strchr(text, '%'); at; at = strchr(at + 1, '%')) {
    const char *digits = at - 1;
    while (digits > text && digits[-1] >= '0' && digits[-1] <= '9') digits--;
    const int percent = atoi(digits);
    if (strncmp(at, "% measuring", 11) != 0) continue;
    cr_assert(percent >= last && percent < 100, "%d %% after %d %%", percent, last);
    last = percent;
    shown++;
  }
  cr_assert(shown > 0, "no percentage in: %s", text);
  cr_assert(last >= 50, "the second of two sizes is shown as %d %%", last);
  free(text);
  tool_folder_remove(&folder);
}
