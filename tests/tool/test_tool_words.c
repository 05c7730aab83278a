/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is wrong with an option is said of that option, in one line: no field or constant of the C library, no number
 * that was cut, wrapped or guessed.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/npy.h"
#include "support/tool.h"

TestSuite(tool_words, .init = tool_use_built);

enum { ROWS = 400, CLASSES = 3 };

/* Beside the usual files: t.npy (targets), d.npy (f64 logits), none.npy (no classes), bad.npy (an invalid label). */
static tool_folder make_folder(void) {
  static const double zeros[ROWS * CLASSES];
  static int32_t labels[ROWS] = {[7] = 99};
  const tool_folder folder = tool_folder_with_files();
  char path[512];
  tool_file(path, sizeof path, &folder, "t.npy");
  npy_write(path, "<f4", false, ROWS, CLASSES, zeros, ROWS * CLASSES * 4);
  tool_file(path, sizeof path, &folder, "d.npy");
  npy_write(path, "<f8", false, ROWS, CLASSES, zeros, sizeof zeros);
  tool_file(path, sizeof path, &folder, "bad.npy");
  npy_write(path, "<i4", false, ROWS, 0, labels, sizeof labels);
  return folder;
}

static void expect_words(const tool_folder *folder, const char *command, const char *said, const char *also) {
  static const char *const foreign[] = {"->",   "TARE_D",  "TARE_E", "TARE_P", "TARE_V",
                                        "NULL", "options", "batch",  "0x7"};
  const int status = tool_shell(folder, "\"$TARE\" %s", command);
  char *err = tool_text(folder, "err"), *out = tool_text(folder, "out");
  cr_assert(status == 1 || status == 2, "%s: exit %d: %s", command, status, err);
  cr_assert_str_eq(out, "", "%s", command);
  const char *end = strchr(err, '\n');
  cr_assert(end != NULL && end[1] == '\0', "%s: not one line: %s", command, err);
  cr_assert_not_null(strstr(err, said), "%s: '%s' is not in: %s", command, said, err);
  cr_assert_not_null(strstr(err, also), "%s: '%s' is not in: %s", command, also, err);
  for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
    cr_assert_null(strstr(err, foreign[i]), "%s: C's words: %s", command, err);
  }
  free(err);
  free(out);
}

#define EVAL(loss) "eval --loss " loss " --logits x.npy --labels y.npy "
#define DENSE(loss) "eval --loss " loss " --logits x.npy --targets t.npy "

