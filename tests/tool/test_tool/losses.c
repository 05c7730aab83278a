/* SPDX-License-Identifier: Apache-2.0 */
/* The tool gives the oracle's numbers for a real detector's logits, for every loss. */
#define _GNU_SOURCE
#include "real_data.h"

TestSuite(tool, .init = tool_use_built);

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
  static const int32_t normalizers[] = {TARE_NORMALIZER_SUM,       TARE_NORMALIZER_ELEMENTS, TARE_NORMALIZER_ROWS,
                                        TARE_NORMALIZER_POSITIVES, TARE_NORMALIZER_TARGETS,  TARE_NORMALIZER_ONES};
  for (size_t i = 0; i < sizeof normalizers / sizeof *normalizers; i++) {
    problem *p = problem_of(&d, TARE_LOSS_SIGMOID_FOCAL);
    p->normalizer = normalizers[i];
    p->normalizer_addend = i == 3 ? 1 : 0;
    p->normalizer_minimum = i == 4 ? 1e6 : 0;
    check_eval(p, &d, i == 3 ? "--normalizer-addend 1" : i == 4 ? "--normalizer-minimum 1e6" : "");
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
    cr_assert_gt(d.rows, 100);
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
      oracle_logit_adjustment(d.classes, real, 1.5, p->offset);
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

static void add_log_counts(problem *p, const int64_t *counts) {
  p->log_counts = calloc((size_t)p->classes, sizeof *p->log_counts);
  for (int64_t c = 0; c < p->classes; c++) p->log_counts[c] = (double)(float)log(fmax((double)counts[c], 1));
}

Test(tool, seesaw) {
  char counts_path[PATH_BYTES], more[PATH_BYTES + 64];
  npy_real_path(counts_path, sizeof counts_path, "counts.npy");
  npy_array counts = npy_read(counts_path);
  for (size_t s = 0; s < STATES; s++) {
    dataset d = load(states[s], "logits");
    check_eval(problem_of(&d, TARE_LOSS_SOFTMAX_SEESAW), &d, "");
    problem *p = problem_of(&d, TARE_LOSS_SOFTMAX_SEESAW);
    add_log_counts(p, counts.data);
    p->loss.seesaw.p = 1.5;
    p->loss.seesaw.q = 0.5;
    p->loss.seesaw.epsilon = 0.25;
    snprintf(more, sizeof more, "--class-counts %s", counts_path);
    check_eval(p, &d, more);
    unload(&d);
  }
  npy_free(&counts);
}

static void add_margins(problem *p, const int64_t *counts, double max_margin) {
  double real[16];
  for (int64_t c = 0; c < p->classes; c++) real[c] = (double)counts[c];
  p->margins = calloc((size_t)p->classes, sizeof *p->margins);
  oracle_ldam_margins(p->classes, real, max_margin, p->margins);
  for (int64_t c = 0; c < p->classes; c++) p->margins[c] = (double)(float)p->margins[c];
}

Test(tool, ldam) {
  char counts_path[PATH_BYTES], more[PATH_BYTES + 64];
  npy_real_path(counts_path, sizeof counts_path, "counts.npy");
  npy_array counts = npy_read(counts_path);
  for (size_t s = 0; s < STATES; s++) {
    dataset d = load(states[s], "logits");
    problem *p = problem_of(&d, TARE_LOSS_SOFTMAX_LDAM);
    add_margins(p, counts.data, 0.25);
    p->loss.ldam.scale = 2.5;
    snprintf(more, sizeof more, "--class-counts %s --max-margin 0.25", counts_path);
    check_eval(p, &d, more);
    unload(&d);
  }
  npy_free(&counts);
}

/* Class-balanced weights of the batch's own counts, on each loss that takes them. */
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
      if (kind == TARE_LOSS_SOFTMAX_SEESAW) add_log_counts(p, counts.data);
      if (kind == TARE_LOSS_SOFTMAX_LDAM) add_margins(p, counts.data, 0.5);
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
