/* SPDX-License-Identifier: Apache-2.0 */
/* What a score does, against the oracle. */
#include "scores.h"

/* ---- Values ---------------------------------------------------------------------------------------------------- */

Test(scores, every_type) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_SCORED_LOSS(kind) {
      for (size_t d = 0; d < COUNT(dtypes); d++) {
        for (size_t s = 0; s < COUNT(dtypes); s++) {
          if (dtypes[s] == TARE_DTYPE_F64 && dtypes[d] != TARE_DTYPE_F64) continue;
          problem *p = scored(kind, dtypes[d], dtypes[s], test_size(400, 60), 13);
          CHECK_PROBLEM(p, device);
          p->want = WANT_LOSS | WANT_GRADIENT | WANT_COUNTS; /* on a GPU a shorter way */
          p->in_place = s % 2 == 0;
          CHECK_PROBLEM(p, device);
          problem_free(p);
        }
      }
    }
  }
}

Test(scores, sizes) {
  static const int64_t classes[] = {1, 2, 3, 16, 17, 80, 81, 1203, 20011};
  static const int64_t rows[] = {1, 2, 17, 1000};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_SCORED_LOSS(kind) {
      for (size_t c = 0; c < COUNT(classes); c++) {
        for (size_t r = 0; r < COUNT(rows); r++) {
          if (rows[r] * classes[c] > test_size(400000, 20000)) continue;
          problem *p = scored(kind, TARE_DTYPE_F32, TARE_DTYPE_F16, rows[r], classes[c]);
          if (c % 2) p->want = WANT_LOSS | WANT_GRADIENT | WANT_COUNTS;
          CHECK_PROBLEM(p, device);
          problem_free(p);
        }
      }
    }
  }
}

