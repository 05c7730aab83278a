/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sums of each class in a fused head: those of the oracle for every loss and size of workspace, the bits of the same
 * logits where a head has one chunk, and no other output changed by them.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "support/head.h"
#include "support/numbers.h"

static const double rooms[] = {0, 0.3, 1};
enum { ROOMS = sizeof rooms / sizeof *rooms };

/* GHM-R has columns and no classes. */
#define FOR_EACH_SUMMED_LOSS(kind) FOR_EACH_LOSS(kind) if ((kind) != TARE_LOSS_GHM_R)

/** Calls the problem with the least workspace, an ample one and one between. */
static void check_every_room(problem *p, const test_device *device) {
  outcome *want = problem_expect(p);
  for (int r = 0; r < ROOMS; r++) {
    p->head->room = rooms[r];
    outcome *got = problem_run(p, device);
    CHECK_OUTCOME(p, got, want);
    outcome_free(got);
  }
  outcome_free(want);
}

/** Everything that the loss can weigh, and a divisor and a scale, which the sums do not know. */
static problem *weighted_head(int32_t kind, int32_t dtype, int64_t rows, int64_t classes) {
  problem *p = head_problem(kind, dtype, rows, classes, 12);
  p->want |= WANT_CLASS_SUMS;
  p->gradient_scale = 3;
  problem_draw_row_weights(p);
  if (is_ghm(kind)) return p;
  p->normalizer = TARE_NORMALIZER_ROWS;
  p->class_weights = random_class_weights(p, 1);
  p->background_weight = 0.5;
  if (is_softmax(kind)) return p;
  problem_draw_element_weights(p);
  p->positive_weights = random_class_weights(p, 2);
  return p;
}

/* With the least workspace several chunks; of three classes a chunk has several slices on a CPU. */
Test(linear_class_sums, every_loss_and_type) {
  static const int64_t shapes[][2] = {{300, 60}, {2500, 3}, {1100, 1}};
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    FOR_EACH_SUMMED_LOSS(kind) {
      for (int i = 0; i < 3; i++) {
        if (i > 0 && !test_is_due(kind, i)) continue;
        problem *p = weighted_head(kind, i, shapes[i][0], shapes[i][1]);
        check_every_room(p, device);
        p->want = WANT_CLASS_SUMS;
        p->head->outputs = i == 0 ? 0 : HEAD_BIAS;
        check_every_room(p, device);
        problem_free(p);
      }
    }
  }
}

Test(linear_class_sums, classes_with_weights_and_exponents) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    for (int i = 0; i < 2; i++) {
      problem *p = weighted_head(i ? TARE_LOSS_SIGMOID_FOCAL : TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 300, 60);
      p->negative_weights = random_class_weights(p, 3);
      if (i) p->gamma_per_class = random_class_weights(p, 4);
      check_every_room(p, device);
      problem_free(p);
    }
  }
}

Test(linear_class_sums, dense_targets_and_scores) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    FOR_EACH_SUMMED_LOSS(kind) {
      for (int scored = 0; scored < 2; scored++) {
        if (is_softmax(kind) || (scored && !takes_scores(kind))) continue;
        problem *p = head_problem(kind, TARE_DTYPE_F32, 300, 60, 12);
        p->want |= WANT_CLASS_SUMS;
        if (scored)
          problem_draw_scores(p, TARE_DTYPE_F32);
        else
          problem_draw_targets(p, TARE_DTYPE_F32);
        problem_keep_off_p(p);
        p->slack = 2e-5;
        if (is_ghm(kind)) p->head->outputs = 0; /* the slack of its small gradients would let zeros pass */
        check_every_room(p, device);
        problem_free(p);
      }
    }
  }
}

Test(linear_class_sums, masked_classes_and_ignored_rows) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    FOR_EACH_SUMMED_LOSS(kind) {
      problem *p = weighted_head(kind, TARE_DTYPE_F32, 300, 60);
      problem_draw_labels(p, 0.1, 0.7);
      if (!is_softmax(kind)) problem_draw_class_mask(p, 0.5);
      check_every_room(p, device);
      for (int64_t i = 0; i < p->rows; i++) p->labels[i] = p->ignore_label;
      p->drawn = true; /* nothing counts */
      check_every_room(p, device);
      problem_free(p);
    }
  }
}

Test(linear_class_sums, few_rows_and_none) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    FOR_EACH_SUMMED_LOSS(kind) {
      for (int64_t rows = 0; rows <= 2; rows++) {
        problem *p = head_problem(kind, TARE_DTYPE_F32, rows, 5, 7);
        p->want |= WANT_CLASS_SUMS;
        p->drawn = true; /* a row may be ignored */
        check_every_room(p, device);
        problem_free(p);
      }
    }
  }
}

