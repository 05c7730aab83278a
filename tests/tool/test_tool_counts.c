/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counts per class in files: every number is read as what it is, whole or real, and every other text is refused with
 * its line and field. No count is dropped, cut, or given to another class.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "oracle.h"
#include "support/answer.h"
#include "support/compare.h"
#include "support/npy.h"
#include "support/tool.h"

enum { MOST = 8, PATH_BYTES = 512 };

TestSuite(tool_counts, .init = tool_use_built);

static void write_bytes(const char *path, const void *bytes, size_t length) {
  FILE *file = fopen(path, "wb");
  cr_assert_not_null(file);
  cr_assert_eq(fwrite(bytes, 1, length, file), length);
  cr_assert_eq(fclose(file), 0);
}

static void check_weights(const tool_answer *answer, int count, const double *counts, const char *what) {
  double want[MOST];
  char path[64];
  cr_assert_eq(answer->status, 0, "%s: exit %d: %s", what, answer->status, answer->err);
  answer_json *json = answer_read(answer->out);
  oracle_class_balanced_real(count, counts, 0.9, NULL, want);
  cr_assert_eq(answer_count(json, "weights"), (size_t)count, "%s: %s", what, answer->out);
  for (int c = 0; c < count; c++) {
    snprintf(path, sizeof path, "counts.%d", c);
    cr_assert_eq(answer_number(json, path), counts[c], "%s: class %d: %s", what, c, answer->out);
    snprintf(path, sizeof path, "weights.%d", c);
    CHECK_NEAR(what, answer_number(json, path), want[c], ((tolerance){1e-45, 1e-7}));
  }
  answer_free(json);
}

static void expect_read(const char *text, int count, const double *counts) {
  const tool_folder folder = tool_folder_make();
  char path[PATH_BYTES];
  tool_file(path, sizeof path, &folder, "counts.csv");
  write_bytes(path, text, strlen(text));
  tool_answer answer = tool_run(&folder, 0, "weights --class-counts %s --beta 0.9 --json", path);
  check_weights(&answer, count, counts, text);
  tool_answer_free(&answer);
  tool_folder_remove(&folder);
}

static void expect_refused(const char *text, size_t length, const char *said) {
  const tool_folder folder = tool_folder_make();
  char path[PATH_BYTES], out[PATH_BYTES];
  tool_file(path, sizeof path, &folder, "counts.csv");
  tool_file(out, sizeof out, &folder, "weights.npy");
  write_bytes(path, text, length);
  tool_answer answer = tool_run(&folder, 0, "weights --class-counts %s --beta 0.9 --out %s", path, out);
  cr_assert_eq(answer.status, 1, "'%s': exit %d: %s%s", text, answer.status, answer.out, answer.err);
  cr_assert_str_eq(answer.out, "", "'%s'", text);
  cr_assert_not_null(strstr(answer.err, said), "'%s': '%s' is not in: %s", text, said, answer.err);
  cr_assert_not_null(strstr(answer.err, path), "'%s': %s", text, answer.err);
  tool_folder_expect_only(&folder, (const char *[]){"counts.csv", "stdout", "stderr", NULL}, text);
  tool_answer_free(&answer);
  tool_folder_remove(&folder);
}

/* ---- What is read ---------------------------------------------------------------------------------------------- */

Test(tool_counts, the_first_count_is_no_heading) {
  static const char *const firsts[] = {"1000",
                                       "\xef\xbb\xbf"
                                       "1000",
                                       "1e3",
                                       "1000.0",
                                       "1000.",
                                       "+1000",
                                       "1E+03",
                                       " 1000 ",
                                       "\"1000\"",
                                       "\" 1000 \"",
                                       "0.1e4"};
  for (size_t i = 0; i < sizeof firsts / sizeof *firsts; i++) {
    char text[64];
    snprintf(text, sizeof text, "%s\n90\n", firsts[i]);
    expect_read(text, 2, (const double[]){1000, 90});
  }
  expect_read("9223372036854775808\n1\n", 2, (const double[]){0x1p63, 1});
  expect_read("9223372036854775807\n1\n", 2, (const double[]){0x1p63, 1});
  expect_read("1e308\n1e-300\n0\n", 3, (const double[]){1e308, 1e-300, 0});
  expect_read(".5\n2.25\n", 2, (const double[]){0.5, 2.25});
}