Test(tool_words, ranges) {
  static const struct {
    const char *command, *said, *also;
  } cases[] = {
      {EVAL("sigmoid-focal") "--gamma=-1", "--gamma is -1", "[0,10000]"},
      {EVAL("sigmoid-focal") "--gamma=1e5", "--gamma is 100000", "[0,10000]"},
      {EVAL("sigmoid-poly1") "--gamma=-1e-9", "--gamma is -1e-09", "[0,10000]"},
      {EVAL("softmax-focal") "--gamma=-1", "--gamma is -1", "[0,10000]"},
      {EVAL("sigmoid-ce") "--alpha=1.5", "--alpha is 1.5", "negative for off"},
      {EVAL("sigmoid-focal") "--alpha=1e308", "--alpha is 1e+308", "negative for off"},
      {EVAL("softmax-focal") "--alpha=1e31", "--alpha is 1e+31", "negative for off"},
      {EVAL("sigmoid-poly1") "--alpha=2", "--alpha is 2", "negative for off"},
      {EVAL("sigmoid-ce") "--background-weight=-1", "--background-weight is -1", "[0,1e30]"},
      {EVAL("sigmoid-ce") "--background-weight=1e31", "--background-weight is 1e+31", "[0,1e30]"},
      {EVAL("sigmoid-ce") "--normalizer=0", "--normalizer is 0", "not 0"},
      {EVAL("sigmoid-ce") "--normalizer rows --normalizer-addend=-1", "--normalizer-addend is -1", "[0,1e30]"},
      {EVAL("sigmoid-ce") "--normalizer-minimum=1", "--normalizer-minimum is 1 with --normalizer sum", "must be 0"},
      {EVAL("ghm-c") "--momentum=1", "--momentum is 1", "[0,1)"},
      {EVAL("ghm-c") "--momentum=-.1", "--momentum is -0.1", "[0,1)"},
      {EVAL("ghm-c") "--density=exact --epsilon=0", "--epsilon is 0", "(0,2]"},
      {EVAL("ghm-c") "--density=exact --epsilon=3", "--epsilon is 3", "(0,2]"},
      {EVAL("ghm-r") "--targets t.npy --mu=0", "--mu is 0", "[1e-30,1e30]"},
      {EVAL("ghm-r") "--targets t.npy --mu=1e31", "--mu is 1e+31", "[1e-30,1e30]"},
      {EVAL("sigmoid-ce") "--class-counts c.csv --beta=1", "--beta '1'", "[0,1)"},
      {EVAL("sigmoid-ce") "--class-counts c.csv --beta=-0.1", "--beta '-0.1'", "[0,1)"},
      {EVAL("softmax-logit-adjusted") "--class-counts c.csv --tau=1e31", "--tau is 1e+31", "[-1e30,1e30]"},
      {EVAL("softmax-logit-adjusted") "--class-counts c.csv --tau=nan", "--tau 'nan'", "finite"},
      {"weights --class-counts c.csv --beta 1", "--beta '1'", "[0,1)"},
      {"bench --rows 10 --gamma 1e5", "--gamma is 100000", "[0,10000]"},
      {"bench --rows 10 --head 8 --workspace 1e-9", "--workspace", "at least 0.000001 MB"},
      {"bench --rows 10 --head 8 --workspace 0", "--workspace", "at least 0.000001 MB"},
  };
  const tool_folder folder = make_folder();
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    expect_words(&folder, cases[i].command, cases[i].said, cases[i].also);
  }
  tool_folder_remove(&folder);
}

