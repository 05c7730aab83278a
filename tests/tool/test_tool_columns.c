/* SPDX-License-Identifier: Apache-2.0 */
/* Weights and parameters of classes on the command line. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/answer.h"
#include "support/npy.h"
#include "support/tool.h"

enum { PATH_BYTES = 512, MOST_CLASSES = 4096 };

TestSuite(tool_columns, .init = tool_use_built);

#define EVAL "$TARE eval --loss %s --device cpu --logits x.npy --labels y.npy --json %s"

/* NAME.npy: `value` for each class of x.npy, as f4 or f8. */
static void write_vector(const tool_folder *folder, const char *name, double value, bool wide) {
  static double numbers[MOST_CLASSES];
  static float narrow[MOST_CLASSES];
  char path[PATH_BYTES];
  tool_file(path, sizeof path, folder, "x.npy");
  npy_array logits = npy_read(path);
  const int64_t classes = logits.shape[1];
  cr_assert(classes <= MOST_CLASSES);
  for (int64_t c = 0; c < classes; c++) numbers[c] = narrow[c] = (float)value;
  tool_file(path, sizeof path, folder, name);
  if (wide)
    npy_write(path, "<f8", false, classes, 0, numbers, (size_t)classes * sizeof *numbers);
  else
    npy_write(path, "<f4", false, classes, 0, narrow, (size_t)classes * sizeof *narrow);
  npy_free(&logits);
}

static double number_of(const tool_folder *folder, const char *loss, const char *options, const char *name) {
  cr_assert_eq(tool_shell(folder, EVAL, loss, options), 0, "%s %s", loss, options);
  char *text = tool_text(folder, "out");
  answer_json *json = answer_read(text);
  const double value = answer_number(json, name);
  answer_free(json);
  free(text);
  return value;
}

static double loss_of(const tool_folder *folder, const char *loss, const char *options) {
  return number_of(folder, loss, options, "loss");
}

static void expect_equal(const tool_folder *folder, const char *loss, const char *one, const char *other,
                         double factor) {
  const double found = loss_of(folder, loss, one), wanted = factor * loss_of(folder, loss, other);
  cr_assert(fabs(found - wanted) <= 1e-6 * fabs(wanted), "%s: %s gives %.9g, %s %.9g", loss, one, found, other, wanted);
}

/* A vector of one number is the option of that number, or a factor of the loss. */
Test(tool_columns, vectors_of_one_number) {
  const tool_folder folder = tool_folder_with_files();
  write_vector(&folder, "one.npy", 1, false);
  write_vector(&folder, "three.npy", 3, true);
  write_vector(&folder, "fifth.npy", 0.2, false);
  expect_equal(&folder, "sigmoid-focal", "--gamma-per-class three.npy", "--gamma 3", 1);
  expect_equal(&folder, "sigmoid-focal", "--alpha-per-class fifth.npy", "--alpha 0.2", 1);
  expect_equal(&folder, "sigmoid-ce", "--positive-weights three.npy --negative-weights three.npy", "", 3);
  expect_equal(&folder, "sigmoid-focal", "--positive-weights one.npy --negative-weights one.npy", "", 1);
  expect_equal(&folder, "sigmoid-ce",
               "--positive-weights three.npy --negative-weights three.npy --background-negative-weights three.npy", "",
               3);
  cr_assert(loss_of(&folder, "sigmoid-ce", "--background-negative-weights three.npy") >
            loss_of(&folder, "sigmoid-ce", ""));
  expect_equal(&folder, "sigmoid-ce", "--positive-weights three.npy --weighting terms", "--positive-weights three.npy",
               1);
  cr_assert(loss_of(&folder, "sigmoid-ce", "--positive-weights three.npy") > loss_of(&folder, "sigmoid-ce", ""));
  expect_equal(&folder, "softmax-focal", "--alpha-per-class fifth.npy", "--alpha 0.2", 1);
  tool_folder_remove(&folder);
}

Test(tool_columns, what_is_refused) {
  const tool_folder folder = tool_folder_with_files();
  char path[PATH_BYTES];
  const float two[2] = {1, 1};
  tool_file(path, sizeof path, &folder, "two.npy");
  npy_write(path, "<f4", false, 2, 0, two, sizeof two);
#define REFUSED(loss, options) "$TARE eval --loss " loss " --device cpu --logits x.npy --labels y.npy " options
  tool_expect_refused(&folder, REFUSED("softmax-ce", "--negative-weights two.npy"), 2,
                      "--negative-weights does not belong to softmax-ce");
  tool_expect_refused(&folder, REFUSED("sigmoid-ce", "--gamma-per-class two.npy"), 2, "--gamma-per-class does not");
  tool_expect_refused(&folder, REFUSED("ghm-c", "--alpha-per-class two.npy"), 2, "--alpha-per-class does not");
  tool_expect_refused(&folder, REFUSED("sigmoid-ce", "--positive-weights two.npy"), 1, "one for each class");
  tool_expect_refused(&folder, REFUSED("sigmoid-ce", "--positive-weights x.npy"), 1, "one axis");
  tool_folder_remove(&folder);
}