Test(tool_counts, headings_quotes_and_line_ends) {
  const double want[] = {5, 6.5};
  static const char *const texts[] = {
      "count\n5\n6.5\n",
      "\xef\xbb\xbf"
      "id,count\r\n1,5\r\n2,6.5\r\n",
      "id,count\r1,5\r2,6.5\r",
      "name,number of boxes\n\"a, b\",5\n\"c\nd\",6.5",
      "Klasse,H\xc3\xa4ufigkeit\nx,5\ny,6.5\n\n\n",
      "class,info\n3,5\n17,6.5\n",
      ",id,count\n0,4,5\n1,9,6.5\n",
  };
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) expect_read(texts[i], 2, want);
}

Test(tool_counts, long_fields_are_not_cut) {
  char text[8192];
  memset(text, '0', sizeof text);
  memcpy(text, "12.5", 4);
  memcpy(text + 1000, "\n7\n", 4);
  expect_read(text, 2, (const double[]){12.5, 7});
  memset(text, '0', sizeof text);
  memcpy(text + 70, "9\n7\n", 5); /* 64 characters of it are a 0 */
  expect_read(text, 2, (const double[]){9, 7});
  memset(text, 'x', sizeof text);
  memcpy(text + 5000, ",5\ny,7\n", 8);
  expect_read(text, 2, (const double[]){5, 7});
}

Test(tool_counts, npy_of_whole_and_real_numbers) {
  const tool_folder folder = tool_folder_make();
  const double want[] = {1169, 90, 0, 28}, real[] = {0.5, 1e-30, 0, 1e300};
  const int32_t i4[] = {1169, 90, 0, 28};
  const int64_t i8[] = {1169, 90, 0, 28};
  const float f4[] = {1169, 90, 0, 28};
  const struct {
    const char *type;
    const void *data;
    size_t size;
    const double *want;
  } arrays[] = {
      {"<i4", i4, 4, want}, {"<i8", i8, 8, want}, {"<f4", f4, 4, want}, {"<f8", want, 8, want}, {"<f8", real, 8, real}};
  char path[PATH_BYTES];
  tool_file(path, sizeof path, &folder, "counts.npy");
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
    npy_write(path, arrays[i].type, false, 4, 0, arrays[i].data, 4 * arrays[i].size);
    tool_answer answer = tool_run(&folder, 0, "weights --class-counts %s --beta 0.9 --json", path);
    check_weights(&answer, 4, arrays[i].want, arrays[i].type);
    tool_answer_free(&answer);
  }
  tool_folder_remove(&folder);
}

/* Real counts weigh the classes of an evaluation too. */
Test(tool_counts, an_evaluation_takes_real_counts) {
  const tool_folder folder = tool_folder_make();
  char logits[PATH_BYTES], labels[PATH_BYTES], counts[PATH_BYTES];
  const float x[2] = {0, 0};
  const int32_t y[1] = {1};
  tool_file(logits, sizeof logits, &folder, "logits.npy");
  tool_file(labels, sizeof labels, &folder, "labels.npy");
  tool_file(counts, sizeof counts, &folder, "counts.csv");
  npy_write(logits, "<f4", false, 1, 2, x, sizeof x);
  npy_write(labels, "<i4", false, 1, 0, y, sizeof y);
  write_bytes(counts, "0.5\n12.25\n", 10);
  tool_answer answer =
      tool_run(&folder, 0, "eval --loss sigmoid-ce --logits %s --labels %s --class-counts %s --beta 0.9 --json", logits,
               labels, counts);
  cr_assert_eq(answer.status, 0, "%s", answer.err);
  answer_json *json = answer_read(answer.out);
  double want[2];
  oracle_class_balanced_real(2, (const double[]){0.5, 12.25}, 0.9, NULL, want);
  CHECK_NEAR("loss", answer_number(json, "loss"), 2 * log(2) * want[1], ((tolerance){0, 1e-6}));
  answer_free(json);
  tool_answer_free(&answer);
  tool_folder_remove(&folder);
}

/* ---- What is refused ------------------------------------------------------------------------------------------- */

Test(tool_counts, texts_that_are_no_counts) {
  static const char *const texts[] = {"nan",
                                      "NaN",
                                      "inf",
                                      "-inf",
                                      "Infinity",
                                      "-1",
                                      "-0.5",
                                      "",
                                      "0x10",
                                      "1e400",
                                      "1e-400",
                                      "1_000",
                                      "1 000",
                                      "\"1,000\"",
                                      "1.5.2",
                                      "1e",
                                      "e5",
                                      "l000",
                                      "5x",
                                      "n/a",
                                      "null",
                                      "-",
                                      "#",
                                      "(5)",
                                      "count 5",
                                      "1;5",
                                      "5%",
                                      "\xc2\xa0"
                                      "5",
                                      "\xd9\xa3"};
  char text[128];
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    snprintf(text, sizeof text, "a,%s\nb,5\n", texts[i]);
    expect_refused(text, strlen(text), "line 1: field 2: found");
    snprintf(text, sizeof text, "name,count\na,5\nb,%s\nc,7\n", texts[i]);
    expect_refused(text, strlen(text), "line 3: field 2: found");
  }
  expect_refused("5\n6\0007\n", 6, "line 2: field 1: found '6?7'");
  expect_refused("count\n5\ncount\n", 14, "line 3: field 1: found 'count'");
  expect_refused("a,\"1\n2\"\nb,7\n", 12, "line 2: field 2"); /* a line break inside quotes is a line */
}

