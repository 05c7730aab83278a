/* SPDX-License-Identifier: Apache-2.0 */
/* Sums of each class on the command line. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/answer.h"
#include "support/tool.h"

TestSuite(tool_class_sums, .init = tool_use_built);

#define EVAL(loss) "$TARE eval --loss " loss " --device cpu --logits x.npy --labels y.npy "

static double total(const answer_json *answer, const char *name) {
  char path[64];
  snprintf(path, sizeof path, "class_sums.%s", name);
  const size_t count = answer_count(answer, path);
  double sum = 0;
  cr_assert_eq((double)count, answer_number(answer, "classes"));
  for (size_t i = 0; i < count; i++) {
    snprintf(path, sizeof path, "class_sums.%s.%zu", name, i);
    sum += answer_number(answer, path);
  }
  return sum;
}

/* The classes together are the loss, its counted rows and the gradient's norm. */
Test(tool_class_sums, add_up) {
  const tool_folder folder = tool_folder_with_files();
  static const char *const losses[] = {"sigmoid-focal", "ghm-c --bins 10"};
  for (int i = 0; i < 2; i++) {
    cr_assert_eq(tool_shell(&folder, EVAL("%s") "--json --class-sums", losses[i]), 0);
    char *text = tool_text(&folder, "out");
    answer_json *answer = answer_read(text);
    const double size = total(answer, "positive_gradient") + total(answer, "negative_gradient");
    const double loss = answer_number(answer, "loss"), l1 = answer_number(answer, "grad_l1");
    cr_assert(fabs(total(answer, "loss") - loss) <= 1e-9 * loss, "%.17g", loss);
    cr_assert(fabs(size - l1) <= 1e-6 * l1, "%.17g, not %.17g", size, l1);
    cr_assert_eq(total(answer, "count"), answer_number(answer, "classes") * answer_number(answer, "counted"));
    answer_free(answer);
    free(text);
  }
  tool_folder_remove(&folder);
}

Test(tool_class_sums, are_a_table) {
  const tool_folder folder = tool_folder_with_files();
  cr_assert_eq(tool_shell(&folder, EVAL("sigmoid-ce") "--class-sums"), 0);
  char *text = tool_text(&folder, "out");
  cr_assert_not_null(strstr(text, "|gradient| of positives"), "%s", text);
  free(text);
  cr_assert_eq(tool_shell(&folder, EVAL("sigmoid-ce")), 0);
  text = tool_text(&folder, "out");
  cr_assert_null(strstr(text, "of positives"), "%s", text);
  free(text);
  tool_folder_remove(&folder);
}

Test(tool_class_sums, refusals) {
  const tool_folder folder = tool_folder_with_files();
  tool_expect_refused(&folder, EVAL("ghm-r") "--targets x.npy --class-sums", 2, "its columns are not classes");
  tool_expect_refused(&folder, "$TARE eval --loss softmax-ce --logits x.npy --targets x.npy --class-sums", 2,
                      "a row's loss belongs to no class; use --labels");
  tool_folder_remove(&folder);
}
