/* SPDX-License-Identifier: Apache-2.0 */
/* Batches with little in them. */
#include "limits.h"

/* ---- Batches with little in them ------------------------------------------------------------------------------- */

Test(limits, no_rows) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t d = 0; d < DTYPES; d++) {
        problem *p = problem_new(kind, dtypes[d], 0, 5);
        expect_zeros(p, device);
        problem_free(p);
      }
    }
  }
}

Test(limits, no_images) {
  static const level_shape level = {3, 4, 2};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      problem *p = problem_new_levels(kind, TARE_DTYPE_F32, 0, 5, 1, &level);
      expect_zeros(p, device);
      problem_free(p);
    }
  }
}

/* An empty level needs no memory at all. */
Test(limits, no_rows_and_null_pointers) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      tare_loss_spec loss;
      tare_level level;
      tare_batch batch;
      tare_output output;
      tare_loss_spec_init(&loss, (tare_loss_kind)kind);
      tare_level_init_rows(&level, 0, 3);
      tare_batch_init(&batch);
      batch.levels = &level;
      batch.level_count = 1;
      batch.classes = 3;
      tare_output_init(&output);
      cr_assert_eq(tare_evaluate(device->context, &loss, &batch, &output, NULL), TARE_STATUS_OK, "%s: %s",
                   tare_loss_name(kind), tare_error_text(device->context));
    }
  }
}

Test(limits, all_ignored) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t d = 0; d < DTYPES; d++) {
        problem *p = problem_new(kind, dtypes[d], 50, 5);
        for (int64_t i = 0; i < p->rows; i++) p->labels[i] = p->ignore_label;
        p->logits[7] = NAN;
        expect_zeros(p, device);
        problem_free(p);
      }
    }
  }
}

Test(limits, all_row_weights_zero) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      problem *p = problem_new(kind, TARE_DTYPE_F32, 50, 5);
      p->row_weights = calloc((size_t)p->rows, sizeof *p->row_weights);
      p->logits[7] = NAN;
      expect_zeros(p, device);
      problem_free(p);
    }
  }
}

Test(limits, all_background) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (int32_t normalizer = TARE_NORMALIZER_SUM;
           normalizer <= (is_ghm(kind) ? TARE_NORMALIZER_SUM : TARE_NORMALIZER_WEIGHTS); normalizer++) {
        problem *p = problem_new(kind, TARE_DTYPE_F32, 50, 5);
        for (int64_t i = 0; i < p->rows; i++) p->labels[i] = p->background_label;
        p->normalizer = normalizer; /* positives: max(1, 0) */
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

Test(limits, all_positive) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      problem *p = problem_new(kind, TARE_DTYPE_F32, 50, 5);
      problem_draw_labels(p, 1, 0);
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* A softmax of one class is certain: loss and gradient 0. */
Test(limits, softmax_of_one_class_is_zero) {
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_SOFTMAX_CE; kind <= TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED; kind++) {
      for (size_t g = 0; g < GAMMAS; g++) {
        problem *p = problem_new(kind, TARE_DTYPE_F32, 50, 1);
        if (set_gamma(p, gammas[g])) expect_zeros(p, device);
        problem_free(p);
      }
    }
  }
}

/* Powers below 1 have an infinite slope at q = 0: a certain and right row is still 0 and 0. */
Test(limits, small_powers_at_certainty) {
  static const double small[] = {0.01, 0.1, 0.5, 0.9};
  static const double x[] = {125, 1000, INFINITY, 104};
  FOR_EACH_DEVICE(device) {
    for (size_t g = 0; g < sizeof small / sizeof *small; g++) {
      problem *p = single_elements(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, x, 4, 0);
      p->loss.focal.gamma = small[g];
      CHECK_PROBLEM(p, device);
      outcome *o = problem_run(p, device);
      for (int i = 0; i < 4; i++) cr_assert(o->element_loss[i] >= 0 && o->element_loss[i] < 1e-30);
      outcome_free(o);
      problem_free(p);
    }
  }
}

Test(limits, huge_power) {
  FOR_EACH_DEVICE(device) {
    problem *p = problem_new(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, 100, 5);
    p->loss.focal.gamma = 50;
    CHECK_PROBLEM(p, device);
    problem_free(p);
  }
}