Test(tool_counts, lines_that_are_no_rows) {
  static const struct {
    const char *text, *said;
  } cases[] = {
      {"5\n\n6\n", "line 2: is empty"},
      {"\n5\n6\n", "line 1: is empty"},
      {"5\n \t\n6\n", "line 2: is empty"},
      {"a,5\nb,x,6\n", "line 2: found 3 fields, expected 2"},
      {"1,2,3,4\n", "one line of 4 numbers"},
      {"5\n\"6\n", "line 2: "},
      {"5\n6\"\n", "line 2: "},
      {"", "no counts"},
      {"\xef\xbb\xbf", "no counts"},
      {"count\n", "no counts"},
      {"0\n0.0\n-0\n", "every count is 0"},
      {"\xff\xfe"
       "5",
       "UTF-16"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    expect_refused(cases[i].text, strlen(cases[i].text), cases[i].said);
  }
}

Test(tool_counts, ids_out_of_order) {
  static const struct {
    const char *text, *said;
  } cases[] = {
      {"id,name,count\n2,b,90\n1,a,1169\n", "line 3: field 1: found class id '1' after 2"},
      {"id,count\n1,5\n1,6\n", "line 3: field 1: found class id '1' after 1"},
      {"0,5\n2,6\n1,7\n", "line 3: field 1: found class id '1' after 2"},
      {"name,category_id,count\na,7,5\nb,3,6\n", "line 3: field 2: found class id '3' after 7"},
      {",id,count\n0,5,1\n1,4,1\n", "line 3: field 2: found class id '4' after 5"},
      {"id,count\n1,5\nx,6\n", "line 3: field 1: found 'x', expected a class id"},
      {"id,count\n1,5\n,6\n", "line 3: field 1: found '', expected a class id"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    expect_refused(cases[i].text, strlen(cases[i].text), cases[i].said);
  }
}

Test(tool_counts, npy_of_what_is_no_count) {
  const tool_folder folder = tool_folder_make();
  const double wrong[] = {NAN, INFINITY, -1, -1e-300};
  char path[PATH_BYTES];
  tool_file(path, sizeof path, &folder, "counts.npy");
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    const double counts[] = {5, wrong[i], 7};
    npy_write(path, "<f8", false, 3, 0, counts, sizeof counts);
    tool_answer answer = tool_run(&folder, 0, "weights --class-counts %s --beta 0.9", path);
    cr_assert_eq(answer.status, 1, "%g: exit %d", wrong[i], answer.status);
    cr_assert_not_null(strstr(answer.err, "class 1: found"), "%s", answer.err);
    tool_answer_free(&answer);
  }
  static const char *const types[] = {"<u4", "<u8", "|b1", "<c8", "<f2"};
  const double zeros[4] = {0};
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
    const size_t size = strcmp(types[i], "|b1") == 0 ? 1 : (size_t)(types[i][2] - '0');
    npy_write(path, types[i], false, 3, 0, zeros, 3 * size);
    tool_answer answer = tool_run(&folder, 0, "weights --class-counts %s --beta 0.9", path);
    cr_assert_eq(answer.status, 1, "%s: exit %d", types[i], answer.status);
    cr_assert_not_null(strstr(answer.err, "float64"), "%s", answer.err);
    tool_answer_free(&answer);
  }
  tool_folder_remove(&folder);
}

/* The weights of the three classes add up to 3. Each class has 80 rows. */
Test(tool_counts, weights_that_divide) {
  const tool_folder folder = tool_folder_with_files();
  cr_assert_eq(tool_shell(&folder,
                          "$TARE eval --device cpu --json --loss softmax-ldam --logits x.npy --labels y.npy "
                          "--class-counts c.csv --beta 0.9 --normalizer weights"),
               0);
  char *text = tool_text(&folder, "out");
  answer_json *answer = answer_read(text);
  cr_assert_float_eq(answer_number(answer, "normalizer"), 240, 1e-4);
  cr_assert_str_eq(answer_text(answer, "normalizer_kind"), "weights");
  answer_free(answer);
  free(text);
  tool_folder_remove(&folder);
}