Test(scores, every_weight_and_normalizer) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_SCORED_LOSS(kind) {
      for (int32_t normalizer = TARE_NORMALIZER_SUM; normalizer <= TARE_NORMALIZER_VALUE; normalizer++) {
        problem *p = scored(kind, TARE_DTYPE_F32, TARE_DTYPE_F32, test_size(900, 70), 11);
        set_alpha(p, 0.3);
        problem_draw_row_weights(p);
        problem_draw_element_weights(p);
        p->positive_weights = random_class_weights(p, 1);
        p->class_weights = random_class_weights(p, 2);
        p->background_weight = 0.75;
        p->normalizer = normalizer;
        p->normalizer_value = 9.5;
        p->slack *= 12;
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

Test(scores, of_every_exponent) {
  static const double gammas[] = {0, 0.05, 0.5, 1, 1.5, 2, 3.7, 5, 50};
  static const double alphas[] = {-1, 0, 1e-9, 0.75, 1 - 1e-6, 1, 3};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_SCORED_LOSS(kind) {
      for (size_t g = 0; g < COUNT(gammas) * COUNT(alphas); g++) {
        const size_t a = g / COUNT(gammas);
        if ((kind == TARE_LOSS_SIGMOID_CE && g % COUNT(gammas)) || !test_is_due(kind, (int)g)) continue;
        problem *p = scored(kind, dtypes[(g + a) % 4], TARE_DTYPE_F32, test_size(120, 30), 19);
        const double gamma = gammas[g % COUNT(gammas)];
        set_exponent(p, kind == TARE_LOSS_SIGMOID_FOCAL ? fmin(gamma, 5) : gamma); /* 50 leaves nothing to compare */
        set_alpha(p, fmin(alphas[a], most_alpha(kind)));
        set_dialect(p, g);
        problem_keep_off_p(p);
        CHECK_PROBLEM(p, device);
        p->want = WANT_LOSS | WANT_GRADIENT;
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* ---- Layouts --------------------------------------------------------------------------------------------------- */

Test(scores, every_layout) {
  static const level_shape shapes[] = {{4, 5, 3}, {2, 3, 3}, {8, 8, 3}};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_SCORED_LOSS(kind) {
      for (int way = 0; way < 24; way++) {
        if (!test_is_due(kind, way)) continue;
        problem *p = problem_new_levels(kind, dtypes[way % 4], 2, way & 4 ? 7 : 8, 3, shapes);
        problem_draw_scores(p, TARE_DTYPE_F16);
        p->slack = slack_of(p->dtype);
        p->place[ARRAY_LOGITS].channels_first = p->place[ARRAY_GRADIENT].channels_first = way & 1;
        p->image_major = (way & 2) != 0;
        p->in_place = way % 3 == 0;
        if (!p->image_major) {
          p->place[ARRAY_SCORES].channels_first = way & 4;
          p->place[ARRAY_SCORES].pad[AXIS_X] = way % 3;
          p->place[ARRAY_SCORES].flip = way % 5 == 0 ? 1u << AXIS_Y | 1u << AXIS_ANCHOR : 0;
        }
        if (way & 8) p->want = WANT_LOSS | WANT_GRADIENT | WANT_COUNTS;
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* A stride of 0: one score for a row of pixels. */
Test(scores, broadcast) {
  static const level_shape shape = {4, 9, 2};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_SCORED_LOSS(kind) {
      problem *p = problem_new_levels(kind, TARE_DTYPE_F32, 3, 5, 1, &shape);
      problem_draw_scores(p, TARE_DTYPE_F32);
      p->slack = slack_of(p->dtype);
      for (int64_t row = 0; row < p->rows; row++) p->scores[row] = (double)(row / 18 % 4) / 4;
      p->place[ARRAY_SCORES].broadcast = 1u << AXIS_IMAGE | 1u << AXIS_X | 1u << AXIS_ANCHOR;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* A level without scores has scores of 1. */
static tare_status without_scores_of_level_1(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                             const tare_output *output, void *user) {
  tare_level levels[2];
  tare_batch changed = *batch;
  (void)user;
  memcpy(levels, batch->levels, sizeof levels);
  levels[1].scores = NULL;
  changed.levels = levels;
  return tare_evaluate(context, loss, &changed, output, NULL);
}

Test(scores, a_level_may_have_none) {
  static const level_shape shapes[] = {{4, 5, 3}, {3, 4, 3}};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_SCORED_LOSS(kind) {
      problem *p = problem_new_levels(kind, TARE_DTYPE_F32, 2, 8, 2, shapes);
      problem_draw_scores(p, TARE_DTYPE_F32);
      p->slack = slack_of(p->dtype);
      for (int64_t row = 120; row < p->rows; row++) p->scores[row] = 1;
      outcome *want = problem_expect(p);
      p->call = without_scores_of_level_1;
      outcome *got = problem_run(p, device);
      CHECK_OUTCOME(p, got, want);
      outcome_free(got);
      outcome_free(want);
      problem_free(p);
    }
  }
}

/* ---- What a score means ---------------------------------------------------------------------------------------- */

/* A score of 1 is the label, bit for bit. */
Test(scores, of_1_are_none) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_SCORED_LOSS(kind) {
      for (size_t d = 0; d < COUNT(dtypes); d++) {
        problem *p = problem_new(kind, dtypes[d], test_size(300, 60), 21);
        set_alpha(p, 0.4);
        outcome *labels = problem_run(p, device);
        problem_draw_scores(p, TARE_DTYPE_F32);
        for (int64_t row = 0; row < p->rows; row++) p->scores[row] = 1;
        outcome *scores = problem_run(p, device);
        CHECK_SAME_OUTCOME(p, scores, labels);
        outcome_free(labels);
        outcome_free(scores);
        problem_free(p);
      }
    }
  }
}

/* Without alpha in cross-entropy, a score is a dense target in the label's column. */
Test(scores, are_dense_targets_of_one_column) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_SCORED_LOSS(kind) {
      problem *p = scored(kind, TARE_DTYPE_F32, TARE_DTYPE_F32, test_size(300, 60), 9);
      const bool is_positive_at_0 = kind == TARE_LOSS_SIGMOID_MATCHABILITY || kind == TARE_LOSS_SIGMOID_IOU_AWARE;
      set_alpha(p, -1);
      for (int64_t row = 0; is_positive_at_0 && row < p->rows; row++)
        if (p->scores[row] == 0) p->scores[row] = 0.25;
      p->want = WANT_ALL & ~(unsigned)WANT_COUNTS;
      outcome *scores = problem_run(p, device);
      cr_assert_eq(scores->status, TARE_STATUS_OK, "%s", scores->text);
      p->targets = calloc((size_t)(p->rows * 9), sizeof *p->targets);
      for (int64_t row = 0; row < p->rows; row++)
        if (p->labels[row] >= 0) p->targets[row * 9 + p->labels[row]] = p->scores[row];
      free(p->scores);
      p->scores = NULL;
      outcome *targets = problem_run(p, device);
      CHECK_OUTCOME(p, scores, targets);
      outcome_free(scores);
      outcome_free(targets);
      problem_free(p);
    }
  }
}

/* Rows whose labels have scores of 0 are positives, and a divisor. */
Test(scores, of_0_are_positives) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_SCORED_LOSS(kind) {
      problem *p = scored(kind, TARE_DTYPE_F32, TARE_DTYPE_F32, 50, 6);
      int64_t positives = 0;
      for (int64_t row = 0; row < p->rows; row++) p->scores[row] = 0, positives += p->labels[row] >= 0;
      p->normalizer = TARE_NORMALIZER_POSITIVES;
      outcome *o = problem_run(p, device);
      cr_assert_eq(o->counts.positives, positives);
      outcome_free(o);
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* A label with score 0 is a negative, or nothing, even with a logit that is not a number. */
Test(scores, positives_by_label_weigh_their_score) {
  static const double logits[] = {2, INFINITY, -INFINITY, NAN, -125, 125};
  FOR_EACH_DEVICE(device) {
    for (size_t d = 0; d < COUNT(dtypes); d++) {
      problem *p = scored(TARE_LOSS_SIGMOID_VARIFOCAL, dtypes[d], TARE_DTYPE_F32, COUNT(logits), 3);
      for (int64_t row = 0; row < p->rows; row++) {
        p->logits[row * 3 + 1] = logits[row];
        p->labels[row] = 1;
        p->scores[row] = 0;
      }
      p->want = WANT_GRADIENT | WANT_ELEMENT_LOSS | WANT_COUNTS;
      CHECK_PROBLEM(p, device);
      p->loss.varifocal.positives = TARE_POSITIVES_BY_LABEL;
      CHECK_PROBLEM(p, device);
      outcome *o = problem_run(p, device);
      cr_assert_eq(o->counts.positives, p->rows);
      for (int64_t row = 0; row < p->rows; row++) {
        cr_assert_eq(o->gradient[row * 3 + 1], 0);
        cr_assert_eq(o->element_loss[row * 3 + 1], 0);
      }
      outcome_free(o);
      p->targets = calloc((size_t)(p->rows * 3), sizeof *p->targets);
      free(p->scores);
      p->scores = NULL;
      o = problem_run(p, device);
      cr_assert_eq(o->status, TARE_STATUS_UNSUPPORTED);
      cr_assert_not_null(strstr(o->text, "TARE_POSITIVES_BY_LABEL"), "%s", o->text);
      outcome_free(o);
      problem_free(p);
    }
  }
}

/* Quality focal loss has no gradient where p = t, also with an exponent below 1. */
Test(scores, a_score_that_is_p_has_no_gradient) {
  static const double betas[] = {0.05, 0.5, 1, 1.5, 2, 5, 50};
  FOR_EACH_DEVICE(device) {
    for (size_t n = 0; n < COUNT(betas) * COUNT(dtypes); n++) {
      problem *p = problem_new(TARE_LOSS_SIGMOID_QUALITY_FOCAL, dtypes[n % 4], 8, 1);
      problem_draw_scores(p, TARE_DTYPE_F32);
      p->loss.quality_focal.beta = betas[n / 4];
      for (int64_t row = 0; row < 8; row++) p->logits[row] = 0, p->labels[row] = 0, p->scores[row] = 0.5;
      CHECK_PROBLEM(p, device);
      p->want = WANT_LOSS | WANT_GRADIENT;
      outcome *o = problem_run(p, device);
      for (int64_t row = 0; row < 8; row++) cr_assert_eq(o->gradient[row], 0, "beta %g", betas[n / 4]);
      cr_assert_eq(o->loss, 0);
      outcome_free(o);
      problem_free(p);
    }
  }
}

/* The detached modulator changes the gradient of negatives alone. */
Test(scores, a_detached_modulator_is_no_part_of_the_gradient) {
  FOR_EACH_DEVICE(device) {
    problem *p = scored(TARE_LOSS_SIGMOID_VARIFOCAL, TARE_DTYPE_F64, TARE_DTYPE_F64, 40, 7);
    outcome *through = problem_run(p, device);
    p->loss.varifocal.modulator = TARE_MODULATOR_DETACHED;
    outcome *detached = problem_run(p, device);
    cr_assert_eq(through->loss, detached->loss);
    for (int64_t i = 0; i < p->rows * 7; i++) {
      const int64_t label = p->labels[i / 7];
      if (label == p->ignore_label) continue;
      if (label == i % 7 && p->scores[i / 7] > 0) {
        cr_assert_eq(through->gradient[i], detached->gradient[i]);
      } else {
        const double q = 1 / (1 + exp(-p->logits[i]));
        CHECK_NEAR("gradient", detached->gradient[i], 0.75 * q * q * q, ((tolerance){1e-290, 1e-13}));
      }
    }
    outcome_free(through);
    outcome_free(detached);
    problem_free(p);
  }
}

/* The gradient is the derivative of the loss that the library gives, where nothing of it is detached. */
Test(scores, gradients_are_finite_differences) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_SCORED_LOSS(kind) {
      problem *p = scored(kind, TARE_DTYPE_F64, TARE_DTYPE_F64, 12, 4);
      p->loss_dtype = TARE_DTYPE_F64;
      set_if(p, "modulator", TARE_MODULATOR_DIFFERENTIATED);
      set_if(p, "p_exponent", 0); /* the target is then the score */
      outcome *whole = problem_run(p, device);
      for (int64_t i = 0; i < p->rows * 4; i++) {
        const double x = p->logits[i], h = 1e-5;
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
