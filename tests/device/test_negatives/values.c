/* SPDX-License-Identifier: Apache-2.0 */
/* Their values and gradients, against the oracle. */
#include "negatives.h"

/* ---- Label smoothing ------------------------------------------------------------------------------------------- */

static const double smoothings[] = {1e-30, 1e-9, 0.1, 0.5, 1 - 1e-6};

static void set_smoothing(problem *p, size_t n) {
  set(p, "label_smoothing", smoothings[n % COUNT(smoothings)]);
  set(p, "smoothed", (double)(n % 2));
  set(p, "alpha", n % 3 ? 0.25 : -1);
  const double gamma = exponents[n / COUNT(smoothings) % COUNT(exponents)];
  if (p->loss.kind == TARE_LOSS_SIGMOID_FOCAL) /* 0.5^50 leaves nothing to compare */
    set(p, "gamma", smoothings[n % COUNT(smoothings)] < 0.5 ? gamma : fmin(gamma, 5));
}

Test(negatives, label_smoothing) {
  FOR_EACH_DEVICE(device) {
    for (size_t n = 0; n < COUNT(smoothings) * COUNT(exponents) * 2; n++) {
      const int32_t kind = n < COUNT(smoothings) ? TARE_LOSS_SIGMOID_CE : TARE_LOSS_SIGMOID_FOCAL;
      check_both(kind, dtypes[n % 4], n, set_smoothing, slack_of(dtypes[n % 4]), device);
    }
  }
}