/* One mask of the batch; masks of images; and what is no mask. A file of a batch has two images here. */
Test(tool_columns, class_mask) {
  const tool_folder folder = tool_folder_with_files();
  static uint8_t bytes[2 * MOST_CLASSES];
  char path[PATH_BYTES];
  tool_file(path, sizeof path, &folder, "x.npy");
  npy_array logits = npy_read(path);
  const int64_t classes = logits.shape[1];
  cr_assert(classes >= 2 && classes <= MOST_CLASSES && logits.shape[0] % 2 == 0);
  npy_free(&logits);
  for (int64_t c = 0; c < 2 * classes; c++) bytes[c] = c % classes != 1;
  tool_file(path, sizeof path, &folder, "batch.npy");
  npy_write(path, "|u1", false, classes, 0, bytes, (size_t)classes);
  tool_file(path, sizeof path, &folder, "same.npy");
  npy_write(path, "|b1", false, 2, classes, bytes, (size_t)(2 * classes));
  bytes[1] = 1;
  tool_file(path, sizeof path, &folder, "second.npy");
  npy_write(path, "|u1", false, 2, classes, bytes, (size_t)(2 * classes));
  const double whole = loss_of(&folder, "sigmoid-focal", ""),
               second = loss_of(&folder, "sigmoid-focal", "--images 2 --class-mask second.npy"),
               batch = loss_of(&folder, "sigmoid-focal", "--class-mask batch.npy");
  cr_assert(0 < batch && batch < second && second < whole, "%g, %g, %g", batch, second, whole);
  cr_assert_eq(number_of(&folder, "sigmoid-ce", "--normalizer elements --class-mask batch.npy", "normalizer"), 640);
  expect_equal(&folder, "sigmoid-focal", "--class-mask batch.npy", "--images 2 --class-mask same.npy", 1);
  expect_equal(&folder, "ghm-c", "--class-mask batch.npy", "--images 2 --class-mask same.npy", 1);
  tool_file(path, sizeof path, &folder, "short.npy");
  npy_write(path, "|u1", false, classes - 1, 0, bytes, (size_t)classes - 1);
  const char *const refused[][3] = {
      {"sigmoid-ce", "--class-mask short.npy", "expected"},
      {"sigmoid-ce", "--class-mask second.npy", "--images says how many images there are"},
      {"sigmoid-ce", "--images 2", "--images goes with --hard-negatives or --class-mask"},
      {"softmax-ce", "--class-mask batch.npy", "--class-mask"}};
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
    cr_assert_neq(tool_shell(&folder, EVAL, refused[i][0], refused[i][1]), 0, "%s", refused[i][1]);
    char *text = tool_text(&folder, "err");
    cr_assert(strstr(text, refused[i][2]), "%s: %s", refused[i][1], text);
    free(text);
  }
  tool_folder_remove(&folder);
}

#define EXCLUDED "--class-counts empty.csv --tau 1 --empty-classes excluded"

/* A class without samples: its label is an error, and the loss of others is that of offsets with -inf. */
Test(tool_columns, empty_classes) {
  enum { ROWS = 400 };
  static const float offsets[] = {-2.56494936f, -0.0800427077f, -INFINITY}; /* log 5/65, log 60/65 */
  static int32_t labels[ROWS];
  const tool_folder folder = tool_folder_with_files();
  char path[PATH_BYTES];
  cr_assert_eq(tool_shell(&folder, "printf '5\\n60\\n0\\n' >empty.csv"), 0);
  tool_file(path, sizeof path, &folder, "o.npy");
  npy_write(path, "<f4", false, 3, 0, offsets, sizeof offsets);
  tool_expect_refused(&folder, "$TARE eval --loss softmax-logit-adjusted --logits x.npy --labels y.npy " EXCLUDED, 1,
                      "a class that the loss excludes");
  for (int i = 0; i < ROWS; i++) labels[i] = i % 2;
  tool_file(path, sizeof path, &folder, "y.npy");
  npy_write(path, "<i4", false, ROWS, 0, labels, sizeof labels);
  expect_equal(&folder, "softmax-logit-adjusted", EXCLUDED, "--offsets o.npy", 1);
  const double one = loss_of(&folder, "softmax-ldam", "--class-counts empty.csv");
  cr_assert(loss_of(&folder, "softmax-ldam", "--class-counts empty.csv --empty-classes excluded") < one);
  tool_folder_remove(&folder);
}
