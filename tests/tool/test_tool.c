/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command-line tool gives the oracle's numbers for a real detector's logits, early and late in its training, for
 * every loss; and what is wrong with a file or an option is said in one line, with nothing left behind.
 */
#define _GNU_SOURCE
#include "support/tool.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/answer.h"
#include "support/npy.h"
#include "support/numbers.h"
#include "support/parameters.h"
#include "support/problem.h"

static const char *const states[] = {"early", "late"};
enum { STATES = sizeof states / sizeof *states, PATH_BYTES = 1024 };

static void use_built_tool(void) {
#ifdef TARE_TOOL_PATH
  tool_built = TARE_TOOL_PATH;
#endif
}

TestSuite(tool, .init = use_built_tool);

/* ---- Real data, as a problem and as files ---------------------------------------------------------------------- */

/* The files that the tool reads, and the same numbers for the oracle. */
typedef struct dataset {
  char logits[PATH_BYTES], labels[PATH_BYTES], targets[PATH_BYTES];
  int64_t rows, classes;
  double *values, *target_values;
  int64_t *label_values;
} dataset;

static double *numbers_of(const npy_array *array) {
  double *values = malloc((array->count + 1) * sizeof *values);
  for (size_t i = 0; i < array->count; i++) values[i] = npy_number(array, i);
  return values;
}

static dataset load(const char *state, const char *what) {
  dataset d = {.rows = 0};
  char name[64];
  snprintf(name, sizeof name, "%s_%s.npy", state, what);
  npy_real_path(d.logits, sizeof d.logits, name);
  npy_real_path(d.labels, sizeof d.labels, "labels.npy");
  npy_real_path(d.targets, sizeof d.targets, "box_targets.npy");
  npy_array logits = npy_read(d.logits), labels = npy_read(d.labels);
  d.rows = logits.shape[0];
  d.classes = logits.shape[1];
  cr_assert_eq(labels.count, (size_t)d.rows);
  cr_assert_gt(d.rows, 1000);
  d.values = numbers_of(&logits);
  d.label_values = malloc((size_t)d.rows * sizeof *d.label_values);
  for (int64_t i = 0; i < d.rows; i++) d.label_values[i] = (int64_t)npy_number(&labels, (size_t)i);
  if (strcmp(what, "boxes") == 0) {
    npy_array targets = npy_read(d.targets);
    d.target_values = numbers_of(&targets);
    npy_free(&targets);
  }
  npy_free(&logits);
  npy_free(&labels);
  return d;
}

static void unload(dataset *d) {
  free(d->values);
  free(d->target_values);
  free(d->label_values);
}

/* The data as the oracle's problem. */
static problem *problem_of(const dataset *d, int32_t kind) {
  problem *p = problem_new(kind, TARE_DTYPE_F32, d->rows, d->classes);
  const size_t bytes = (size_t)(d->rows * d->classes) * sizeof(double);
  memcpy(p->logits, d->values, bytes);
  memcpy(p->labels, d->label_values, (size_t)d->rows * sizeof *p->labels);
  if (d->target_values != NULL) memcpy(p->targets, d->target_values, bytes);
  p->want = WANT_GRADIENT | WANT_ROW_LOSS;
  return p;
}

/* ---- One evaluation -------------------------------------------------------------------------------------------- */

static int add_ghm_options(const tare_ghm_parameters *ghm, char *text, size_t size) {
  if (ghm->density == TARE_GHM_DENSITY_EXACT)
    return snprintf(text, size, " --density=exact --epsilon=%.17g", ghm->epsilon);
  return snprintf(text, size, " --bins=%d --momentum=%.17g --ghm-variant=%s", (int)ghm->bins, ghm->momentum,
                  ghm->variant == TARE_GHM_VARIANT_MMDET ? "mmdet" : "paper");
}

static int add_loss_options(const problem *p, char *text, size_t size) {
  if (is_ghm(p->loss.kind)) return add_ghm_options(&p->loss.ghm, text, size);
  const int32_t count = describe_loss(p->loss.kind).parameters;
  int used = 0;
  text[0] = '\0';
  for (int32_t i = 0; i < count; i++) {
    const tare_parameter_description parameter = describe_parameter(p->loss.kind, i);
    if (parameter.option[0] == '\0') continue;
    const double value = parameter_value(&p->loss, &parameter);
    if (parameter.type == TARE_PARAMETER_TYPE_CHOICE)
      used += snprintf(text + used, size - (size_t)used, " --%s=%s", parameter.option, parameter.choices[(int)value]);
    else
      used += snprintf(text + used, size - (size_t)used, " --%s=%.17g", parameter.option, value);
  }
  return used;
}