Test(negatives, label_smoothing_in_every_layout) {
  static const level_shape shapes[] = {{4, 5, 3}, {2, 3, 3}, {8, 8, 3}};
  static const int64_t classes[] = {1, 3, 8, 80, 81, 91};
  FOR_EACH_DEVICE(device) {
    for (int way = 0; way < 48; way++) {
      const int32_t kind = way % 3 ? TARE_LOSS_SIGMOID_FOCAL : TARE_LOSS_SIGMOID_CE;
      problem *p = problem_new_levels(kind, dtypes[way / 4 % 4], 2, classes[way % 6], test_size(3, 1), shapes);
      set(p, "label_smoothing", 0.2);
      set(p, "smoothed", (double)(way / 2 % 2));
      p->slack = 4 * slack_of(p->dtype);
      lay_out(p, (size_t)way);
      if (way % 7 == 1) problem_draw_element_weights(p);
      if (way % 7 == 2) p->positive_weights = random_class_weights(p, 1);
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* With an alpha of 1 the weight of a negative is its smoothed target, s/2, which 1 - (1 - s/2) would lose. */
Test(negatives, alpha_of_a_smoothed_0) {
  FOR_EACH_DEVICE(device) {
    for (size_t n = 0; n < COUNT(smoothings) * COUNT(dtypes); n++) {
      problem *p = problem_new(TARE_LOSS_SIGMOID_FOCAL, dtypes[n % COUNT(dtypes)], test_size(240, 40), 19);
      set(p, "label_smoothing", smoothings[n / COUNT(dtypes)]);
      set(p, "smoothed", 1);
      set(p, "alpha", 1);
      p->want &= ~(unsigned)WANT_GRADIENT; /* a difference */
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* ---- Asymmetric loss ------------------------------------------------------------------------------------------- */

static const double margins[] = {0, 1e-6, 1e-3, 0.05, 0.5, 1 - 1e-6, 1};

static void set_sides(problem *p, size_t n) {
  set(p, "margin", margins[n % COUNT(margins)]);
  set(p, "gamma_negative", exponents[n / COUNT(margins) % COUNT(exponents)]);
  set(p, "gamma_positive", exponents[(n + 3) % COUNT(exponents)]);
  set(p, "modulator", (double)(n % 2));
}

Test(negatives, asymmetric) {
  FOR_EACH_DEVICE(device) {
    for (size_t n = 0; n < COUNT(margins) * COUNT(exponents); n++)
      for (size_t d = 0; d < 2; d++)
        check_both(TARE_LOSS_SIGMOID_ASYMMETRIC, dtypes[(n + d * 3) % 4], n, set_sides, 1e-31,
                   device); /* below 1e-38 a p is 0, also over a margin */
  }
}

/* At the margin, below it and just above it. Below it everything is exactly 0. */
Test(negatives, asymmetric_at_its_margin) {
  FOR_EACH_DEVICE(device) {
    for (size_t n = 0; n < COUNT(dtypes) * 2; n++) {
      problem *p = problem_new(TARE_LOSS_SIGMOID_ASYMMETRIC, dtypes[n % 4], 64, 1);
      const double edge = log(0.05) - log1p(-0.05);
      set(p, "gamma_negative", n < 4 ? 1 : 4);
      for (int64_t row = 0; row < 64; row++) {
        p->labels[row] = -1;
        p->logits[row] = round_to_dtype(p->dtype, edge + (row < 32 ? -1 : 1) * ldexp(1, -(int)(row % 32) / 2));
      }
      CHECK_PROBLEM(p, device);
      outcome *o = problem_run(p, device);
      for (int64_t row = 0; row < 64; row++)
        if (p->logits[row] < edge - 1e-9) cr_assert(o->gradient[row] == 0 && o->element_loss[row] == 0);
      outcome_free(o);
      problem_free(p);
    }
  }
}

/* Several labels a row are dense targets of 0 and 1. */
Test(negatives, asymmetric_of_several_labels) {
  FOR_EACH_DEVICE(device) {
    for (size_t n = 0; n < 16; n++) {
      problem *p = problem_new(TARE_LOSS_SIGMOID_ASYMMETRIC, dtypes[n % 4], test_size(120, 30), 23);
      set_sides(p, n);
      problem_draw_targets(p, dtypes[n / 4]);
      for (int64_t i = 0; i < p->rows * 23 && n % 2; i++) p->targets[i] = p->targets[i] > 0.5;
      p->slack = slack_of(p->dtype); /* of targets between 0 and 1 */
      free(p->labels);
      p->labels = NULL;
      check(p, device);
    }
  }
}

/* ---- Reduced focal loss and focal loss star -------------------------------------------------------------------- */

static void set_reduced(problem *p, size_t n) {
  static const double thresholds[] = {0.5, 0.6, 0.9, 1 - 1e-6, 1};
  set(p, "threshold", thresholds[n % COUNT(thresholds)]);
  set(p, "gamma", exponents[n / COUNT(thresholds) % COUNT(exponents)]);
  set(p, "alpha", n % 3 ? -1 : 1e-9);
}

Test(negatives, reduced_focal) {
  FOR_EACH_DEVICE(device) {
    for (size_t n = 0; n < 40; n++)
      check_both(TARE_LOSS_SIGMOID_REDUCED_FOCAL, dtypes[n % 4], n, set_reduced, 0, device);
  }
}

static void set_star(problem *p, size_t n) {
  static const double steepnesses[] = {0.1, 0.5, 1, 2, 4, 1e4}, shifts[] = {0, 1, -1, 20, -1e4, 1e4};
  set(p, "steepness", steepnesses[n % COUNT(steepnesses)]);
  set(p, "shift", shifts[n / COUNT(steepnesses)]);
  set(p, "alpha", n % 3 ? -1 : 1 - 1e-6);
}

Test(negatives, focal_star) {
  FOR_EACH_DEVICE(device) {
    for (size_t n = 0; n < 36; n++) check_both(TARE_LOSS_SIGMOID_FOCAL_STAR, dtypes[n % 4], n, set_star, 0, device);
  }
}

/* ---- Heatmaps -------------------------------------------------------------------------------------------------- */

/* A Gaussian around a peak of each class; its second class has none. */
static void draw_map(problem *p, int64_t side, int64_t classes) {
  free(p->labels);
  p->labels = NULL;
  p->target_dtype = TARE_DTYPE_F32;
  p->targets = calloc((size_t)(p->rows * classes), sizeof *p->targets);
  for (int64_t row = 0; row < p->rows; row++)
    for (int64_t c = 0; c < classes; c++) {
      const double x = (double)(row % side - (3 + 2 * c) % side), y = (double)(row / side % side - (5 + c) % side);
      const double t = c == 1 ? 0 : exp(-(x * x + y * y) / (c == 0 ? 2 : 4000));
      p->targets[row * classes + c] = (double)(float)t;
    }
}

Test(negatives, heatmap_focal) {
  static const double betas[] = {0, 1, 4, 2.5, 50};
  FOR_EACH_DEVICE(device) {
    for (size_t n = 0; n < 40; n++) {
      const level_shape shape = {11, 11, 1};
      problem *p = problem_new_levels(TARE_LOSS_SIGMOID_HEATMAP_FOCAL, dtypes[n % 4], 2, 5, 1, &shape);
      set(p, "gamma", exponents[n % COUNT(exponents)]);
      set(p, "beta", betas[n % COUNT(betas)]);
      draw_map(p, 11, 5);
      for (size_t i = 0; i < COUNT(far_logits); i++) p->logits[7 * i] = round_to_dtype(p->dtype, far_logits[i]);
      p->place[ARRAY_LOGITS].channels_first = p->place[ARRAY_GRADIENT].channels_first = n & 1;
      p->place[ARRAY_TARGETS].channels_first = n & 2;
      if (n % 5 == 0) p->positive_weights = random_class_weights(p, 1);
      p->want &= ~(unsigned)(WANT_COUNTS | WANT_LOSS);
      check(p, device);
    }
  }
}
