/* SPDX-License-Identifier: Apache-2.0 */
/* What they refuse, and that their gradients are those of their values. */
#include "negatives.h"

static problem *smoothed(int32_t kind) {
  problem *p = problem_new(kind, TARE_DTYPE_F32, 8, 3);
  set(p, "label_smoothing", 0.1);
  return p;
}

Test(negatives, what_label_smoothing_cannot_be_combined_with) {
  FOR_EACH_DEVICE(device) {
    problem *p = smoothed(TARE_LOSS_SIGMOID_FOCAL);
    problem_draw_targets(p, TARE_DTYPE_F32);
    CHECK_REFUSED(p, device, TARE_STATUS_UNSUPPORTED, "label_smoothing");
    p = smoothed(TARE_LOSS_SIGMOID_CE);
    problem_draw_scores(p, TARE_DTYPE_F32);
    CHECK_REFUSED(p, device, TARE_STATUS_UNSUPPORTED, "label_smoothing");
    p = smoothed(TARE_LOSS_SIGMOID_FOCAL);
    set(p, "smoothed", TARE_SMOOTHED_ALL);
    p->alpha_per_class = random_class_weights(p, 1);
    CHECK_REFUSED(p, device, TARE_STATUS_UNSUPPORTED, "TARE_SMOOTHED_ALL");
    p = smoothed(TARE_LOSS_SOFTMAX_CE);
    problem_draw_targets(p, TARE_DTYPE_F32);
    CHECK_REFUSED(p, device, TARE_STATUS_UNSUPPORTED, "label_smoothing");
    p = smoothed(TARE_LOSS_SOFTMAX_CE);
    p->loss.ce.smoothed = TARE_SMOOTHED_ALL;
    CHECK_REFUSED(p, device, TARE_STATUS_UNSUPPORTED, "loss->ce.smoothed is 1");
    p = smoothed(TARE_LOSS_SOFTMAX_FOCAL);
    set(p, "smoothed", TARE_SMOOTHED_ALL);
    p->alpha_per_class = random_class_weights(p, 1);
    CHECK_REFUSED(p, device, TARE_STATUS_UNSUPPORTED, "TARE_SMOOTHED_ALL");
  }
}

Test(negatives, what_z_loss_cannot_be_combined_with) {
  FOR_EACH_DEVICE(device) {
    for (int i = 0; i < 2; i++) {
      problem *p = problem_new(i ? TARE_LOSS_SOFTMAX_CE : TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED, TARE_DTYPE_F32, 8, 3);
      set(p, "z_loss", 1e-4);
      problem_draw_targets(p, TARE_DTYPE_F32);
      CHECK_REFUSED(p, device, TARE_STATUS_UNSUPPORTED, "loss->z_loss above 0");
    }
    problem *p = problem_new(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 8, 3);
    p->loss.ce.z_loss = 1e-4;
    CHECK_REFUSED(p, device, TARE_STATUS_UNSUPPORTED, "loss->ce.z_loss is 0.0001");
  }
}

Test(negatives, parameters_out_of_range) {
  static const struct {
    int32_t kind;
    const char *name;
    double value;
    const char *text;
  } cases[] = {{TARE_LOSS_SIGMOID_CE, "label_smoothing", 1, "label_smoothing is 1"},
               {TARE_LOSS_SIGMOID_FOCAL, "label_smoothing", -0.1, "label_smoothing is -0.1"},
               {TARE_LOSS_SIGMOID_FOCAL, "label_smoothing", 1e-40, "label_smoothing is 1e-40"},
               {TARE_LOSS_SIGMOID_FOCAL, "label_smoothing", NAN, "label_smoothing is nan"},
               {TARE_LOSS_SIGMOID_CE, "smoothed", 2, "smoothed is 2"},
               {TARE_LOSS_SOFTMAX_CE, "label_smoothing", 1, "label_smoothing is 1"},
               {TARE_LOSS_SOFTMAX_FOCAL, "label_smoothing", 1e-40, "label_smoothing is 1e-40"},
               {TARE_LOSS_SOFTMAX_CE, "z_loss", -1e-4, "z_loss is -0.0001"},
               {TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED, "z_loss", NAN, "z_loss is nan"},
               {TARE_LOSS_SIGMOID_ASYMMETRIC, "margin", 1e-9, "margin is 1e-09"},
               {TARE_LOSS_SIGMOID_ASYMMETRIC, "margin", 1.5, "margin is 1.5"},
               {TARE_LOSS_SIGMOID_ASYMMETRIC, "gamma_negative", -1, "gamma_negative is -1"},
               {TARE_LOSS_SIGMOID_REDUCED_FOCAL, "threshold", 0.25, "threshold is 0.25"},
               {TARE_LOSS_SIGMOID_FOCAL_STAR, "steepness", 0, "steepness is 0"},
               {TARE_LOSS_SIGMOID_FOCAL_STAR, "shift", INFINITY, "shift is inf"},
               {TARE_LOSS_SIGMOID_HEATMAP_FOCAL, "beta", -1, "beta is -1"}};
  FOR_EACH_DEVICE(device) {
    for (size_t i = 0; i < COUNT(cases); i++) {
      problem *p = problem_new(cases[i].kind, TARE_DTYPE_F32, 8, 3);
      set(p, cases[i].name, cases[i].value);
      CHECK_REFUSED(p, device, TARE_STATUS_INVALID_ARGUMENT, cases[i].text);
    }
  }
}