Test(tool_words, what_goes_together) {
  static const struct {
    const char *command, *said, *also;
  } cases[] = {
      {EVAL("softmax-logit-adjusted"), "needs --class-counts and --tau, or --offsets", "softmax-logit-adjusted"},
      {EVAL("softmax-logit-adjusted") "--tau 1", "--tau needs", "--class-counts"},
      {EVAL("softmax-logit-adjusted") "--class-counts c.csv", "--class-counts needs", "--beta or --tau"},
      {EVAL("softmax-logit-adjusted") "--class-counts c.csv --tau 1 --offsets o.npy", "--offsets and --tau", "one"},
      {EVAL("softmax-ldam") "--max-margin 0.5", "--max-margin needs", "--class-counts"},
      {EVAL("softmax-ldam") "--empty-classes excluded", "--empty-classes needs", "--class-counts"},
      {EVAL("softmax-ldam") "--class-counts c.csv --empty-classes none", "--empty-classes none", "one, excluded"},
      {EVAL("softmax-seesaw") "--class-counts c.csv --empty-classes one", "--empty-classes does not belong", "seesaw"},
      {EVAL("softmax-logit-adjusted") "--class-counts c.csv --beta .9 --offsets o.npy --empty-classes one",
       "--empty-classes with softmax-logit-adjusted needs", "--tau"},
      {EVAL("softmax-ldam") "--ldam-scale 0", "--ldam-scale", "[1e-6,1e6]"},
      {EVAL("softmax-ce") "--class-counts c.csv --max-margin 1", "--max-margin does not belong", "softmax-ce"},
      {EVAL("softmax-ce") "--class-counts c.csv --tau 1", "--tau does not belong", "softmax-ce"},
      {EVAL("softmax-focal") "--offsets o.npy", "--offsets does not belong", "softmax-focal"},
      {EVAL("softmax-ce") "--class-counts c.csv", "--class-counts needs", "--beta"},
      {EVAL("ghm-c") "--density exact --momentum .5", "--momentum with --density exact", "counts"},
      {EVAL("ghm-c") "--density exact --ghm-variant mmdet", "--ghm-variant mmdet with --density exact", "unit regions"},
      {DENSE("softmax-focal"), "softmax-focal takes --labels", "--targets"},
      {DENSE("sigmoid-ce") "--normalizer positives", "--normalizer positives with --targets", "use targets or ones"},
      {DENSE("sigmoid-ce") "--background-weight .5", "--background-weight with --targets", "--row-weights"},
      {DENSE("sigmoid-ce") "--class-counts c.csv --beta .9", "--class-counts with --targets", "no class"},
      {EVAL("sigmoid-ce") "--ignore=-1", "--ignore is -1", "--background"},
      {EVAL("sigmoid-ce") "--background=-2", "--ignore is -2", "--background"},
      {"eval --device cpu --loss sigmoid-ce --logits x.npy --labels bad.npy", "--labels: label of row 7 is 99",
       "--ignore -2"},
      {EVAL("sigmoid-ce") "--device cpu --first-label=9223372036854775807", "--labels: label of row",
       "9223372036854775807"},
      {EVAL("sigmoid-focal") "--gamma 1 --gamma 2", "--gamma is given twice", "--help"},
      {EVAL("sigmoid-focal") "--loss sigmoid-ce", "--loss is given twice", "--help"},
      {"weights --class-counts c.csv --beta .9 --beta .9", "--beta is given twice", "--help"},
      {"bench --rows 10 --rows 20", "--rows is given twice", "--help"},
      {EVAL("sigmoid-focal") "--bogus 3", "unrecognized option '--bogus'", "--help"},
      {EVAL("sigmoid-focal") "--gama 3", "unrecognized option '--gama'", "did you mean --gamma?"},
      {EVAL("sigmoid-focl"), "--loss sigmoid-focl", "did you mean sigmoid-focal?"},
      {EVAL("focal"), "--loss focal", "did you mean sigmoid-focal?"},
      {EVAL("sigmoid-ce") "--device cdua", "--device cdua", "did you mean cuda?"},
      {"bench --tread 3", "unrecognized option '--tread'", "did you mean --threads?"},
      {"weigths", "'weigths' is not a verb", "did you mean weights?"},
      {EVAL("sigmoid-ce") "--layout nchw", "--layout nchw needs --classes", "channel"},
      {EVAL("sigmoid-ce") "--classes 3", "--classes goes with --layout", "nhwc"},
      {EVAL("sigmoid-ce") "--layout nhwc --classes 3 --hard-negatives 3 --images 2", "--images with --layout nhwc",
       "shape"},
      {EVAL("sigmoid-ce") "--layout nhwc --classes 3", "found shape", "expected four axes with --layout nhwc"},
  };
  const tool_folder folder = make_folder();
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    expect_words(&folder, cases[i].command, cases[i].said, cases[i].also);
  }
  tool_folder_remove(&folder);
}

Test(tool_words, a_workspace_that_is_too_small) {
  const tool_folder folder = make_folder();
  const char *const command = "bench --rows 10 --classes 3 --device cpu --head 8 --workspace 0.0001";
  tool_shell(&folder, "\"$TARE\" %s", command);
  char *err = tool_text(&folder, "err");
  if (strstr(err, "CBLAS") != NULL || strstr(err, "cblas") != NULL) cr_skip_test("no CBLAS: %s", err);
  expect_words(&folder, command, "--workspace has 100 bytes", "needs at least");
  free(err);
  tool_folder_remove(&folder);
}

