/* SPDX-License-Identifier: Apache-2.0 */
/* Scores of labels on the command line. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/answer.h"
#include "support/boxes.h"
#include "support/npy.h"
#include "support/problem.h"
#include "support/tool.h"

TestSuite(tool_scores, .init = tool_use_built);

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

static double loss_by(const tool_folder *folder, const char *loss, const char *options) {
  cr_assert_eq(tool_shell(folder, EVAL("%s") "--json %s", loss, options), 0, "%s", options);
  char *text = tool_text(folder, "out");
  const char *at = strstr(text, "\"loss\":");
  const double value = at ? strtod(at + strlen("\"loss\":"), NULL) : (double)NAN;
  free(text);
  return value;
}

static double loss_of(const tool_folder *folder, const char *options) {
  return loss_by(folder, "sigmoid-varifocal", options);
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

/* Each parameter of a loss is an option. */
Test(tool_scores, every_loss_has_its_options) {
  static const struct {
    const char *loss, *option;
  } losses[] = {{"sigmoid-quality-focal", "--quality-beta 1"}, {"sigmoid-quality-focal", "--alpha 0.25"},
                {"sigmoid-matchability", "--gamma 2"},         {"sigmoid-matchability", "--alpha 0.75"},
                {"sigmoid-iou-aware", "--p-exponent 0.5"},     {"sigmoid-iou-aware", "--gamma 1"},
                {"sigmoid-asymmetric", "--gamma-positive 2"},  {"sigmoid-asymmetric", "--gamma-negative 2"},
                {"sigmoid-asymmetric", "--margin 0.2"},        {"sigmoid-reduced-focal", "--threshold 0.9"},
                {"sigmoid-focal-star", "--steepness 4"},       {"sigmoid-focal-star", "--shift 0"}};
  const tool_folder folder = folder_with_scores();
  for (size_t i = 0; i < sizeof losses / sizeof *losses; i++) {
    char options[128];
    snprintf(options, sizeof options, "--scores s.npy %s", losses[i].option);
    const double plain = loss_by(&folder, losses[i].loss, "--scores s.npy");
    cr_assert(loss_by(&folder, losses[i].loss, options) != plain, "%s", options);
    cr_assert(loss_by(&folder, losses[i].loss, "") != plain, "%s", losses[i].loss);
  }
  cr_assert(loss_of(&folder, "--scores s.npy --positives by-label") == loss_of(&folder, "--scores s.npy"));
  tool_folder_remove(&folder);
}

/* A detector's logits, with the IoU of its boxes as scores. */
Test(tool_scores, of_a_detectors_boxes) {
  char logits[512], labels[512], command[2048], path[512];
  npy_real_path(logits, sizeof logits, "late_logits.npy");
  npy_real_path(labels, sizeof labels, "labels.npy");
  FOR_EACH_LOSS(kind) {
    if (!takes_scores(kind)) continue;
    const tool_folder folder = tool_folder_make();
    problem *p = problem_of_detector(kind, "late");
    float *scores = calloc((size_t)p->rows, sizeof *scores);
    for (int64_t row = 0; row < p->rows; row++) scores[row] = (float)p->scores[row];
    tool_file(path, sizeof path, &folder, "s.npy");
    npy_write(path, "<f4", false, p->rows, 0, scores, (size_t)p->rows * sizeof *scores);
    snprintf(command, sizeof command,
             "$TARE eval --loss %s --device cpu --logits %s --labels %s --scores s.npy --normalizer positives --json",
             tare_loss_name(kind), logits, labels);
    cr_assert_eq(tool_shell(&folder, "%s", command), 0, "%s", command);
    p->want = WANT_LOSS;
    p->normalizer = TARE_NORMALIZER_POSITIVES;
    outcome *want = problem_expect(p);
    char *text = tool_text(&folder, "out"), *at = strstr(text, "\"loss\":");
    CHECK_NEAR(command, at ? strtod(at + strlen("\"loss\":"), NULL) : (double)NAN, want->loss, ((tolerance){0, 1e-6}));
    free(text);
    free(scores);
    outcome_free(want);
    problem_free(p);
    tool_folder_remove(&folder);
  }
}

