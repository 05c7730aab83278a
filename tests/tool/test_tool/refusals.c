/* SPDX-License-Identifier: Apache-2.0 */
/* What is wrong with a file or an option is said in one line, with nothing left behind. */
#define _GNU_SOURCE
#include <ctype.h>

#include "real_data.h"

/* ---- What is wrong with a file --------------------------------------------------------------------------------- */

enum { BAD_ROWS = 6, BAD_CLASSES = 3 };

/* Files of a small batch, and the outputs that must not appear. */
typedef struct bench_folder {
  tool_folder folder;
  char logits[PATH_BYTES], labels[PATH_BYTES], bad[PATH_BYTES], gradient[PATH_BYTES], row_loss[PATH_BYTES];
} bench_folder;

static const float some_logits[BAD_ROWS * BAD_CLASSES] = {1, 2, 3, -1, 0.5f, 7};
static const int32_t some_labels[BAD_ROWS] = {0, 1, 2, -1, -2, 0};

static bench_folder open_folder(void) {
  bench_folder f = {.folder = tool_folder_make()};
  tool_file(f.logits, PATH_BYTES, &f.folder, "logits.npy");
  tool_file(f.labels, PATH_BYTES, &f.folder, "labels.npy");
  tool_file(f.bad, PATH_BYTES, &f.folder, "bad.npy");
  tool_file(f.gradient, PATH_BYTES, &f.folder, "gradient.npy");
  tool_file(f.row_loss, PATH_BYTES, &f.folder, "row_loss.npy");
  npy_write(f.logits, "<f4", false, BAD_ROWS, BAD_CLASSES, some_logits, sizeof some_logits);
  npy_write(f.labels, "<i4", false, BAD_ROWS, 0, some_labels, sizeof some_labels);
  return f;
}

static void expect_one_line(const tool_answer *answer, int status, const char *what) {
  cr_assert_eq(answer->status, status, "%s: exit %d, want %d: %s", what, answer->status, status, answer->err);
  const char *end = strchr(answer->err, '\n');
  cr_assert(end != NULL && end != answer->err && end[1] == '\0', "%s: not one line: %s", what, answer->err);
  cr_assert_str_eq(answer->out, "", "%s: %s", what, answer->out);
}

/* Nothing but what the test put there: no output, whole or in part, and no file on the way to one. */
static void expect_no_output(const bench_folder *f, const char *what) {
  static const char *const own[] = {"logits.npy", "labels.npy", "bad.npy", "stdout", "stderr", NULL};
  tool_folder_expect_only(&f->folder, own, what);
}

static void expect_bad_file(const bench_folder *f, const char *logits, const char *labels, const char *what) {
  tool_answer answer =
      tool_run(&f->folder, 0, "eval --loss sigmoid-focal --logits %s --labels %s --grad-out %s --row-loss-out %s",
               logits, labels, f->gradient, f->row_loss);
  expect_one_line(&answer, 1, what);
  const bool named = strstr(answer.err, strcmp(logits, f->logits) == 0 ? labels : logits) != NULL;
  const bool other = strstr(answer.err, "rows") != NULL && strstr(answer.err, labels) != NULL; /* two that differ */
  cr_assert(named || other, "%s: the file is not named: %s", what, answer.err);
  expect_no_output(f, what);
  tool_answer_free(&answer);
}

static void write_bytes(const char *path, const void *bytes, size_t count) {
  FILE *file = fopen(path, "wb");
  cr_assert_not_null(file);
  cr_assert_eq(fwrite(bytes, 1, count, file), count);
  cr_assert_eq(fclose(file), 0);
}

/* The good logits with the bytes [0, size) of them, one byte changed where `at` is not negative. */
static void expect_bad_copy(const bench_folder *f, size_t size, int at, char byte, const char *what) {
  char bytes[512];
  FILE *file = fopen(f->logits, "rb");
  cr_assert_not_null(file);
  const size_t whole = fread(bytes, 1, sizeof bytes, file);
  fclose(file);
  cr_assert_eq(whole, 128 + sizeof some_logits);
  if (at >= 0) bytes[at] = byte;
  write_bytes(f->bad, bytes, size == 0 ? whole : size);
  expect_bad_file(f, f->bad, f->labels, what);
}

