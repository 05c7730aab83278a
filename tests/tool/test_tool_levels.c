/* SPDX-License-Identifier: Apache-2.0 */
/* Levels on the command line: their losses and weights, and gradient norms beside a loss. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/answer.h"
#include "support/tool.h"

TestSuite(tool_levels, .init = tool_use_built);

#define ONE "--logits x.npy --labels y.npy "

static answer_json *evaluate(const tool_folder *folder, const char *loss, const char *options) {
  cr_assert_eq(tool_shell(folder, "$TARE eval --device cpu --json --loss %s %s", loss, options), 0, "%s", options);
  char *text = tool_text(folder, "out");
  answer_json *answer = answer_read(text);
  free(text);
  return answer;
}

static double number(const tool_folder *folder, const char *options, const char *path) {
  answer_json *answer = evaluate(folder, "sigmoid-focal", options);
  const double value = answer_number(answer, path);
  answer_free(answer);
  return value;
}

/* A head of the same level twice. */
Test(tool_levels, have_losses_and_weights) {
  const tool_folder folder = tool_folder_with_files();
  const double one = number(&folder, ONE, "loss");
  answer_json *answer = evaluate(&folder, "sigmoid-focal", ONE ONE "--level-weight 3 --level-weight 0.5");
  cr_assert_eq(answer_count(answer, "levels.losses"), 2);
  cr_assert_float_eq(answer_number(answer, "levels.losses.0"), 3 * one, 1e-12 * one);
  cr_assert_float_eq(answer_number(answer, "levels.losses.1"), 0.5 * one, 1e-12 * one);
  cr_assert_float_eq(answer_number(answer, "loss"), 3.5 * one, 1e-12 * one);
  cr_assert_eq(answer_number(answer, "levels.weights.1"), 0.5);
  cr_assert_eq(answer_number(answer, "levels.rows.0") * 2, answer_number(answer, "rows"));
  cr_assert_float_eq(answer_number(answer, "grad_l1"), 3.5 * number(&folder, ONE, "grad_l1"), 1e-6 * one);
  answer_free(answer);
  cr_assert_float_eq(number(&folder, ONE ONE, "levels.losses.1"), one, 1e-12 * one);
  cr_assert_float_eq(number(&folder, ONE ONE "--normalizer rows", "loss"),
                     number(&folder, ONE "--normalizer rows", "loss"), 1e-12);
  cr_assert_eq(tool_shell(&folder, "$TARE eval --device cpu --loss ghm-c " ONE ONE), 0);
  char *text = tool_text(&folder, "out");
  cr_assert(strstr(text, "Levels; the loss is the sum of theirs"), "%s", text);
  free(text);
  tool_folder_remove(&folder);
}

/* Every element that counts is in one bin. */
Test(tool_levels, gradient_norms_beside_a_loss) {
  const tool_folder folder = tool_folder_with_files();
  static const char *const inputs[] = {ONE, ONE ONE};
  for (int i = 0; i < 2; i++) {
    char options[256], path[64];
    snprintf(options, sizeof options, "%s --norm-histogram 12", inputs[i]);
    answer_json *answer = evaluate(&folder, "sigmoid-poly1", options);
    double sum = 0;
    cr_assert_eq(answer_count(answer, "norm_histogram"), 12);
    for (int bin = 0; bin < 12; bin++) {
      snprintf(path, sizeof path, "norm_histogram.%d", bin);
      sum += answer_number(answer, path);
    }
    cr_assert_eq(sum, answer_number(answer, "counted") * answer_number(answer, "classes"));
    answer_free(answer);
  }
  cr_assert_eq(tool_shell(&folder, "$TARE eval --device cpu --loss sigmoid-ce " ONE "--norm-histogram 4"), 0);
  char *text = tool_text(&folder, "out");
  cr_assert(strstr(text, "0.750 - 1.000"), "%s", text);
  free(text);
  tool_folder_remove(&folder);
}

Test(tool_levels, refusals) {
  const tool_folder folder = tool_folder_with_files();
#define REFUSED(loss, options, text) tool_expect_refused(&folder, "$TARE eval --loss " loss " " options, 2, text)
  REFUSED("sigmoid-ce", ONE "--level-weight 2", "--level-weight goes with several --logits");
  REFUSED("sigmoid-ce", ONE ONE "--level-weight 2", "--level-weight is given 1 times and --logits 2 times");
  REFUSED("sigmoid-ce", ONE ONE "--level-weight 0 --level-weight 1", "leave the level out");
  REFUSED("sigmoid-ce", ONE "--norm-histogram 0", "--norm-histogram");
  REFUSED("softmax-ce", ONE "--norm-histogram 5", "belongs to a sigmoid loss");
  REFUSED("ghm-c", ONE "--norm-histogram 5", "shows its own");
  tool_folder_remove(&folder);
}