Test(linear_class_sums, gradient_density) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    problem *p = head_problem(TARE_LOSS_GHM_C, TARE_DTYPE_F32, 300, 60, 20);
    p->want |= WANT_CLASS_SUMS;
    problem_add_ghm_state(p);
    p->loss.ghm.momentum = 0.75;
    for (int step = 0; step < ROOMS; step++) {
      p->loss.ghm.use_stored_density = step == 2;
      p->head->room = rooms[step];
      CHECK_PROBLEM(p, device);
    }
    problem_free(p);
  }
}

/* ---- The same bits ----------------------------------------------------------------------------------------------- */

/* The logits are exact, so a head of one chunk has those that are given to it. */
Test(linear_class_sums, of_one_chunk_are_those_of_its_logits) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    FOR_EACH_SUMMED_LOSS(kind) {
      problem *p = weighted_head(kind, TARE_DTYPE_F32, 1100, 7);
      p->want = WANT_CLASS_SUMS;
      p->head->room = 1;
      outcome *fused = problem_run(p, device);
      struct head *const head = p->head;
      p->head = NULL;
      outcome *formed = problem_run(p, device);
      CHECK_SAME_OUTCOME(p, fused, formed);
      p->head = head;
      outcome_free(fused);
      outcome_free(formed);
      problem_free(p);
    }
  }
}

static outcome *run_with_threads(problem *p, const test_device *device, int32_t threads) {
  p->context = device_context(device, device->host_memory ? threads : 0);
  outcome *o = problem_run(p, device);
  tare_context_destroy(p->context);
  p->context = NULL;
  return o;
}

/* Neither threads nor other outputs change a bit; nor do the sums change the other outputs. */
Test(linear_class_sums, the_same_bits) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    FOR_EACH_SUMMED_LOSS(kind) {
      problem *p = weighted_head(kind, TARE_DTYPE_F32, test_size(3000, 1100), 3);
      p->head->room = kind % 2;
      const unsigned all = p->want;
      outcome *first = run_with_threads(p, device, 1), *again = run_with_threads(p, device, 3);
      CHECK_SAME_OUTCOME(p, again, first);
      p->want = all & ~(unsigned)WANT_CLASS_SUMS;
      outcome *without = problem_run(p, device);
      CHECK_SAME_OUTCOME(p, without, first);
      p->want = WANT_CLASS_SUMS;
      p->gradient_scale = 1e-30;
      outcome *alone = problem_run(p, device);
      check_same(__FILE__, __LINE__, problem_text(p), alone->class_sums, first->class_sums, 4 * (size_t)p->classes);
      outcome_free(first);
      outcome_free(again);
      outcome_free(without);
      outcome_free(alone);
      problem_free(p);
    }
  }
}

/* ---- Rows that are refused --------------------------------------------------------------------------------------- */

Test(linear_class_sums, invalid_rows_add_nothing) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    problem *p = head_problem(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 900, 30, 12);
    p->want |= WANT_CLASS_SUMS;
    p->slack = 2e-5;
    problem_draw_targets(p, TARE_DTYPE_F32);
    for (int64_t row = 0; row < p->rows; row += 50) {
      p->labels[row] = p->first_label + 1;
      p->targets[30 * row + 2] = 7;
    }
    outcome *got = problem_run(p, device), *want = problem_expect(p);
    cr_assert_eq(device->host_memory ? got->status : got->check_status, TARE_STATUS_INVALID_TARGET, "%s", got->text);
    CHECK_CLOSE("class sums", got->class_sums, want->class_sums, 120, class_sums_tolerance(p));
    outcome_free(got);
    outcome_free(want);
    problem_free(p);
  }
}

Test(linear_class_sums, refusals) {
  FOR_EACH_DEVICE(device) {
    problem *columns = head_problem(TARE_LOSS_GHM_R, TARE_DTYPE_F32, 9, 4, 3);
    columns->want |= WANT_CLASS_SUMS;
    CHECK_REFUSED(columns, device, TARE_STATUS_UNSUPPORTED, "its columns are not classes");
    problem *dense = head_problem(TARE_LOSS_SOFTMAX_CE, TARE_DTYPE_F32, 9, 4, 3);
    dense->want |= WANT_CLASS_SUMS;
    problem_draw_targets(dense, TARE_DTYPE_F32);
    CHECK_REFUSED(dense, device, TARE_STATUS_UNSUPPORTED, "a row's loss belongs to no class");
  }
}