/* The good logits with a NUL behind their type: '<f4\0' is not '<f4'. */
static void expect_bad_type(const bench_folder *f) {
  char bytes[128 + sizeof some_logits];
  FILE *file = fopen(f->logits, "rb");
  cr_assert_not_null(file);
  cr_assert_eq(fread(bytes, 1, sizeof bytes, file), sizeof bytes);
  fclose(file);
  char *const type = memmem(bytes, 128, "<f4'", 4);
  cr_assert_not_null(type);
  memmove(type + 4, type + 3, (size_t)(bytes + 126 - (type + 3))); /* over a space before the line break */
  type[3] = 0;
  write_bytes(f->bad, bytes, sizeof bytes);
  expect_bad_file(f, f->bad, f->labels, "a NUL behind the type");
}

Test(tool, damaged_files) {
  const bench_folder f = open_folder();
  expect_bad_copy(&f, 0, 0, 'x', "no magic");
  expect_bad_copy(&f, 0, 5, 'n', "another magic");
  expect_bad_copy(&f, 0, 6, 77, "unknown version");
  expect_bad_copy(&f, 0, 10, 'x', "no dictionary");
  expect_bad_copy(&f, 0, 9, 127, "header longer than the file");
  expect_bad_copy(&f, 0, 8, 3, "header cut short");
  expect_bad_copy(&f, 3, -1, 0, "three bytes");
  expect_bad_copy(&f, 9, -1, 0, "prefix cut");
  expect_bad_copy(&f, 60, -1, 0, "header cut");
  expect_bad_copy(&f, 128, -1, 0, "no data");
  expect_bad_copy(&f, 128 + 71, -1, 0, "one byte short");
  expect_bad_type(&f);
  write_bytes(f.bad, "", 0);
  expect_bad_file(&f, f.bad, f.labels, "empty");
  expect_bad_file(&f, "/tmp", f.labels, "a folder");
  expect_bad_file(&f, "/nowhere/at/all.npy", f.labels, "missing");
  expect_bad_file(&f, f.logits, "/nowhere/at/all.npy", "missing labels");
  tool_folder_remove(&f.folder);
}

Test(tool, files_of_another_kind) {
  static const char *const logits_types[] = {"<i4", "|b1", "<c8", "|O", "<U4", ">f4", ">f8", "<f16"};
  static const char *const labels_types[] = {"<f4", ">i4", "<u4", "|i1"};
  const double wide[BAD_ROWS * BAD_CLASSES * 2] = {0};
  const bench_folder f = open_folder();
  for (size_t i = 0; i < sizeof logits_types / sizeof *logits_types; i++) {
    npy_write(f.bad, logits_types[i], false, BAD_ROWS, BAD_CLASSES, wide, sizeof some_logits);
    expect_bad_file(&f, f.bad, f.labels, logits_types[i]);
  }
  for (size_t i = 0; i < sizeof labels_types / sizeof *labels_types; i++) {
    npy_write(f.bad, labels_types[i], false, BAD_ROWS, 0, wide, sizeof some_labels);
    expect_bad_file(&f, f.logits, f.bad, labels_types[i]);
  }
  npy_write(f.bad, "<f4", true, BAD_ROWS, BAD_CLASSES, some_logits, sizeof some_logits);
  expect_bad_file(&f, f.bad, f.labels, "Fortran order");
  npy_write(f.bad, "<f4", false, BAD_ROWS * BAD_CLASSES, 0, some_logits, sizeof some_logits);
  expect_bad_file(&f, f.bad, f.labels, "one axis");
  npy_write(f.bad, "<f4", false, BAD_ROWS - 1, BAD_CLASSES, some_logits, sizeof some_logits - 12);
  expect_bad_file(&f, f.bad, f.labels, "fewer rows than labels");
  npy_write(f.bad, "<i4", false, BAD_ROWS + 1, 0, wide, 4 * (BAD_ROWS + 1));
  expect_bad_file(&f, f.logits, f.bad, "more labels than rows");
  npy_write(f.bad, "<i4", false, 2, 3, some_labels, sizeof some_labels);
  expect_bad_file(&f, f.logits, f.bad, "labels of two axes");
  tool_folder_remove(&f.folder);
}

