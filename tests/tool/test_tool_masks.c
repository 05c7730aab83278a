/* SPDX-License-Identifier: Apache-2.0 */
/* `tare mask`: its losses, sums and gradient are the oracle's; what it refuses. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "oracle/masks.h"
#include "support/answer.h"
#include "support/npy.h"
#include "support/random.h"
#include "support/tool.h"

enum { MASKS = 3, PIXELS = 50, ALL = MASKS * PIXELS, PATH_BYTES = 512 };

TestSuite(tool_masks, .init = tool_use_built);

#define MASK(options) "\"$TARE\" mask --logits x.npy --targets t.npy " options

static double x[ALL], t[ALL];

static void write_arrays(const tool_folder *folder) {
  float narrow[2][ALL];
  char path[PATH_BYTES];
  random_source random = random_from(3);
  for (int i = 0; i < ALL; i++) {
    x[i] = narrow[0][i] = (float)random_normal(&random);
    t[i] = narrow[1][i] = random_below(&random, 2) != 0;
  }
  for (int k = 0; k < 2; k++) {
    tool_file(path, sizeof path, folder, k ? "t.npy" : "x.npy");
    npy_write(path, "<f4", false, MASKS, PIXELS, narrow[k], sizeof narrow[k]);
  }
}

static void check_near(const char *what, double found, double wanted) {
  cr_assert(fabs(found - wanted) <= 1e-5 * fabs(wanted), "%s is %.9g, not %.9g", what, found, wanted);
}

Test(tool_masks, losses_and_gradient) {
  const tool_folder folder = tool_folder_make();
  const struct oracle_mask_setting setting = {0.3, 0.7, 0.75, 0.5, 0.5, 0.25, 2, 1};
  char path[PATH_BYTES];
  double overlap = 0, focal = 0, by_x[ALL], focal_by_x[ALL];
  write_arrays(&folder);
  cr_assert_eq(tool_shell(&folder, MASK("--false-positive-weight 0.3 --false-negative-weight=0.7 --exponent 0.75 "
                                        "--focal-weight 20 --squared --normalizer masks --device cpu "
                                        "--gradient g.npy --json")),
               0);
  char *text = tool_text(&folder, "out");
  answer_json *json = answer_read(text);
  cr_assert_str_eq(answer_text(json, "command.1"), "mask");
  for (int mask = 0; mask < MASKS; mask++) {
    const int at = mask * PIXELS;
    struct oracle_mask o = {.overlap_by_x = by_x + at, .focal_by_x = focal_by_x + at};
    oracle_mask(PIXELS, x + at, t + at, NULL, &setting, &o);
    overlap += o.overlap / MASKS;
    focal += o.focal / MASKS;
    snprintf(path, sizeof path, "masks.%d.true_positives", mask);
    check_near(path, answer_number(json, path), o.true_positives);
  }
  check_near("loss", answer_number(json, "loss"), overlap + 20 * focal);
  check_near("overlap_loss", answer_number(json, "overlap_loss"), overlap);
  check_near("focal_loss", answer_number(json, "focal_loss"), focal);
  tool_file(path, sizeof path, &folder, "g.npy");
  npy_array gradient = npy_read(path);
  for (size_t i = 0; i < ALL; i++) {
    const double wanted = (by_x[i] + 20 * focal_by_x[i]) / MASKS;
    cr_assert(fabs(npy_number(&gradient, i) - wanted) < 1e-6, "%zu: %g", i, wanted);
  }
  npy_free(&gradient);
  answer_free(json);
  free(text);
  tool_folder_remove(&folder);
}

/* Targets of u1 with an ignored value, pixels left out, and weights of masks are those of f4 targets without them. */
Test(tool_masks, valid_pixels_and_weights) {
  const tool_folder folder = tool_folder_make();
  const struct oracle_mask_setting setting = {0.5, 0.5, 1, 0.5, 0.5, 0.25, 2, 0};
  const float weights[MASKS] = {1, -2, 0.5F};
  uint8_t bytes[ALL], given[ALL], counted[ALL];
  char path[PATH_BYTES];
  double wanted = 0;
  write_arrays(&folder);
  for (int i = 0; i < ALL; i++) {
    bytes[i] = i % 7 ? (uint8_t)t[i] : 9;
    given[i] = i % 5 != 0;
    counted[i] = i % 7 && given[i];
  }
  tool_file(path, sizeof path, &folder, "u.npy");
  npy_write(path, "|u1", false, MASKS, PIXELS, bytes, sizeof bytes);
  tool_file(path, sizeof path, &folder, "v.npy");
  npy_write(path, "|b1", false, MASKS, PIXELS, given, sizeof given);
  tool_file(path, sizeof path, &folder, "w.npy");
  npy_write(path, "<f4", false, MASKS, 0, weights, sizeof weights);
  cr_assert_eq(tool_shell(&folder,
                          "\"$TARE\" mask --logits x.npy --targets u.npy --ignore-target 9 --valid v.npy "
                          "--weights w.npy --device cpu --json"),
               0);
  for (int mask = 0; mask < MASKS; mask++) {
    struct oracle_mask o = {0};
    oracle_mask(PIXELS, x + mask * PIXELS, t + mask * PIXELS, counted + mask * PIXELS, &setting, &o);
    wanted += weights[mask] * o.overlap;
  }
  char *text = tool_text(&folder, "out");
  answer_json *json = answer_read(text);
  check_near("loss", answer_number(json, "loss"), wanted);
  answer_free(json);
  free(text);
  tool_expect_refused(&folder, "\"$TARE\" mask --logits x.npy --targets u.npy", 1, "target of pixel");
  tool_expect_refused(&folder, MASK("--ignore-target 9"), 2, "u1 targets");
  tool_expect_refused(&folder, MASK("--ignore-target 1"), 2, "--ignore-target");
  tool_expect_refused(&folder, MASK("--valid x.npy"), 1, "expected uint8 or bool");
  tool_expect_refused(&folder, MASK("--weights x.npy"), 1, "one axis");
  tool_folder_remove(&folder);
}

Test(tool_masks, what_is_refused) {
  const tool_folder folder = tool_folder_make();
  write_arrays(&folder);
  tool_expect_refused(&folder, "\"$TARE\" mask --targets t.npy", 2, "--logits is missing");
  tool_expect_refused(&folder, "\"$TARE\" mask --logits x.npy", 2, "--targets is missing");
  tool_expect_refused(&folder, MASK("--exponent a"), 2, "--exponent");
  tool_expect_refused(&folder, MASK("--exponent 0"), 1, "exponent is 0");
  tool_expect_refused(&folder, MASK("--normalizer rows"), 2, "--normalizer");
  tool_expect_refused(&folder, "\"$TARE\" mask --logits x.npy --targets x.npy", 1, "target of pixel");
  tool_folder_remove(&folder);
}
