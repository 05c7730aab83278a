/* SPDX-License-Identifier: Apache-2.0 */
/* What the tool writes beside its table: files, pictures, JSON. */
#define _GNU_SOURCE
#include "real_data.h"

/* Beside GHM-C stands focal, measured in the same rounds, and both may run on a file's logits over and over. */
Test(tool, bench_of_ghm_against_focal) {
  char logits[PATH_BYTES], labels[PATH_BYTES];
  npy_real_path(logits, sizeof logits, "late_logits.npy");
  npy_real_path(labels, sizeof labels, "labels.npy");
  const tool_folder folder = tool_folder_make();
  tool_answer answer = tool_run(&folder, 0,
                                "bench --loss ghm-c --repeat 1 --rows 120000 --classes 5 --json --distribution "
                                "file:%s --labels %s",
                                logits, labels);
  cr_assert_eq(answer.status, 0, "%s", answer.err);
  answer_json *found = answer_read(answer.out);
  static const char *const want[] = {"sigmoid-focal", "ghm-c", "ghm-c"};
  cr_assert_eq(answer_count(found, "losses"), sizeof want / sizeof *want);
  for (int i = 0; i < 3; i++) {
    char path[64];
    snprintf(path, sizeof path, "losses.%d.loss", i);
    cr_assert_str_eq(answer_text(found, path), want[i]);
    snprintf(path, sizeof path, "losses.%d.focal_ratio", i);
    cr_assert_gt(answer_number(found, path), 0);
  }
  cr_assert_eq(answer_number(found, "losses.0.focal_ratio"), 1);
  cr_assert_eq(answer_number(found, "rows"), 120000);
  cr_assert_eq(answer_number(found, "classes"), 5);
  answer_free(found);
  tool_answer_free(&answer);
  tool_folder_remove(&folder);
}

/* On whichever device is chosen by itself: an earlier run beside this one, and growing batches. */
Test(tool, bench_compares_and_sweeps) {
  const tool_folder folder = tool_folder_make();
#define SMALL_BENCH "\"$TARE\" bench --classes 3 --loss sigmoid-ce --repeat 6 --json "
  cr_assert_eq(tool_shell(&folder, SMALL_BENCH "--rows 50 >old.json"), 0);
  cr_assert_eq(tool_shell(&folder, SMALL_BENCH "--rows 50 --compare old.json"), 0);
  char *text = tool_text(&folder, "out");
  answer_json *json = answer_read(text);
  cr_assert_eq(answer_count(json, "comparison.losses"), 1);
  cr_assert_gt(answer_number(json, "comparison.losses.0.relative_ratio"), 0);
  answer_free(json);
  free(text);
  cr_assert_eq(tool_shell(&folder, SMALL_BENCH "--sweep rows --rows 1100"), 0);
  text = tool_text(&folder, "out");
  json = answer_read(text);
  cr_assert_eq(answer_number(json, "steps.0.rows"), 1024);
  cr_assert_eq(answer_number(json, "steps.1.rows"), 1100);
  cr_assert_gt(answer_number(json, "steps.1.losses.0.relative_time.median"), 0);
  answer_free(json);
  free(text);
  tool_folder_remove(&folder);
}

/* ---- What it writes -------------------------------------------------------------------------------------------- */

Test(tool, gradient_and_row_losses_as_files) {
  char gradient[PATH_BYTES], row_loss[PATH_BYTES];
  dataset d = load("late", "logits");
  const tool_folder folder = tool_folder_make();
  problem *p = problem_of(&d, TARE_LOSS_SIGMOID_FOCAL);
  tool_file(gradient, sizeof gradient, &folder, "gradient.npy");
  tool_file(row_loss, sizeof row_loss, &folder, "row_loss.npy");
  tool_answer answer =
      tool_run(&folder, 0, "eval --loss sigmoid-focal --logits %s --labels %s --grad-out %s --row-loss-out %s",
               d.logits, d.labels, gradient, row_loss);
  cr_assert_eq(answer.status, 0, "%s", answer.err);
  cr_assert_neq(answer.out[0], '\0', "no table");
  npy_array g = npy_read(gradient), r = npy_read(row_loss);
  double *g_values = numbers_of(&g), *r_values = numbers_of(&r);
  outcome *want = problem_expect(p);
  cr_assert_str_eq(g.type, "<f4");
  cr_assert_str_eq(r.type, "<f4");
  cr_assert(g.axes == 2 && g.shape[0] == d.rows && g.shape[1] == d.classes && r.axes == 1 && r.shape[0] == d.rows);
  CHECK_CLOSE("gradient file", g_values, want->gradient, g.count, gradient_tolerance(p));
  CHECK_CLOSE("row loss file", r_values, want->row_loss, r.count, row_tolerance(p));
  free(g_values);
  free(r_values);
  npy_free(&g);
  npy_free(&r);
  outcome_free(want);
  tool_answer_free(&answer);
  problem_free(p);
  unload(&d);
  tool_folder_remove(&folder);
}