/* A shape whose size in bytes leaves 64 bits. */
Test(tool, shapes_that_overflow) {
  const bench_folder f = open_folder();
  npy_write(f.bad, "<f4", false, INT64_C(1) << 62, 4, some_logits, sizeof some_logits);
  expect_bad_file(&f, f.bad, f.labels, "2^62 rows");
  npy_write(f.bad, "<f4", false, -6, -3, some_logits, sizeof some_logits);
  expect_bad_file(&f, f.bad, f.labels, "negative axes");
  tool_folder_remove(&f.folder);
}

Test(tool, an_invalid_label_names_its_row) {
  static const int32_t labels[BAD_ROWS] = {0, 1, 2, 3, -1, 0};
  const bench_folder f = open_folder();
  npy_write(f.bad, "<i4", false, BAD_ROWS, 0, labels, sizeof labels);
  tool_answer answer = tool_run(&f.folder, 0, "eval --loss sigmoid-ce --logits %s --labels %s --grad-out %s --json",
                                f.logits, f.bad, f.gradient);
  expect_one_line(&answer, 1, "invalid label");
  cr_assert_not_null(strstr(answer.err, "3"), "%s", answer.err);
  expect_no_output(&f, "invalid label");
  tool_answer_free(&answer);
  tool_folder_remove(&f.folder);
}

Test(tool, outputs_that_cannot_be_written) {
  const bench_folder f = open_folder();
  const char *const places[] = {"/nowhere/at/all.npy", "/proc/gradient.npy", f.folder.path};
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    tool_answer answer = tool_run(&f.folder, 0, "eval --loss sigmoid-ce --logits %s --labels %s --grad-out %s",
                                  f.logits, f.labels, places[i]);
    expect_one_line(&answer, 1, places[i]);
    cr_assert_not_null(strstr(answer.err, places[i]), "%s", answer.err);
    tool_answer_free(&answer);
  }
  tool_folder_remove(&f.folder);
}

/* The disk is full half-way: what is there of the output is taken away, and what was there before stays. */
Test(tool, a_full_disk_leaves_nothing_half_written) {
  const bench_folder f = open_folder();
  for (int before = 0; before < 2; before++) {
    if (before) write_bytes(f.gradient, "earlier", 7);
    tool_answer answer = tool_run(&f.folder, 160, "eval --loss sigmoid-ce --logits %s --labels %s --grad-out %s",
                                  f.logits, f.labels, f.gradient);
    cr_assert_eq(answer.status, 1, "%s", answer.err);
    if (!before) {
      expect_no_output(&f, "full disk");
    } else {
      struct stat entry;
      cr_assert_eq(stat(f.gradient, &entry), 0, "the earlier file is gone");
      cr_assert_eq(entry.st_size, 7, "the earlier file was written to");
    }
    tool_answer_free(&answer);
  }
  tool_folder_remove(&f.folder);
}

/* ---- Wrong usage ----------------------------------------------------------------------------------------------- */

