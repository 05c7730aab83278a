/* SPDX-License-Identifier: Apache-2.0 */
/* Scores and logits far out or out of range, real ones, and the fused head. */
#include "scores.h"

/* ---- Far out --------------------------------------------------------------------------------------------------- */

static const double far_logits[] = {INFINITY, -INFINITY, NAN, 125, -125, 90, -90, 3e4, -3e4, 0, 1e-30, -16, 16};
static const double far_scores[] = {0, 1e-30, 1e-3, 0.5, 0.999, 1};

Test(scores, far_out) {
  static const double gammas[] = {0, 0.05, 0.5, 1, 2, 5, 50}, alphas[] = {-1, 1e-9, 1 - 1e-6};
  enum { LOGITS = COUNT(far_logits), SCORES = COUNT(far_scores) };
  FOR_EACH_DEVICE(device) {
    FOR_EACH_SCORED_LOSS(kind) {
      for (size_t g = 0; g < COUNT(gammas) * COUNT(alphas) * COUNT(dtypes); g++) {
        if (!test_is_due(kind, (int)g)) continue;
        const int32_t dtype = dtypes[g % COUNT(dtypes)];
        problem *p = problem_new(kind, dtype, LOGITS * SCORES, 2);
        problem_draw_scores(p, TARE_DTYPE_F32);
        p->slack = slack_of(dtype);
        set_alpha(p, alphas[g / COUNT(dtypes) % COUNT(alphas)]);
        set_exponent(p, gammas[g / COUNT(dtypes) / COUNT(alphas)]);
        set_dialect(p, g / 2);
        for (int64_t row = 0; row < p->rows; row++) {
          p->logits[2 * row] = p->logits[2 * row + 1] = round_to_dtype(dtype, far_logits[row % LOGITS]);
          p->scores[row] = (double)(float)far_scores[row / LOGITS];
          p->labels[row] = 1;
        }
        p->want &= ~(unsigned)WANT_LOSS;
        CHECK_PROBLEM(p, device);
        p->want &= ~(unsigned)(WANT_ROW_LOSS | WANT_ELEMENT_LOSS);
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* ---- Out of range ---------------------------------------------------------------------------------------------- */

/* The oracle's outcome, and the status that names the row. Keeps the problem. */
static void expect_invalid(problem *p, const test_device *device, int64_t row) {
  outcome *o = problem_run(p, device), *want = problem_expect(p);
  const bool on_cpu = o->device->kind == TARE_DEVICE_CPU;
  char name[64];
  cr_assert_eq(on_cpu ? o->status : o->check_status, TARE_STATUS_INVALID_TARGET, "%s: %s, %s: %s", problem_text(p),
               tare_status_name(o->status), tare_status_name(o->check_status), o->text);
  snprintf(name, sizeof name, "score of row %" PRId64, row);
  cr_assert_not_null(strstr(o->text, name), "no '%s' in: %s", name, o->text);
  cr_assert_gt(want->counts.invalid, 0);
  o->status = TARE_STATUS_OK; /* what it wrote is right */
  CHECK_OUTCOME(p, o, want);
  for (int64_t c = 0; c < p->classes && o->gradient; c++) cr_assert_eq(o->gradient[row * p->classes + c], 0);
  outcome_free(o);
  outcome_free(want);
}

Test(scores, out_of_range_leave_the_row_out) {
  static const double bad[] = {NAN, INFINITY, -INFINITY, 2, -5, 1.00101, -0.00101, 1e4};
  static const double bad_half[] = {NAN, INFINITY, -INFINITY, 2, -5, 1.02, -0.0102, 1e4};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_SCORED_LOSS(kind) {
      for (size_t n = 0; n < COUNT(bad) * COUNT(dtypes); n++) {
        const int32_t dtype = dtypes[n % 4], score_dtype = dtypes[dtype == TARE_DTYPE_F64 ? n / 4 % 4 : n / 4 % 3];
        const bool half = score_dtype == TARE_DTYPE_F16 || score_dtype == TARE_DTYPE_BF16;
        problem *p = scored(kind, dtype, score_dtype, 90, 9);
        const int64_t rows[] = {13, 31, 89};
        for (size_t i = 0; i < COUNT(rows); i++) {
          p->labels[rows[i]] = 4;
          p->scores[rows[i]] = round_to_dtype(score_dtype, (half ? bad_half : bad)[n / 4]);
        }
        p->in_place = n % 2 == 0;
        p->normalizer = (int32_t)(n % 5);
        expect_invalid(p, device, 13);
        p->want = WANT_LOSS | WANT_GRADIENT | WANT_COUNTS; /* without row losses, another way */
        expect_invalid(p, device, 13);
        p->place[ARRAY_LOGITS].channels_first = p->place[ARRAY_GRADIENT].channels_first = true;
        expect_invalid(p, device, 13);
        problem_free(p);
      }
    }
  }
}

Test(scores, rounding_is_taken_for_0_and_1) {
  static const double near[] = {1 + 1e-7, 1.001, 1.0005, -1e-3, -1e-9, -0.0, -5e-4}, near_half[] = {1.0078125, -0.01};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_SCORED_LOSS(kind) {
      for (size_t d = 0; d < 3; d++) {
        problem *p = scored(kind, dtypes[d], dtypes[2 - d], 80, 5);
        for (int64_t row = 0; row < p->rows; row++) {
          const bool half = dtypes[2 - d] != TARE_DTYPE_F32;
          const double score = half ? near_half[row % 2] : near[row % (int64_t)COUNT(near)];
          p->scores[row] = round_to_dtype(dtypes[2 - d], score);
        }
        CHECK_PROBLEM(p, device);
        outcome *outside = problem_run(p, device);
        for (int64_t row = 0; row < p->rows; row++) p->scores[row] = p->scores[row] < 0.5 ? 0 : 1;
        outcome *inside = problem_run(p, device);
        CHECK_SAME_OUTCOME(p, outside, inside);
        outcome_free(outside);
        outcome_free(inside);
        problem_free(p);
      }
    }
  }
}

/* Rows without a class, ignored, or of weight 0, and labels' elements of weight 0. */
Test(scores, that_are_not_read_may_be_anything) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_SCORED_LOSS(kind) {
      for (size_t d = 0; d < COUNT(dtypes); d++) {
        problem *p = scored(kind, dtypes[d], TARE_DTYPE_F32, 200, 8);
        problem_draw_row_weights(p);
        problem_draw_element_weights(p);
        p->slack *= 8;
        for (int64_t row = 0; row < p->rows; row++) {
          const int64_t label = p->labels[row];
          if (label < 0 || p->row_weights[row] == 0 || p->element_weights[row * 8 + label] == 0)
            p->scores[row] = row % 2 ? NAN : -1e30;
        }
        outcome *o = problem_run(p, device);
        cr_assert_eq(o->status, TARE_STATUS_OK, "%s: %s", problem_text(p), o->text);
        cr_assert_eq(o->check_status, TARE_STATUS_OK, "%s: %s", problem_text(p), o->text);
        outcome_free(o);
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

Test(scores, the_first_of_many_is_named) {
  static const level_shape shapes[] = {{40, 50, 3}, {20, 30, 3}};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_SCORED_LOSS(kind) {
      if (!test_is_due(kind, 0)) continue;
      problem *p = problem_new_levels(kind, TARE_DTYPE_F32, 2, 5, 2, shapes);
      problem_draw_scores(p, TARE_DTYPE_F32);
      p->slack = slack_of(p->dtype);
      for (int64_t row = p->rows - 1; row >= 977; row -= 1000) p->labels[row] = 1, p->scores[row] = -7;
      const int64_t first = (p->rows - 1) % 1000 >= 977 ? (p->rows - 1) % 1000 : (p->rows - 1) % 1000 + 1000;
      expect_invalid(p, device, first);
      p->place[ARRAY_SCORES].channels_first = true;
      expect_invalid(p, device, first);
      problem_free(p);
    }
  }
}

/* ---- A detector's outputs ---------------------------------------------------------------------------------------- */

Test(scores, of_a_detectors_boxes) {
  static const char *const states[] = {"early", "late"};
  FOR_EACH_DEVICE(device) {
    FOR_EACH_SCORED_LOSS(kind) {
      for (size_t s = 0; s < COUNT(states); s++) {
        problem *p = problem_of_detector(kind, states[s]);
        p->slack = slack_of(TARE_DTYPE_F32);
        p->normalizer = TARE_NORMALIZER_POSITIVES;
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* ---- The fused head -------------------------------------------------------------------------------------------- */

Test(scores, of_a_fused_head) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    FOR_EACH_SCORED_LOSS(kind) {
      problem *p = head_problem(kind, TARE_DTYPE_F32, test_size(3000, 1300), 9, 6);
      problem_draw_scores(p, TARE_DTYPE_F16);
      p->slack = slack_of(TARE_DTYPE_F32);
      p->head->room = 0; /* several chunks */
      p->normalizer = TARE_NORMALIZER_POSITIVES;
      CHECK_PROBLEM(p, device);
      p->labels[1111] = 3; /* beyond the first chunk of any device */
      p->scores[1111] = NAN;
      expect_invalid(p, device, 1111);
      problem_free(p);
    }
  }
}
