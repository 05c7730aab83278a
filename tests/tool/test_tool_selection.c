/* SPDX-License-Identifier: Apache-2.0 */
/* Hard negative mining and OHEM on the command line. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/answer.h"
#include "support/npy.h"
#include "support/tool.h"

TestSuite(tool_selection, .init = tool_use_built);

#define EVAL(loss) "$TARE eval --loss " loss " --device cpu --logits x.npy --labels y.npy"

/* Rows of the gradient that are not 0. */
static int64_t rows_with_a_gradient(const tool_folder *folder, const char *name) {
  char path[512];
  tool_file(path, sizeof path, folder, name);
  npy_array gradient = npy_read(path);
  int64_t rows = 0;
  for (int64_t row = 0; row < gradient.shape[0]; row++) {
    bool any = false;
    for (int64_t c = 0; c < gradient.shape[1]; c++)
      any = any || npy_number(&gradient, (size_t)(row * gradient.shape[1] + c)) != 0;
    rows += any;
  }
  npy_free(&gradient);
  return rows;
}

static int64_t positives(const tool_folder *folder) {
  char path[512];
  tool_file(path, sizeof path, folder, "y.npy");
  npy_array labels = npy_read(path);
  int64_t count = 0;
  for (size_t i = 0; i < labels.count; i++) count += npy_number(&labels, i) >= 0;
  npy_free(&labels);
  return count;
}

Test(tool_selection, three_to_one) {
  const tool_folder folder = tool_folder_with_files();
  const int64_t objects = positives(&folder);
  cr_assert_gt(objects, 0);
  cr_assert_eq(tool_shell(&folder, EVAL("sigmoid-focal") " --hard-negatives 1 --grad-out g.npy"), 0);
  const int64_t rows = rows_with_a_gradient(&folder, "g.npy");
  cr_assert_geq(rows, objects);
  cr_assert_leq(rows, 2 * objects);
  cr_assert_eq(tool_shell(&folder, EVAL("sigmoid-focal") " --hard-negatives 0 --grad-out h.npy"), 0);
  cr_assert_eq(rows_with_a_gradient(&folder, "h.npy"), objects);
  tool_folder_remove(&folder);
}

Test(tool_selection, hardest_rows) {
  const tool_folder folder = tool_folder_with_files();
  cr_assert_eq(tool_shell(&folder, EVAL("sigmoid-focal") " --hard-rows 5 --grad-out g.npy"), 0);
  cr_assert_eq(rows_with_a_gradient(&folder, "g.npy"), 5);
  cr_assert_eq(tool_shell(&folder, EVAL("sigmoid-focal") " --hard-fraction 1e-9 --grad-out h.npy"), 0);
  cr_assert_eq(rows_with_a_gradient(&folder, "h.npy"), 1);
  tool_folder_remove(&folder);
}

static double divisor(const tool_folder *folder, const char *loss, const char *options) {
  cr_assert_eq(tool_shell(folder, EVAL("%s") " --json --normalizer %s", loss, options), 0, "%s", options);
  char *text = tool_text(folder, "out");
  answer_json *answer = answer_read(text);
  const double found = answer_number(answer, "normalizer");
  answer_free(answer);
  free(text);
  return found;
}

/* The selected rows alone, but for positives. Of the 400 rows, 80 are background, 80 are ignored. */
Test(tool_selection, shows_what_divides) {
  const tool_folder folder = tool_folder_with_files();
  cr_assert_eq(divisor(&folder, "sigmoid-ce", "rows"), 320);
  cr_assert_eq(divisor(&folder, "sigmoid-ce", "rows --hard-rows 10"), 10);
  cr_assert_eq(divisor(&folder, "sigmoid-ce", "elements --hard-rows 10"), 30);
  cr_assert_eq(divisor(&folder, "softmax-ce", "elements --hard-fraction 0.1"), 24);
  cr_assert_eq(divisor(&folder, "sigmoid-ce", "weights --hard-rows 10"), 10);
  cr_assert_eq(divisor(&folder, "sigmoid-ce", "positives --hard-rows 10"), 240);
  cr_assert_eq(divisor(&folder, "sigmoid-ce", "rows --hard-negatives 0.1"), 264);
  cr_assert_eq(divisor(&folder, "sigmoid-ce", "rows --hard-negatives 0.1 --normalizer-addend 1"), 265);
  tool_folder_remove(&folder);
}

static void expect_refused(const char *loss, const char *options, int status, const char *word) {
  const tool_folder folder = tool_folder_with_files();
  char command[512];
  snprintf(command, sizeof command, EVAL("%s") " %s", loss, options);
  tool_expect_refused(&folder, command, status, word);
  tool_folder_remove(&folder);
}

Test(tool_selection, wrong_usage) {
  expect_refused("sigmoid-focal", "--hard-negatives -1", 2, "--hard-negatives -1: expected a number in [0,1e9]");
  expect_refused("sigmoid-focal", "--hard-negatives nan", 2, "not a finite decimal number");
  expect_refused("sigmoid-focal", "--least-negatives 3", 2, "--least-negatives goes with --hard-negatives");
  expect_refused("sigmoid-focal", "--images 3", 2, "--images goes with --hard-negatives");
  expect_refused("sigmoid-focal", "--hard-negatives 3 --images 0", 2, "--images 0");
  expect_refused("sigmoid-focal", "--hard-negatives 3 --images 999983", 1, "expected a multiple of it");
  expect_refused("softmax-ce", "--hard-negatives 3", 1, "--background is -1 with --hard-negatives");
  expect_refused("ghm-c", "--hard-negatives 3", 1, "--hard-negatives with ghm-c");
  expect_refused("ghm-c", "--hard-rows 3", 1, "--hard-rows or --hard-fraction with ghm-c");
  expect_refused("sigmoid-focal", "--hard-rows 0", 2, "--hard-rows 0");
  expect_refused("sigmoid-focal", "--hard-fraction 1.5", 2, "expected a number in (0,1]");
  expect_refused("sigmoid-focal", "--hard-fraction nan", 2, "not a finite decimal number");
  expect_refused("sigmoid-focal", "--hard-rows 3 --hard-negatives 3", 2, "give one of them");
}