Test(tool, wrong_usage) {
  static const char *const wrong[] = {
      "eval",
      "frobnicate",
      "eval --HANG", /* argp's own: it would sleep for an hour */
      "bench --HANG=3600",
      "eval --loss sigmoid-ce",
      "eval --loss no-such-loss --logits %s --labels %s",
      "eval --loss sigmoid-ce --labels %s",
      "eval --loss sigmoid-ce --logits %s",
      "eval --logits %s --labels %s",
      "eval --loss sigmoid-ce --logits %s --labels %s --no-such-option 3",
      "eval --loss sigmoid-focal --logits %s --labels %s --gamma two",
      "eval --loss sigmoid-focal --logits %s --labels %s --gamma 2x",
      "eval --loss sigmoid-focal --logits %s --labels %s --gamma",
      "eval --loss sigmoid-focal --logits %s --labels %s --normalizer most",
      "eval --loss sigmoid-focal --logits %s --labels %s --device tpu",
      "eval --loss sigmoid-focal --logits %s --labels %s --dtype f8",
      "eval --loss sigmoid-focal --logits %s --labels %s extra",
      "eval --loss ghm-c --logits %s --labels %s --normalizer rows",
      "eval --loss ghm-c --logits %s --labels %s --class-counts c.npy --beta 0.9",
      "eval --loss ghm-c --logits %s --labels %s --density most",
      "eval --loss ghm-c --logits %s --labels %s --ghm-variant other",
      "eval --loss ghm-c --logits %s --labels %s --bins 3.5",
      "weights",
      "weights --beta 0.9",
      "bench --loss no-such-loss",
      "bench --head 0",
      "bench --head 8 --layout nchw",
      "bench --head 8 --apart",
      "bench --head 8 --dtype f64",
      "bench --head 8 --device cpu --rows 10 --dtype f16",
      "bench --head 8 --loss ghm-r",
      "bench --workspace 3",
      "bench --head 8 --workspace=-3",
  };
  const bench_folder f = open_folder();
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    char command[4 * PATH_BYTES] = "";
    size_t used = 0;
    int paths = 0;
    for (const char *at = wrong[i]; *at != '\0'; at++) {
      if (at[0] == '%' && at[1] == 's') {
        const bool labels = paths++ == 1 || strstr(wrong[i], "--logits") == NULL;
        used += (size_t)snprintf(command + used, sizeof command - used, "%s", labels ? f.labels : f.logits);
        at++;
      } else {
        command[used++] = *at;
        command[used] = '\0';
      }
    }
    tool_answer answer = tool_run(&f.folder, 0, "%s", command);
    cr_assert_eq(answer.status, 2, "%s: exit %d: %s", command, answer.status, answer.err);
    cr_assert_neq(answer.err[0], '\0', "%s: nothing was said", command);
    cr_assert_str_eq(answer.out, "", "%s: %s", command, answer.out);
    tool_answer_free(&answer);
  }
  tool_folder_remove(&f.folder);
}

Test(tool, parameters_out_of_range) {
  static const char *const wrong[] = {"--gamma=-1", "--gamma=nan", "--alpha=1.5", "--background-weight=nan",
                                      "--normalizer=0"};
  const bench_folder f = open_folder();
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    tool_answer answer = tool_run(&f.folder, 0, "eval --loss sigmoid-focal --logits %s --labels %s --grad-out %s %s",
                                  f.logits, f.labels, f.gradient, wrong[i]);
    cr_assert(answer.status == 1 || answer.status == 2, "%s: exit %d", wrong[i], answer.status);
    expect_one_line(&answer, answer.status, wrong[i]);
    expect_no_output(&f, wrong[i]);
    tool_answer_free(&answer);
  }
  tool_folder_remove(&f.folder);
}

/* The tool itself fails if the two ways do not compute the same loss. */
Test(tool, fused_head_against_its_steps) {
  const tool_folder folder = tool_folder_make();
  tool_answer answer = tool_run(&folder, 0,
                                "bench --device cpu --head 24 --rows 4000 --classes 90 --workspace 0.2 "
                                "--repeat 2 --json");
  if (strstr(answer.err, "TARE_BLAS") != NULL || strstr(answer.err, "libopenblas") != NULL) {
    cr_skip_test("no CBLAS: %s", answer.err);
  }
  cr_assert_eq(answer.status, 0, "exit %d: %s", answer.status, answer.err);
  answer_json *json = answer_read(answer.out);
  cr_assert_eq(answer_number(json, "dimensions"), 24);
  cr_assert_eq(answer_number(json, "rounds"), 2);
  for (int i = 0; i < 3; i++) {
    static const char *const positive[] = {"fused.median_ms", "unfused.median_ms", "fused.loss", "of_products"};
    char path[64];
    for (size_t k = 0; k < sizeof positive / sizeof *positive; k++) {
      snprintf(path, sizeof path, "losses.%d.%s", i, positive[k]);
      cr_assert_gt(answer_number(json, path), 0, "%s", path);
    }
    snprintf(path, sizeof path, "losses.%d.workspace_bytes", i);
    cr_assert_eq(answer_number(json, path), 200000);
  }
  answer_free(json);
  tool_answer_free(&answer);
  tool_folder_remove(&folder);
}