/* A score of 0.5 lies between the first two bins, whatever the label. */
Test(tool_scores, targets_between_bins) {
  const tool_folder folder = folder_with_scores();
  const double labels = loss_by(&folder, "softmax-distribution-focal", "");
  const double between = loss_by(&folder, "softmax-distribution-focal", "--scores s.npy");
  cr_assert(isfinite(between) && between > 0 && between != labels, "%g", between);
  cr_assert_eq(loss_by(&folder, "softmax-distribution-focal", "--scores h.npy"), between);
  cr_assert_eq(tool_shell(&folder, EVAL("softmax-distribution-focal") "--scores s.npy --plot a.svg"), 2);
  static const float half[400] = {0.5f};
  char path[512];
  tool_file(path, sizeof path, &folder, "whole.npy");
  npy_write(path, "<f4", false, 400, 0, half, sizeof half);
  tool_expect_refused(&folder, "$TARE eval --loss softmax-distribution-focal --logits x.npy", 2, "--labels or");
  cr_assert_eq(tool_shell(&folder,
                          "$TARE eval --loss softmax-distribution-focal --device cpu --json --logits x.npy "
                          "--scores whole.npy"),
               0);
  char *text = tool_text(&folder, "out");
  answer_json *answer = answer_read(text);
  cr_assert_eq(answer_number(answer, "positives"), 400);
  answer_free(answer);
  free(text);
  tool_folder_remove(&folder);
}

/* p.npy: two weights of each row, 0.75 and 0 but for labels in the last bin; q.npy: the same as f8. */
static void put_pairs(const tool_folder *folder, double left, double right) {
  char path[512];
  tool_file(path, sizeof path, folder, "y.npy");
  npy_array labels = npy_read(path);
  float *narrow = calloc(2 * labels.count, sizeof *narrow);
  double *wide = calloc(2 * labels.count, sizeof *wide);
  for (size_t i = 0; i < labels.count; i++) {
    wide[2 * i] = left;
    wide[2 * i + 1] = npy_number(&labels, i) < 2 ? right : 0;
    for (int k = 0; k < 2; k++) narrow[2 * i + k] = (float)wide[2 * i + k];
  }
  tool_file(path, sizeof path, folder, "p.npy");
  npy_write(path, "<f4", false, (int64_t)labels.count, 2, narrow, 2 * labels.count * sizeof *narrow);
  tool_file(path, sizeof path, folder, "q.npy");
  npy_write(path, "<f8", false, (int64_t)labels.count, 2, wide, 2 * labels.count * sizeof *wide);
  free(narrow);
  free(wide);
  npy_free(&labels);
}

Test(tool_scores, of_two_bins) {
  const tool_folder folder = folder_with_scores();
  const double labels = loss_by(&folder, "softmax-two-hot", "");
  put_pairs(&folder, 0.75, 0);
  CHECK_NEAR("one bin", loss_by(&folder, "softmax-two-hot", "--scores p.npy"), 0.75 * labels, ((tolerance){0, 1e-6}));
  put_pairs(&folder, 0.75, 0.5);
  const double both = loss_by(&folder, "softmax-two-hot", "--scores p.npy");
  cr_assert(isfinite(both) && both > 0.75 * labels, "%g", both);
  cr_assert_eq(loss_by(&folder, "softmax-two-hot", "--scores q.npy"), both);
  put_pairs(&folder, 0, 0.5);
  const double right = loss_by(&folder, "softmax-two-hot", "--scores p.npy");
  CHECK_NEAR("their sum", both, right + 0.75 * labels, ((tolerance){0, 1e-6}));
  tool_expect_refused(&folder, EVAL("softmax-two-hot") "--scores s.npy", 1, "expected (400, 2)");
  tool_expect_refused(&folder, EVAL("softmax-two-hot") "--scores x.npy", 1, "expected (400, 2)");
  tool_expect_refused(&folder, EVAL("softmax-two-hot") "--scores p.npy --plot a.svg", 2, "--plot with --scores");
  tool_folder_remove(&folder);
}

/* Beside it stands the histogram without scores. */
Test(tool_scores, a_plot) {
  const tool_folder folder = folder_with_scores();
  const int status = tool_shell(&folder, EVAL("sigmoid-varifocal") "--scores s.npy --plot p.svg");
  char *text = tool_text(&folder, "err");
  cr_assert(status == 0 || strstr(text, "gnuplot"), "%d: %s", status, text);
  free(text);
  if (status == 0) {
    text = tool_text(&folder, "p.svg");
    cr_assert_not_null(strstr(text, "if every score were 1"));
    free(text);
  }
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
  expect_refused("sigmoid-poly1", "--scores s.npy", 2, "--scores does not belong to sigmoid-poly1");
  expect_refused("sigmoid-varifocal", "--scores x.npy", 1, "--scores x.npy: ");
  expect_refused("sigmoid-varifocal", "--modulator half", 2, "--modulator");
  expect_refused("sigmoid-varifocal", "--gamma -1", 1, "gamma");
  expect_refused("sigmoid-varifocal", "--positives half", 2, "--positives");
  expect_refused("sigmoid-quality-focal", "--gamma 1", 2, "--gamma does not belong to sigmoid-quality-focal");
  expect_refused("sigmoid-iou-aware", "--p-exponent 1.5", 1, "p-exponent is 1.5");
}