/* A report in JSON has what repeats it: the words of the command, and parameters that nobody gave. */
Test(tool, json_says_how_to_repeat_the_run) {
  const tool_folder folder = tool_folder_with_files();
  tool_answer answer = tool_run(&folder, 0,
                                "eval --device cpu --loss sigmoid-poly1 --gamma 1.5 --json --logits %s/x.npy "
                                "--labels %s/y.npy",
                                folder.path, folder.path);
  cr_assert_eq(answer.status, 0, "%s", answer.err);
  answer_json *found = answer_read(answer.out);
  cr_assert_eq(answer_number(found, "parameters.gamma"), 1.5);
  cr_assert_eq(answer_number(found, "parameters.epsilon"), 1);
  cr_assert_eq(answer_count(found, "command"), 13);
  cr_assert_str_eq(answer_text(found, "command.0"), "tare");
  cr_assert_str_eq(answer_text(found, "command.1"), "eval");
  cr_assert_str_eq(answer_text(found, "command.5"), "sigmoid-poly1");
  cr_assert_eq(strlen(answer_text(found, "date")), strlen("2026-01-31T23:59:59Z"));
  cr_assert_neq(answer_text(found, "version")[0], '\0');
  answer_free(found);
  tool_answer_free(&answer);
  tool_folder_remove(&folder);
}

/* The weights of a file of counts, too. */
Test(tool, json_of_weights_says_how_to_repeat_them) {
  const tool_folder folder = tool_folder_with_files();
  tool_answer answer = tool_run(&folder, 0, "weights --beta 0.9 --json --class-counts %s/c.csv", folder.path);
  cr_assert_eq(answer.status, 0, "%s", answer.err);
  answer_json *found = answer_read(answer.out);
  cr_assert_eq(answer_count(found, "command"), 7);
  cr_assert_str_eq(answer_text(found, "command.1"), "weights");
  cr_assert_str_eq(answer_text(found, "command.4"), "--json");
  cr_assert_eq(strlen(answer_text(found, "date")), strlen("2026-01-31T23:59:59Z"));
  cr_assert_neq(answer_text(found, "version")[0], '\0');
  answer_free(found);
  tool_answer_free(&answer);
  tool_folder_remove(&folder);
}

/* Logits rounded to a half type first: the oracle of the rounded logits gives the loss. */
Test(tool, half_types) {
  static const int32_t halves[] = {TARE_DTYPE_F16, TARE_DTYPE_BF16};
  dataset d = load("late", "logits");
  const tool_folder folder = tool_folder_make();
  for (size_t h = 0; h < 2; h++) {
    problem *p = problem_of(&d, TARE_LOSS_SIGMOID_FOCAL);
    for (int64_t i = 0; i < d.rows * d.classes; i++) p->logits[i] = round_to_dtype(halves[h], p->logits[i]);
    outcome *want = problem_expect(p);
    tool_answer answer = tool_run(&folder, 0, "eval --loss sigmoid-focal --logits %s --labels %s --json --dtype %s",
                                  d.logits, d.labels, dtype_name(halves[h]));
    cr_assert_eq(answer.status, 0, "%s", answer.err);
    answer_json *json = answer_read(answer.out);
    CHECK_NEAR("loss", answer_number(json, "loss"), want->loss, close_enough);
    cr_assert_str_eq(answer_text(json, "dtype"), dtype_name(halves[h]));
    answer_free(json);
    tool_answer_free(&answer);
    outcome_free(want);
    problem_free(p);
  }
  tool_folder_remove(&folder);
  unload(&d);
}