Test(tool, help_and_info) {
  const tool_folder folder = tool_folder_make();
  static const char *const fine[] = {"info",          "--help",         "eval --help",  "eval -h",
                                     "bench --usage", "weights --help", "bench --help", "--version"};
  for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
    tool_answer answer = tool_run(&folder, 0, "%s", fine[i]);
    cr_assert_eq(answer.status, 0, "%s: exit %d: %s", fine[i], answer.status, answer.err);
    cr_assert_neq(answer.out[0], '\0', "%s said nothing", fine[i]);
    cr_assert_str_eq(answer.err, "", "%s: %s", fine[i], answer.err);
    tool_answer_free(&answer);
  }
  tool_folder_remove(&folder);
}

Test(tool, a_chart_of_the_benchmark) {
  if (system("command -v gnuplot >/dev/null") != 0) cr_skip_test("gnuplot is not installed");
  const tool_folder folder = tool_folder_make();
  char path[PATH_BYTES];
  tool_file(path, sizeof path, &folder, "chart.svg");
  tool_answer answer = tool_run(&folder, 0, "bench --rows 50 --classes 3 --repeat 3 --plot %s", path);
  cr_assert_eq(answer.status, 0, "%s", answer.err);
  char *svg = tool_file_text(path);
  static const char *const texts[] = {"<svg", "Loss and gradient of 50", "sigmoid-ce", "ghm-c, 30 bins", "plain copy"};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) cr_assert_not_null(strstr(svg, texts[i]), "%s", texts[i]);
  cr_assert_null(strstr(svg, "ghm-r"));
  free(svg);
  tool_answer_free(&answer);
  answer = tool_run(&folder, 0, "bench --rows 50 --head 8 --plot %s", path);
  cr_assert_eq(answer.status, 2, "%s", answer.err);
  tool_answer_free(&answer);
  tool_folder_remove(&folder);
}

/* Blanks and line ends, which argp puts where it likes, are as one blank. */
static void join_lines(char *text) {
  char *to = text;
  for (const char *from = text; *from; from++) {
    const bool blank = isspace((unsigned char)*from);
    if (!blank || (to > text && to[-1] != ' ')) *to++ = blank ? ' ' : *from;
  }
  *to = 0;
}

/* Nothing of the lists is cut off, however many losses there are. */
Test(tool, help_lists_everything) {
  const tool_folder folder = tool_folder_make();
  tool_answer answer = tool_run(&folder, 0, "eval --help");
  join_lines(answer.out);
  for (int32_t k = 0; k < tare_loss_count(); k++) {
    const int32_t kind = tare_loss_kind_at(k);
    tare_loss_description about = {.struct_size = sizeof about};
    cr_assert_eq(tare_loss_describe(kind, &about), TARE_STATUS_OK);
    char word[128];
    snprintf(word, sizeof word, " %s ", tare_loss_name(kind));
    cr_assert_not_null(strstr(answer.out, word), "%s", word);
    for (int32_t i = 0; i < about.parameters; i++) {
      tare_parameter_description parameter = {.struct_size = sizeof parameter};
      cr_assert_eq(tare_loss_parameter(kind, i, &parameter), TARE_STATUS_OK);
      if (!*parameter.option) continue;
      snprintf(word, sizeof word, "--%s=", parameter.option);
      const char *at = strstr(answer.out, word);
      cr_assert_not_null(at, "%s", word);
      const char *end = strstr(at + 1, " --"), *found = strstr(at, tare_loss_name(kind));
      cr_assert(found && (!end || found < end), "%s does not name %s", word, tare_loss_name(kind));
    }
  }
  tool_answer_free(&answer);
  tool_folder_remove(&folder);
}