/* Near a peak they round to 1. */
Test(negatives, heatmaps_of_16_bits_are_refused) {
  FOR_EACH_DEVICE(device) {
    for (int32_t dtype = TARE_DTYPE_F16; dtype <= TARE_DTYPE_BF16; dtype++) {
      problem *p = problem_new(TARE_LOSS_SIGMOID_HEATMAP_FOCAL, TARE_DTYPE_F32, 8, 3);
      problem_draw_targets(p, TARE_DTYPE_F32);
      p->target_dtype = dtype;
      CHECK_REFUSED(p, device, TARE_STATUS_UNSUPPORTED, "target_dtype");
    }
  }
}

/* Where nothing is detached. */
Test(negatives, gradients_are_finite_differences) {
  static const int32_t kinds[] = {TARE_LOSS_SIGMOID_CE,
                                  TARE_LOSS_SIGMOID_FOCAL,
                                  TARE_LOSS_SIGMOID_FOCAL,
                                  TARE_LOSS_SIGMOID_ASYMMETRIC,
                                  TARE_LOSS_SIGMOID_ASYMMETRIC,
                                  TARE_LOSS_SIGMOID_REDUCED_FOCAL,
                                  TARE_LOSS_SIGMOID_FOCAL_STAR,
                                  TARE_LOSS_SIGMOID_HEATMAP_FOCAL,
                                  TARE_LOSS_SOFTMAX_CE,
                                  TARE_LOSS_SOFTMAX_FOCAL,
                                  TARE_LOSS_SOFTMAX_FOCAL,
                                  TARE_LOSS_SOFTMAX_CE,
                                  TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED};
  FOR_EACH_DEVICE(device) {
    for (size_t n = 0; n < COUNT(kinds); n++) {
      problem *p = problem_new(kinds[n], TARE_DTYPE_F64, 12, 4);
      p->loss_dtype = TARE_DTYPE_F64;
      const bool is_row = n >= 8;
      if (n < 3 || (is_row && n < 12)) set(p, "label_smoothing", 0.2);
      if (n >= 11) set(p, "z_loss", 0.3);
      if (n == 2 || n == 10) set(p, "smoothed", TARE_SMOOTHED_ALL);
      if (n == 3) set(p, "margin", 0);
      if (n >= 4 && !is_row) problem_draw_targets(p, TARE_DTYPE_F64);
      outcome *whole = problem_run(p, device);
      for (int64_t i = 0; i < p->rows * 4; i++) {
        const double x = p->logits[i], h = 1e-5;
        if (fabs(x) < 0.01) continue; /* where reduced focal loss has a corner */
        p->logits[i] = x + h;
        outcome *above = problem_run(p, device);
        p->logits[i] = x - h;
        outcome *below = problem_run(p, device);
        p->logits[i] = x;
        cr_assert_float_eq(whole->gradient[i], (above->loss - below->loss) / (2 * h), 1e-7, "%s: element %d",
                           problem_text(p), (int)i);
        outcome_free(above);
        outcome_free(below);
      }
      outcome_free(whole);
      problem_free(p);
    }
  }
}
