/* SPDX-License-Identifier: Apache-2.0 */
/* Maps on the command line: the same numbers as [images, anchors*classes, height, width], with channels last, and as
 * rows give the same loss, and a gradient in the layout of the logits. */
#include <criterion/criterion.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/answer.h"
#include "support/npy.h"
#include "support/tool.h"

TestSuite(tool_maps, .init = tool_use_built);

enum { N = 2, A = 2, C = 3, H = 4, W = 5, ELEMENTS = N * A * C * H * W, ROWS = N * A * H * W };

/* A .npy file with any number of axes; what support/npy.h writes has one or two. */
static void write_array(const tool_folder *folder, const char *name, const char *type, const char *shape,
                        const void *data, size_t bytes) {
  char path[512], header[118];
  tool_file(path, sizeof path, folder, name);
  const int length =
      snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", type, shape);
  FILE *file = fopen(path, "wb");
  cr_assert_not_null(file);
  fprintf(file, "%cNUMPY%c%c%c%c%s%*s\n", 0x93, 1, 0, 118, 0, header, 117 - length, "");
  cr_assert_eq(fwrite(data, 1, bytes, file), bytes);
  cr_assert_eq(fclose(file), 0);
}

/* Logits in three layouts; the index of an element in rows, and of the same element in NCHW. */
static float rows[ELEMENTS], nchw[ELEMENTS];
static size_t place_in_nchw(size_t element) {
  const size_t c = element % C, a = element / C % A, x = element / (C * A) % W, y = element / (C * A * W) % H;
  const size_t n = element / (C * A * W * H);
  return ((n * A * C + a * C + c) * H + y) * W + x;
}

static tool_folder folder_with_maps(void) {
  static int32_t labels[2 * ROWS];
  static float joined[2 * ELEMENTS];
  const tool_folder folder = tool_folder_make();
  for (size_t i = 0; i < ELEMENTS; i++) nchw[place_in_nchw(i)] = rows[i] = (float)(i * 37 % 101) / 20 - 3;
  for (int32_t i = 0; i < ROWS; i++) labels[i] = labels[i + ROWS] = i * 7 % (C + 2) - 2;
  for (size_t i = 0; i < ELEMENTS; i++) joined[i] = joined[i + ELEMENTS] = rows[i];
  write_array(&folder, "joined.npy", "<f4", "160, 3", joined, sizeof joined);
  write_array(&folder, "all.npy", "<i4", "160,", labels, sizeof labels);
  write_array(&folder, "rows.npy", "<f4", "80, 3", rows, sizeof rows);
  write_array(&folder, "nchw.npy", "<f4", "2, 6, 4, 5", nchw, sizeof nchw);
  write_array(&folder, "nhwc.npy", "<f4", "2, 4, 5, 6", rows, sizeof rows);
  write_array(&folder, "other.npy", "<f4", "1, 6, 4, 10", nchw, sizeof nchw);
  write_array(&folder, "flat.npy", "<i4", "80,", labels, sizeof labels / 2);
  write_array(&folder, "y.npy", "<i4", "2, 4, 5, 2", labels, sizeof labels / 2);
  write_array(&folder, "wrong.npy", "<i4", "2, 2, 4, 5", labels, sizeof labels / 2);
  return folder;
}

#define EVAL "$TARE eval --device cpu --loss sigmoid-focal "

/* The bytes behind the header, and the header. */
static const char *data_of(const tool_folder *folder, const char *name, const char *shape) {
  char path[512];
  tool_file(path, sizeof path, folder, name);
  FILE *file = fopen(path, "rb");
  cr_assert_not_null(file, "%s", name);
  static char bytes[128 + ELEMENTS * 4];
  cr_assert_geq(fread(bytes, 1, sizeof bytes, file), 128, "%s", name);
  fclose(file);
  cr_assert_not_null(strstr(bytes + 10, shape), "%s: %.100s", name, bytes + 10);
  return bytes + 128;
}

