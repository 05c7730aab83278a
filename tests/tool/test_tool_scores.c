/* SPDX-License-Identifier: Apache-2.0 */
/* Scores of labels on the command line. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/npy.h"
#include "support/tool.h"

static void use_built_tool(void) {
#ifdef TARE_TOOL_PATH
  tool_built = TARE_TOOL_PATH;
#endif
}

TestSuite(tool_scores, .init = use_built_tool);

#define EVAL(loss) "$TARE eval --loss " loss " --device cpu --logits x.npy --labels y.npy "

/* s.npy: a score of 0.5 for each label, NaN where there is none; h.npy: the same as f8. */
static tool_folder folder_with_scores(void) {
  const tool_folder folder = tool_folder_with_files();
  char path[512];
  tool_file(path, sizeof path, &folder, "y.npy");
  npy_array labels = npy_read(path);
  float *narrow = calloc(labels.count, sizeof *narrow);
  double *wide = calloc(labels.count, sizeof *wide);
  for (size_t i = 0; i < labels.count; i++) {
    wide[i] = npy_number(&labels, i) >= 0 ? 0.5 : (double)NAN;
    narrow[i] = (float)wide[i];
  }
  tool_file(path, sizeof path, &folder, "s.npy");
  npy_write(path, "<f4", false, (int64_t)labels.count, 0, narrow, labels.count * sizeof *narrow);
  tool_file(path, sizeof path, &folder, "h.npy");
  npy_write(path, "<f8", false, (int64_t)labels.count, 0, wide, labels.count * sizeof *wide);
  free(narrow);
  free(wide);
  npy_free(&labels);
  return folder;
}

static double loss_of(const tool_folder *folder, const char *options) {
  cr_assert_eq(tool_shell(folder, EVAL("sigmoid-varifocal") "--json %s", options), 0, "%s", options);
  char *text = tool_text(folder, "out");
  const char *at = strstr(text, "\"loss\":");
  const double loss = at ? strtod(at + strlen("\"loss\":"), NULL) : (double)NAN;
  free(text);
  return loss;
}

Test(tool_scores, change_the_loss) {
  const tool_folder folder = folder_with_scores();
  const double labels = loss_of(&folder, ""), scores = loss_of(&folder, "--scores s.npy");
  cr_assert(labels != scores, "%g", labels);
  cr_assert_eq(loss_of(&folder, "--scores h.npy"), scores);
  cr_assert_eq(loss_of(&folder, "--scores s.npy --modulator detached"), scores);
  cr_assert(loss_of(&folder, "--scores s.npy --gamma 1 --alpha 0.5") != scores);
  cr_assert_eq(tool_shell(&folder, EVAL("sigmoid-ce") "--scores s.npy"), 0);
  tool_folder_remove(&folder);
}

/* What the picture shows needs a histogram, which no GHM loss can count where labels have scores. */
Test(tool_scores, a_plot) {
  const tool_folder folder = folder_with_scores();
  const int status = tool_shell(&folder, EVAL("sigmoid-varifocal") "--scores s.npy --plot p.svg");
  char *text = tool_text(&folder, "err");
  cr_assert(status == 0 || strstr(text, "gnuplot"), "%d: %s", status, text);
  free(text);
  tool_folder_remove(&folder);
}

static void expect_refused(const char *loss, const char *options, int status, const char *word) {
  const tool_folder folder = folder_with_scores();
  char command[512];
  snprintf(command, sizeof command, EVAL("%s") " %s", loss, options);
  tool_expect_refused(&folder, command, status, word);
  tool_folder_remove(&folder);
}

Test(tool_scores, wrong_usage) {
  expect_refused("sigmoid-focal", "--scores s.npy", 2, "--scores does not belong to sigmoid-focal");
  expect_refused("sigmoid-varifocal", "--scores x.npy", 1, "--scores x.npy: ");
  expect_refused("sigmoid-varifocal", "--modulator half", 2, "--modulator");
  expect_refused("sigmoid-varifocal", "--gamma -1", 1, "gamma");
}