/* A picture is drawn by gnuplot, and is well-formed; of ghm-c the right panel is another one. */
static void check_picture(const char *loss, const char *parameters, const char *right_panel) {
  dataset d = load("late", "logits");
  const tool_folder folder = tool_folder_make();
  char path[PATH_BYTES], command[PATH_BYTES + 64];
  tool_file(path, sizeof path, &folder, "picture.svg");
  tool_answer answer =
      tool_run(&folder, 0, "eval --loss %s --logits %s --labels %s --plot %s", loss, d.logits, d.labels, path);
  cr_assert_eq(answer.status, 0, "%s", answer.err);
  cr_assert_str_eq(answer.err, "");
  snprintf(command, sizeof command, "xmllint --noout '%s'", path);
  cr_assert_eq(system(command), 0, "%s: not well-formed", loss);
  char *svg = tool_file_text(path);
  cr_assert_not_null(strstr(svg, "<svg"), "%s", loss);
  const char *const counted = rows_apart() > 1 ? "Gradient norms of " : "Gradient norms of 338,814 logits";
  const char *const texts[] = {loss,      counted, "number of logits", right_panel,
                               "objects", "loss ", parameters,         "_logits.npy</title>"};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    cr_assert_not_null(strstr(svg, texts[i]), "%s: '%s' is not in the picture", loss, texts[i]);
  }
  free(svg);
  tool_answer_free(&answer);
  tool_folder_remove(&folder);
  unload(&d);
}

Test(tool, pictures) {
  if (system("command -v gnuplot >/dev/null") != 0) cr_skip_test("gnuplot is not installed");
  if (system("command -v xmllint >/dev/null") != 0) cr_skip_test("xmllint is not installed (libxml2-utils)");
  check_picture("sigmoid-focal", "(alpha 0.25, gamma 2)", "Weight and gradient by gradient norm");
  check_picture("ghm-c", "(bins 30)", "Gradient of one logit with each loss");
}

/* The file's ending says what it is. */
Test(tool, pictures_of_other_formats) {
  static const char *const formats[][2] = {{"picture.png", "\x89PNG\r\n"}, {"picture.PDF", "%PDF-"}};
  if (system("command -v gnuplot >/dev/null") != 0) cr_skip_test("gnuplot is not installed");
  dataset d = load("late", "logits");
  const tool_folder folder = tool_folder_make();
  for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
    char path[PATH_BYTES];
    tool_file(path, sizeof path, &folder, formats[i][0]);
    tool_answer answer =
        tool_run(&folder, 0, "eval --loss sigmoid-focal --logits %s --labels %s --plot %s", d.logits, d.labels, path);
    cr_assert_eq(answer.status, 0, "%s", answer.err);
    char *text = tool_file_text(path);
    cr_assert_eq(memcmp(text, formats[i][1], strlen(formats[i][1])), 0, "%s", formats[i][0]);
    free(text);
    tool_answer_free(&answer);
  }
  tool_folder_remove(&folder);
  unload(&d);
}

Test(tool, class_weights_from_npy_and_csv) {
  char npy[PATH_BYTES], csv[PATH_BYTES], out[PATH_BYTES];
  const int64_t counts[4] = {1169, 90, 0, 28};
  const tool_folder folder = tool_folder_make();
  double want[4];
  oracle_class_balanced(4, counts, 0.999, NULL, want);
  tool_file(npy, sizeof npy, &folder, "counts.npy");
  tool_file(csv, sizeof csv, &folder, "counts.csv");
  tool_file(out, sizeof out, &folder, "weights.npy");
  npy_write(npy, "<i8", false, 4, 0, counts, sizeof counts);
  FILE *file = fopen(csv, "w");
  cr_assert_not_null(file);
  fprintf(file, "id,name,count\n1,\"red, cell\",1169\n2,white,90\n3,none,0\n4,platelet,28\n");
  fclose(file);
  const char *const inputs[] = {npy, csv};
  for (int i = 0; i < 2; i++) {
    tool_answer answer = tool_run(&folder, 0, "weights --class-counts %s --beta 0.999 --out %s", inputs[i], out);
    cr_assert_eq(answer.status, 0, "%s", answer.err);
    npy_array weights = npy_read(out);
    double *values = numbers_of(&weights);
    cr_assert_eq(weights.count, 4u);
    CHECK_CLOSE(inputs[i], values, want, 4, ((tolerance){0, 1e-7}));
    free(values);
    npy_free(&weights);
    tool_answer_free(&answer);
    remove(out);
  }
  tool_folder_remove(&folder);
}