Test(tool_maps, the_same_in_every_layout) {
  static float want[ELEMENTS], found[ELEMENTS];
  const tool_folder folder = folder_with_maps();
  cr_assert_eq(tool_shell(&folder, EVAL "--logits rows.npy --labels flat.npy --grad-out a.npy"), 0);
  memcpy(want, data_of(&folder, "a.npy", "(80, 3)"), sizeof want);
  static const char *const layouts[] = {"--layout nchw --classes 3 --logits nchw.npy --labels y.npy",
                                        "--layout nhwc --classes 3 --logits nhwc.npy --labels flat.npy"};
  for (int i = 0; i < 2; i++) {
    cr_assert_eq(tool_shell(&folder, EVAL "%s --grad-out b.npy --row-loss-out r.npy", layouts[i]), 0, "%s", layouts[i]);
    memcpy(found, data_of(&folder, "b.npy", i ? "(2, 4, 5, 6)" : "(2, 6, 4, 5)"), sizeof found);
    for (size_t e = 0; e < ELEMENTS; e++)
      cr_assert_eq(found[i ? e : place_in_nchw(e)], want[e], "%s: element %zu", layouts[i], e);
    data_of(&folder, "r.npy", "(2, 4, 5, 2)");
  }
  tool_folder_remove(&folder);
}

/* Levels give what their rows give, level after level: labels in one file, or in one for each. */
Test(tool_maps, levels) {
  const tool_folder folder = folder_with_maps();
  static const char *const ways[] = {
      "--logits joined.npy --labels all.npy",
      "--layout nchw --classes 3 --logits nchw.npy --logits nchw.npy --labels all.npy",
      "--layout nhwc --classes 3 --logits nhwc.npy --labels y.npy --logits nhwc.npy --labels flat.npy",
      "--logits rows.npy --logits rows.npy --labels flat.npy --labels flat.npy"};
  double loss[4], norm[4];
  for (int i = 0; i < 4; i++) {
    cr_assert_eq(tool_shell(&folder, EVAL "%s --json", ways[i]), 0, "%s", ways[i]);
    char *text = tool_text(&folder, "out");
    answer_json *found = answer_read(text);
    loss[i] = answer_number(found, "loss");
    norm[i] = answer_number(found, "grad_l1");
    cr_assert_eq(answer_number(found, "rows"), 2 * ROWS);
    cr_assert(loss[i] == loss[0] && norm[i] == norm[0], "%s: %.17g, not %.17g", ways[i], loss[i], loss[0]);
    answer_free(found);
    free(text);
  }
  tool_expect_refused(&folder, EVAL "--logits rows.npy --logits rows.npy --labels all.npy --grad-out g.npy", 2,
                      "--grad-out goes with one --logits");
  tool_expect_refused(&folder, EVAL "--logits rows.npy --labels flat.npy --labels flat.npy", 2,
                      "--labels is given twice");
  tool_expect_refused(&folder, EVAL "--logits rows.npy --logits rows.npy --labels flat.npy", 1, "expected 160");
  tool_expect_refused(&folder, EVAL "--logits rows.npy --logits nhwc.npy --labels all.npy", 1, "--layout nchw");
  tool_folder_remove(&folder);
}

Test(tool_maps, maps_without_elements) {
  const tool_folder folder = folder_with_maps();
  write_array(&folder, "none.npy", "<f4", "0, 6, 1099511627776, 1099511627776", rows, 0);
  write_array(&folder, "y0.npy", "<i4", "0,", rows, 0);
  cr_assert_eq(tool_shell(&folder, EVAL "--logits none.npy --labels y0.npy --layout nchw --classes 3"), 0);
  tool_folder_remove(&folder);
}

Test(tool_maps, shapes_that_are_not_maps) {
  const tool_folder folder = folder_with_maps();
  tool_expect_refused(&folder, EVAL "--logits nchw.npy --labels y.npy", 1, "--layout nchw --classes C");
  tool_expect_refused(&folder, EVAL "--logits nchw.npy --labels wrong.npy --layout nchw --classes 3", 1,
                      "expected (images, height, width, anchors), here (2, 4, 5, 2)");
  tool_expect_refused(&folder, EVAL "--logits nchw.npy --labels y.npy --layout nchw --classes 4", 1,
                      "found 6 channels, expected a multiple of --classes 4");
  tool_expect_refused(&folder, EVAL "--logits nchw.npy --targets other.npy --layout nchw --classes 3", 1,
                      "not that of the logits");
  tool_folder_remove(&folder);
}