/* Numbers are decimal and finite; whole ones are whole, and do not wrap. */
Test(tool_words, numbers) {
  static const char *const reals[] = {"nan",   "inf",    "-inf",   "0x10", "''",    "' 2'",  "'2 '",     "1e",
                                      "1e400", "-1e400", "1e-400", "2,5",  "1_000", "1.5.2", "infinity", "'nan(1)'"};
  static const char *const wholes[] = {"1e2",
                                       "3.5",
                                       "0x10",
                                       "''",
                                       "nan",
                                       "' 3'",
                                       "3x",
                                       "4294967299",
                                       "18446744073709551619",
                                       "99999999999999999999",
                                       "-4294967293"};
  const tool_folder folder = make_folder();
  char command[512];
  for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) {
    static const char *const of[][2] = {{EVAL("sigmoid-focal"), "--gamma"},
                                        {EVAL("sigmoid-focal"), "--alpha"},
                                        {EVAL("sigmoid-ce"), "--normalizer"},
                                        {EVAL("ghm-c"), "--momentum"},
                                        {"weights --class-counts c.csv", "--beta"}};
    for (size_t k = 0; k < sizeof of / sizeof *of; k++) {
      snprintf(command, sizeof command, "%s %s=%s", of[k][0], of[k][1], reals[i]);
      expect_words(&folder, command, of[k][1], "--help");
    }
  }
  for (size_t i = 0; i < sizeof wholes / sizeof *wholes; i++) {
    static const char *const of[][2] = {{EVAL("ghm-c"), "--bins"}, {EVAL("ghm-c"), "--threads"}, {"bench", "--repeat"}};
    for (size_t k = 0; k < sizeof of / sizeof *of; k++) {
      snprintf(command, sizeof command, "%s %s=%s", of[k][0], of[k][1], wholes[i]);
      expect_words(&folder, command, of[k][1], "--help");
    }
  }
  expect_words(&folder, EVAL("ghm-c") "--first-label=9223372036854775808", "--first-label",
               "expected a whole number from");
  expect_words(&folder, EVAL("ghm-r") "--targets t.npy --first-label=-4294967296", "--first-label", "int32");
  tool_folder_remove(&folder);
}

/* The library takes row weights in f32: no f64 becomes inf, or 0, which would be a mask. */
Test(tool_words, row_weights_beyond_f32) {
  static const double wrong[] = {1e39, -1e300, 1e-50};
  const tool_folder folder = make_folder();
  char path[512];
  tool_file(path, sizeof path, &folder, "w.npy");
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    double weights[ROWS] = {[5] = wrong[i]};
    npy_write(path, "<f8", false, ROWS, 0, weights, sizeof weights);
    expect_words(&folder, EVAL("sigmoid-ce") "--row-weights w.npy", "--row-weights w.npy: found", "in row 5");
  }
  tool_folder_remove(&folder);
}

/* Who asked for no GPU is not told which constant of C to use instead. */
Test(tool_words, devices) {
  const tool_folder folder = make_folder();
  if (tool_shell(&folder, "\"$TARE\" info --json | grep -q 'built without CUDA'") != 0) {
    tool_folder_remove(&folder);
    cr_skip_test("the tool is built with CUDA");
  }
  tool_shell(&folder, "\"$TARE\" info; \"$TARE\" info --json");
  char *out = tool_text(&folder, "out");
  cr_assert_null(strstr(out, "TARE_DEVICE"), "%s", out);
  cr_assert_null(strstr(out, "->"), "%s", out);
  free(out);
  expect_words(&folder, EVAL("ghm-c") "--device cuda", "built without CUDA", "--device cpu");
  expect_words(&folder, "bench --rows 10 --device cuda", "built without CUDA", "--device cpu");
  expect_words(&folder, "demo --device cuda", "built without CUDA", "--device cpu");
  tool_folder_remove(&folder);
}

/** Targets as the library takes them: a little beyond [0,1] is clamped, more is refused by row and class. */
Test(tool_words, targets) {
  const tool_folder folder = make_folder();
  char path[512];
  double targets[ROWS * CLASSES] = {[0] = 1 + 1e-7};
  tool_file(path, sizeof path, &folder, "close.npy");
  npy_write(path, "<f8", false, ROWS, CLASSES, targets, sizeof targets);
  cr_assert_eq(tool_shell(&folder, "\"$TARE\" eval --loss sigmoid-ce --logits x.npy --targets close.npy"), 0);
  targets[4 * CLASSES + 2] = 1.5;
  tool_file(path, sizeof path, &folder, "far.npy");
  npy_write(path, "<f8", false, ROWS, CLASSES, targets, sizeof targets);
  expect_words(&folder, "eval --loss sigmoid-ce --logits x.npy --targets far.npy --grad-out g.npy",
               "--targets: target of row 4", "1.5");
  cr_assert_neq(tool_shell(&folder, "test -e g.npy"), 0);
  tool_folder_remove(&folder);
}