/* The offsets go through a file. */
static int add_offsets(const problem *p, char *text, size_t size) {
  static char path[PATH_BYTES];
  if (p->class_offset == NULL || strstr(text, "--tau") != NULL) return 0;
  snprintf(path, sizeof path, "%s/tare_offsets_%d.npy", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", (int)getpid());
  npy_write(path, "<f8", false, p->classes, 0, p->class_offset, (size_t)p->classes * sizeof *p->class_offset);
  const size_t used = strlen(text);
  return snprintf(text + used, size - used, " --offsets %s", path);
}

/* The command line that says what the problem says. */
static void command_of(const problem *p, const dataset *d, const char *more, char *text, size_t size) {
  static const char *const normalizers[] = {"sum", "elements", "rows", "positives"};
  int used = snprintf(text, size, "eval --loss %s --logits %s --labels %s --json %s", tare_loss_name(p->loss.kind),
                      d->logits, d->labels, more);
  used += add_offsets(p, text, size);
  used += add_loss_options(p, text + used, size - (size_t)used);
  if (p->loss.kind == TARE_LOSS_GHM_R) {
    used += snprintf(text + used, size - (size_t)used, " --mu=%.17g --targets %s", p->loss.ghm.mu, d->targets);
  }
  if (p->normalizer == TARE_NORMALIZER_VALUE) {
    snprintf(text + used, size - (size_t)used, " --normalizer=%.17g", p->normalizer_value);
  } else if (!is_ghm(p->loss.kind)) {
    snprintf(text + used, size - (size_t)used, " --normalizer %s", normalizers[p->normalizer]);
  }
}

static const tolerance close_enough = {.absolute = 1e-30, .relative = 1e-6};

static void check_histogram(const problem *p, const answer_json *answer, const char *command) {
  const struct oracle_ghm_state *want = p->oracle_state;
  const int bins = p->loss.ghm.bins;
  char path[64];
  cr_assert_eq(answer_count(answer, "histogram.counts"), (size_t)bins, "%s", command);
  cr_assert_eq(answer_count(answer, "histogram.weights"), (size_t)bins, "%s", command);
  cr_assert_eq(answer_count(answer, "histogram.edges"), (size_t)bins + 1, "%s", command);
  int64_t counted = 0;
  for (int k = 0; k < bins; k++) {
    snprintf(path, sizeof path, "histogram.counts.%d", k);
    const double count = answer_number(answer, path);
    cr_assert_eq(count, (double)want->counts[k], "%s: bin %d: %g, want %lld", command, k, count,
                 (long long)want->counts[k]);
    counted += want->counts[k];
    snprintf(path, sizeof path, "histogram.edges.%d", k);
    CHECK_NEAR(path, answer_number(answer, path),
               oracle_ghm_edge(k, bins, p->loss.ghm.variant == TARE_GHM_VARIANT_MMDET), ((tolerance){0, 1e-7}));
    snprintf(path, sizeof path, "histogram.weights.%d", k); /* beta = N/GD */
    CHECK_NEAR(path, answer_number(answer, path), want->weights[k] * (double)want->total, ((tolerance){0, 1e-6}));
  }
  cr_assert_gt(counted, 0);
}

static void check_answer(const problem *p, const outcome *want, const tool_answer *answer, const char *command) {
  cr_assert_eq(answer->status, 0, "%s: exit %d: %s", command, answer->status, answer->err);
  cr_assert_str_eq(answer->err, "", "%s: %s", command, answer->err);
  answer_json *json = answer_read(answer->out);
  double l1 = 0, squares = 0;
  for (int64_t i = 0; i < want->elements; i++) {
    l1 += fabs(want->gradient[i]);
    squares += want->gradient[i] * want->gradient[i];
  }
  cr_assert(want->loss != 0 && l1 != 0, "%s: the oracle says 0", command);
  CHECK_NEAR(command, answer_number(json, "loss"), want->loss, close_enough);
  CHECK_NEAR(command, answer_number(json, "grad_l1"), l1, close_enough);
  CHECK_NEAR(command, answer_number(json, "grad_l2"), sqrt(squares), close_enough);
  cr_assert_eq(answer_number(json, "rows"), (double)p->rows);
  cr_assert_eq(answer_number(json, "classes"), (double)p->classes);
  cr_assert_eq(answer_number(json, "positives"), (double)want->counts.positives);
  cr_assert_eq(answer_number(json, "background"), (double)want->counts.background);
  cr_assert_eq(answer_number(json, "ignored"), (double)want->counts.ignored);
  cr_assert_str_eq(answer_text(json, "dtype"), "f32");
  cr_assert_gt(answer_number(json, "milliseconds"), 0);
  cr_assert_gt(answer_number(json, "gigabytes_per_second"), 0);
  cr_assert_neq(answer_text(json, "device")[0], '\0');
  if (p->oracle_state != NULL) check_histogram(p, json, command);
  answer_free(json);
}

/* Runs the problem by the tool and by the oracle. `more` are options that the problem does not tell. */
static void check_eval(problem *p, const dataset *d, const char *more) {
  const tool_folder folder = tool_folder_make();
  char command[4 * PATH_BYTES];
  command_of(p, d, more, command, sizeof command);
  tool_answer answer = tool_run(&folder, 0, "%s", command);
  if (is_ghm(p->loss.kind) && p->loss.ghm.density == TARE_GHM_DENSITY_UNIT_REGION) problem_add_ghm_state(p);
  outcome *want = problem_expect(p);
  check_answer(p, want, &answer, command);
  outcome_free(want);
  tool_answer_free(&answer);
  tool_folder_remove(&folder);
  problem_free(p);
}

Test(tool, sigmoid_focal) {
  static const double gammas[] = {0, 0.5, 1, 1.5, 2, 3.7, 5};
  static const double alphas[] = {-1, 0.25};
  for (size_t s = 0; s < STATES; s++) {
    dataset d = load(states[s], "logits");
    for (size_t g = 0; g < sizeof gammas / sizeof *gammas; g++) {
      for (size_t a = 0; a < 2; a++) {
        problem *p = problem_of(&d, TARE_LOSS_SIGMOID_FOCAL);
        p->loss.focal.gamma = gammas[g];
        p->loss.focal.alpha = alphas[a];
        check_eval(p, &d, "");
      }
    }
    unload(&d);
  }
}

Test(tool, sigmoid_cross_entropy) {
  static const double alphas[] = {-1, 0, 0.3, 1};
  for (size_t s = 0; s < STATES; s++) {
    dataset d = load(states[s], "logits");
    for (size_t a = 0; a < sizeof alphas / sizeof *alphas; a++) {
      problem *p = problem_of(&d, TARE_LOSS_SIGMOID_CE);
      p->loss.ce.alpha = alphas[a];
      check_eval(p, &d, "");
    }
    unload(&d);
  }
}

Test(tool, sigmoid_poly1) {
  static const double gammas[] = {0, 0.5, 2, 3.7};
  static const double epsilons[] = {0, 1, 2.5};
  for (size_t s = 0; s < STATES; s++) {
    dataset d = load(states[s], "logits");
    for (size_t g = 0; g < sizeof gammas / sizeof *gammas; g++) {
      for (size_t e = 0; e < sizeof epsilons / sizeof *epsilons; e++) {
        problem *p = problem_of(&d, TARE_LOSS_SIGMOID_POLY1);
        p->loss.poly1.gamma = gammas[g];
        p->loss.poly1.epsilon = epsilons[e];
        p->loss.poly1.alpha = e == 1 ? 0.25 : -1;
        check_eval(p, &d, "");
      }
    }
    unload(&d);
  }
}

Test(tool, normalizers) {
  dataset d = load("late", "logits");
  for (int32_t normalizer = TARE_NORMALIZER_SUM; normalizer <= TARE_NORMALIZER_POSITIVES; normalizer++) {
    problem *p = problem_of(&d, TARE_LOSS_SIGMOID_FOCAL);
    p->normalizer = normalizer;
    check_eval(p, &d, "");
  }
  problem *p = problem_of(&d, TARE_LOSS_SIGMOID_FOCAL);
  p->normalizer = TARE_NORMALIZER_VALUE;
  p->normalizer_value = 1287.5;
  check_eval(p, &d, "");
  unload(&d);
}

/* Rows whose label is the background add nothing: all rows, and the positive ones alone, give the same sum. */
Test(tool, softmax_losses) {
  static const double gammas[] = {0, 0.5, 2, 3.7};
  for (size_t s = 0; s < STATES; s++) {
    dataset d = load(states[s], "logits");
    check_eval(problem_of(&d, TARE_LOSS_SOFTMAX_CE), &d, "");
    for (size_t g = 0; g < sizeof gammas / sizeof *gammas; g++) {
      problem *p = problem_of(&d, TARE_LOSS_SOFTMAX_FOCAL);
      p->loss.focal.gamma = gammas[g];
      p->loss.focal.alpha = g == 2 ? 0.25 : -1;
      p->normalizer = TARE_NORMALIZER_POSITIVES;
      check_eval(p, &d, "");
    }
    unload(&d);
  }
}

/* The rows with a class, as files of their own. */
static dataset positive_rows(const dataset *all, const tool_folder *folder) {
  dataset d = {.classes = all->classes};
  d.values = malloc((size_t)(all->rows * all->classes) * sizeof *d.values);
  d.label_values = malloc((size_t)all->rows * sizeof *d.label_values);
  float *logits = malloc((size_t)(all->rows * all->classes) * sizeof *logits);
  for (int64_t row = 0; row < all->rows; row++) {
    if (all->label_values[row] < 0) continue;
    for (int64_t c = 0; c < d.classes; c++) {
      const int64_t to = d.rows * d.classes + c;
      d.values[to] = all->values[row * d.classes + c];
      logits[to] = (float)d.values[to];
    }
    d.label_values[d.rows++] = all->label_values[row];
  }
  tool_file(d.logits, sizeof d.logits, folder, "positive_logits.npy");
  tool_file(d.labels, sizeof d.labels, folder, "positive_labels.npy");
  npy_write(d.logits, "<f4", false, d.rows, d.classes, logits, (size_t)(d.rows * d.classes) * sizeof *logits);
  npy_write(d.labels, "<i8", false, d.rows, 0, d.label_values, (size_t)d.rows * sizeof *d.label_values);
  free(logits);
  return d;
}

Test(tool, softmax_losses_of_positive_rows) {
  for (size_t s = 0; s < STATES; s++) {
    dataset all = load(states[s], "logits");
    const tool_folder folder = tool_folder_make();
    dataset d = positive_rows(&all, &folder);
    cr_assert_gt(d.rows, 1000);
    check_eval(problem_of(&d, TARE_LOSS_SOFTMAX_CE), &d, "");
    problem *focal = problem_of(&d, TARE_LOSS_SOFTMAX_FOCAL);
    focal->loss.focal.gamma = 1.5;
    focal->normalizer = TARE_NORMALIZER_ROWS;
    check_eval(focal, &d, "");
    unload(&d);
    unload(&all);
    tool_folder_remove(&folder);
  }
}

Test(tool, ghm_c) {
  static const int32_t bins[] = {1, 2, 10, 30, 255, 256, 1000, 1024};
  for (size_t s = 0; s < STATES; s++) {
    dataset d = load(states[s], "logits");
    for (size_t b = 0; b < sizeof bins / sizeof *bins; b++) {
      for (int32_t variant = TARE_GHM_VARIANT_PAPER; variant <= TARE_GHM_VARIANT_MMDET; variant++) {
        problem *p = problem_of(&d, TARE_LOSS_GHM_C);
        p->loss.ghm.bins = bins[b];
        p->loss.ghm.variant = variant;
        check_eval(p, &d, "");
      }
    }
    unload(&d);
  }
}

/* One evaluation is the first step of a momentum: the paper's sums start at the counts, mmdetection's at 0. */
Test(tool, ghm_momentum) {
  dataset d = load("late", "logits");
  for (int32_t variant = TARE_GHM_VARIANT_PAPER; variant <= TARE_GHM_VARIANT_MMDET; variant++) {
    problem *p = problem_of(&d, TARE_LOSS_GHM_C);
    p->loss.ghm.momentum = 0.75;
    p->loss.ghm.variant = variant;
    check_eval(p, &d, "");
  }
  unload(&d);
}

Test(tool, ghm_exact_density) {
  static const double epsilons[] = {0.02, 0.1, 0.5, 2};
  for (size_t s = 0; s < STATES; s++) {
    dataset d = load(states[s], "logits");
    for (size_t e = 0; e < sizeof epsilons / sizeof *epsilons; e++) {
      problem *p = problem_of(&d, TARE_LOSS_GHM_C);
      p->loss.ghm.density = TARE_GHM_DENSITY_EXACT;
      p->loss.ghm.epsilon = epsilons[e];
      check_eval(p, &d, "");
    }
    unload(&d);
  }
}

Test(tool, ghm_r) {
  static const int32_t bins[] = {1, 10, 100};
  for (size_t s = 0; s < STATES; s++) {
    dataset d = load(states[s], "boxes");
    for (size_t b = 0; b < sizeof bins / sizeof *bins; b++) {
      for (int32_t variant = TARE_GHM_VARIANT_PAPER; variant <= TARE_GHM_VARIANT_MMDET; variant++) {
        problem *p = problem_of(&d, TARE_LOSS_GHM_R);
        p->loss.ghm.bins = bins[b];
        p->loss.ghm.variant = variant;
        p->loss.ghm.mu = b == 2 ? 0.1 : 0.02;
        check_eval(p, &d, "");
      }
    }
    problem *exact = problem_of(&d, TARE_LOSS_GHM_R);
    exact->loss.ghm.density = TARE_GHM_DENSITY_EXACT;
    check_eval(exact, &d, "");
    unload(&d);
  }
}

/* Class-balanced weights of the batch's own counts, on each loss that takes them. */
/* Offsets from counts, alone and beside class-balanced weights of the same counts. */
Test(tool, logit_adjusted) {
  char counts_path[PATH_BYTES], more[PATH_BYTES + 64];
  npy_real_path(counts_path, sizeof counts_path, "counts.npy");
  npy_array counts = npy_read(counts_path);
  double *real = numbers_of(&counts);
  for (size_t s = 0; s < STATES; s++) {
    dataset d = load(states[s], "logits");
    for (int weighted = 0; weighted < 2; weighted++) {
      problem *p = problem_of(&d, TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED);
      oracle_logit_adjustment(d.classes, real, 1.5, p->class_offset);
      snprintf(more, sizeof more, "--class-counts %s --tau 1.5%s", counts_path, weighted ? " --beta 0.99" : "");
      if (weighted) {
        p->class_weights = calloc((size_t)d.classes, sizeof *p->class_weights);
        oracle_class_balanced(d.classes, counts.data, 0.99, NULL, p->class_weights);
      }
      check_eval(p, &d, more);
    }
    unload(&d);
  }
  free(real);
  npy_free(&counts);
}

Test(tool, class_balanced) {
  char counts_path[PATH_BYTES], more[PATH_BYTES + 64];
  npy_real_path(counts_path, sizeof counts_path, "counts.npy");
  npy_array counts = npy_read(counts_path);
  for (size_t s = 0; s < STATES; s++) {
    dataset d = load(states[s], "logits");
    FOR_EACH_LOSS(kind) {
      if (is_ghm(kind)) continue;
      problem *p = problem_of(&d, kind);
      p->class_weights = calloc((size_t)d.classes, sizeof *p->class_weights);
      oracle_class_balanced(d.classes, counts.data, 0.999, NULL, p->class_weights);
      p->background_weight = is_softmax(kind) ? 1 : 0.5;
      snprintf(more, sizeof more, "--class-counts %s --beta 0.999 --background-weight %g", counts_path,
               p->background_weight);
      check_eval(p, &d, more);
    }
    unload(&d);
  }
  npy_free(&counts);
}

/* Without options: gamma 2, and alpha 0.25 for sigmoid-focal only. */
Test(tool, defaults) {
  dataset d = load("early", "logits");
  const tool_folder folder = tool_folder_make();
  for (int32_t kind = TARE_LOSS_SIGMOID_CE; kind <= TARE_LOSS_GHM_C; kind++) {
    if (tare_loss_name(kind) == NULL) continue;
    problem *p = problem_of(&d, kind);
    if (kind == TARE_LOSS_GHM_C) problem_add_ghm_state(p);
    char needed[PATH_BYTES] = ""; /* offsets have no default */
    add_offsets(p, needed, sizeof needed);
    tool_answer answer = tool_run(&folder, 0, "eval --loss %s --logits %s --labels %s --json%s", tare_loss_name(kind),
                                  d.logits, d.labels, needed);
    outcome *want = problem_expect(p);
    check_answer(p, want, &answer, tare_loss_name(kind));
    outcome_free(want);
    tool_answer_free(&answer);
    problem_free(p);
  }
  tool_folder_remove(&folder);
  unload(&d);
}

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
static void check_picture(const char *loss, const char *right_panel) {
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
  const char *const texts[] = {loss, "Gradient norms of 338,814 logits", "number of logits", right_panel};
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
  check_picture("sigmoid-focal", "Weight and gradient by gradient norm");
  check_picture("ghm-c", "Gradient of one logit after reformulation");
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
