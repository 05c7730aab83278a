/* SPDX-License-Identifier: Apache-2.0 */
/* Every convention of labels gives the same numbers. */
#include "labels.h"

Test(labels, conventions) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t c = 0; c < sizeof conventions / sizeof *conventions; c++) {
        for (int32_t type = TARE_LABEL_DTYPE_I32; type <= TARE_LABEL_DTYPE_I64; type++) {
          problem *p = in_convention(kind, conventions[c], type);
          CHECK_PROBLEM(p, device);
          if (!is_ghm(kind)) {
            p->normalizer = TARE_NORMALIZER_POSITIVES;
            CHECK_PROBLEM(p, device);
            p->normalizer = TARE_NORMALIZER_ELEMENTS;
            CHECK_PROBLEM(p, device);
          }
          problem_free(p);
        }
      }
    }
  }
}

/* The sums that a background inside the range leaves, by hand: logits 0, so every element of a sigmoid loss is log 2
 * and a softmax row log C, and nothing but the meaning of the labels decides. */
Test(labels, background_inside_the_range_by_hand) {
  const double log2 = 0.69314718055994531, log7 = 1.9459101490553132;
  FOR_EACH_DEVICE(device) {
    problem *sigmoid = in_convention(TARE_LOSS_SIGMOID_CE, (convention){0, 3, -100}, TARE_LABEL_DTYPE_I32);
    problem *softmax = in_convention(TARE_LOSS_SOFTMAX_CE, (convention){0, 3, -100}, TARE_LABEL_DTYPE_I32);
    problem *both[2] = {sigmoid, softmax};
    for (int i = 0; i < 2; i++) {
      problem *p = both[i];
      memset(p->logits, 0, (size_t)(p->rows * p->classes) * sizeof *p->logits);
      memset(p->labels, 0, (size_t)p->rows * sizeof *p->labels);
      p->labels[0] = 3;
      p->labels[1] = -100;
      outcome *o = problem_run(p, device);
      cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
      const double counted = (double)(p->rows - 1);
      CHECK_NEAR("loss", o->loss, counted * (i == 0 ? CLASSES * log2 : log7), ((tolerance){0, 1e-6}));
      cr_assert_eq(o->counts.positives, p->rows - 2);
      cr_assert_eq(o->counts.background, 1);
      cr_assert_eq(o->counts.ignored, 1);
      cr_assert_eq(o->counts.counted, p->rows - 1);
      /* The background row: zeros everywhere for a sigmoid loss, class 3 for a softmax loss. */
      CHECK_NEAR("class 3 of row 0", o->gradient[3], i == 0 ? 0.5 : 1.0 / 7 - 1, ((tolerance){0, 1e-6}));
      CHECK_NEAR("class 0 of row 0", o->gradient[0], i == 0 ? 0.5 : 1.0 / 7, ((tolerance){0, 1e-6}));
      CHECK_NEAR("class 0 of row 1", o->gradient[CLASSES], 0, ((tolerance){0, 0}));
      outcome_free(o);
      problem_free(p);
    }
  }
}

/* A background that is no class: a softmax row of it does not count. */
Test(labels, softmax_background_outside_the_range_adds_nothing) {
  FOR_EACH_DEVICE(device) {
    problem *p = in_convention(TARE_LOSS_SOFTMAX_CE, (convention){0, CLASSES, -1}, TARE_LABEL_DTYPE_I32);
    p->labels[0] = CLASSES;
    outcome *o = problem_run(p, device);
    cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
    for (int c = 0; c < CLASSES; c++) CHECK_NEAR("background row", o->gradient[c], 0, ((tolerance){0, 0}));
    CHECK_NEAR("background row", o->row_loss[0], 0, ((tolerance){0, 0}));
    cr_assert_eq(o->counts.counted, o->counts.positives);
    cr_assert_gt(o->counts.background, 0);
    outcome_free(o);
    problem_free(p);
  }
}
