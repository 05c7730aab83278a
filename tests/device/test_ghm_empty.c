/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GHM of a batch in which nothing counts: no rows, or none that has a weight. The loss is 0, the batch is no step of
 * the momentum, and tare_workspace_size says what tare_evaluate wants.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/buffers.h"
#include "support/head.h"
#include "support/numbers.h"
#include "support/problem.h"

enum { BINS = 12, WORDS = 2 + 3 * BINS, CLASSES = 4 };

/* Why nothing counts. The last holds for GHM-R alone. */
enum nothing { NO_ROWS, ALL_IGNORED, NO_WEIGHT, NO_CLASS, NOTHINGS };
static const char *const nothing_names[NOTHINGS] = {"no rows", "all ignored", "no weight", "no class"};

/* How a batch is evaluated. */
enum way { ONE_CALL, THREE_CALLS, HEAD_IN_ONE_CALL, HEAD_IN_THREE_CALLS, WAYS };
static bool has_head(enum way way) { return way >= HEAD_IN_ONE_CALL; }

static tare_status in_three_calls(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                  const tare_output *output, void *user) {
  tare_loss_spec given = *loss;
  (void)user;
  given.ghm.use_stored_density = 1;
  tare_status status = tare_ghm_histogram(context, loss, batch, NULL);
  if (!status) status = tare_ghm_density_update(context, loss, NULL);
  return status ? status : tare_evaluate(context, &given, batch, output, NULL);
}

static tare_status head_in_three_calls(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                       const tare_linear *linear, const tare_output *output, void *user) {
  tare_loss_spec given = *loss;
  (void)user;
  given.ghm.use_stored_density = 1;
  tare_status status = tare_linear_ghm_histogram(context, loss, batch, linear, NULL);
  if (!status) status = tare_ghm_density_update(context, loss, NULL);
  return status ? status : tare_linear_evaluate(context, &given, batch, linear, output, NULL);
}

static problem *make_problem(int32_t kind, int32_t variant, enum way way, int64_t rows) {
  problem *p = has_head(way) ? head_problem(kind, TARE_DTYPE_F32, rows, CLASSES, 3)
                             : problem_new(kind, TARE_DTYPE_F32, rows, CLASSES);
  p->loss.ghm.bins = BINS;
  p->loss.ghm.variant = variant;
  p->loss.ghm.momentum = 0.75;
  problem_add_ghm_state(p);
  if (way == THREE_CALLS) p->call = in_three_calls;
  if (way == HEAD_IN_THREE_CALLS) p->head->call = head_in_three_calls;
  return p;
}

static problem *make_nothing(int32_t kind, int32_t variant, enum way way, enum nothing nothing) {
  problem *p = make_problem(kind, variant, way, nothing == NO_ROWS ? 0 : 70);
  if (nothing == ALL_IGNORED) problem_draw_labels(p, 0, 1);
  if (nothing == NO_CLASS) problem_draw_labels(p, 0, 0);
  if (nothing == NO_WEIGHT) p->row_weights = calloc((size_t)p->rows, sizeof *p->row_weights);
  return p;
}

/* The states of the library and of the oracle, which go from one problem to the next. */
typedef struct states {
  uint64_t library[WORDS];
  struct oracle_ghm_state oracle;
} states;

static void step(problem *p, const test_device *device, states *s) {
  memcpy(p->ghm_state, s->library, sizeof s->library);
  *p->oracle_state = s->oracle;
  CHECK_PROBLEM(p, device);
  memcpy(s->library, p->ghm_state, sizeof s->library);
  s->oracle = *p->oracle_state;
}

/* N and the counts are 0, and nothing else has changed. */
static void expect_no_step(const states *now, const states *before, const char *what) {
  for (int w = 0; w < WORDS; w++) {
    const uint64_t want = w >= 1 && w < 2 + BINS ? 0 : before->library[w];
    cr_assert_eq(now->library[w], want, "%s: word %d is %llx, want %llx", what, w, (unsigned long long)now->library[w],
                 (unsigned long long)want);
  }
}

static void expect_loss_of_0(problem *p, const test_device *device, const states *s) {
  memcpy(p->ghm_state, s->library, sizeof s->library);
  outcome *o = problem_run(p, device);
  cr_assert_eq(o->status, TARE_STATUS_OK, "%s", o->text);
  cr_assert_eq(o->loss, 0.0, "%s: loss %g", problem_text(p), o->loss);
  outcome_free(o);
}

/* Nothing, then a batch, nothing, and a batch again: as if the two had followed each other. */
static void check_no_step(const test_device *device, int32_t kind, int32_t variant, enum way way,
                          enum nothing nothing) {
  problem *batch = make_problem(kind, variant, way, 60), *empty = make_nothing(kind, variant, way, nothing);
  states with = {0}, without = {0};
  char what[160];
  snprintf(what, sizeof what, "%s, %s, variant %d, way %d", problem_text(empty), nothing_names[nothing], variant, way);
  for (int turn = 0; turn < 2; turn++) {
    states before = with;
    expect_loss_of_0(empty, device, &with);
    step(empty, device, &with);
    expect_no_step(&with, &before, what);
    step(batch, device, &with);
    step(batch, device, &without);
    cr_assert_arr_eq(with.library, without.library, sizeof with.library, "%s: nothing was a step", what);
  }
  problem_free(batch);
  problem_free(empty);
}

static void check_every_nothing(const test_device *device, enum way way) {
  for (int32_t kind = TARE_LOSS_GHM_C; kind <= TARE_LOSS_GHM_R; kind++) {
    for (int32_t variant = TARE_GHM_VARIANT_PAPER; variant <= TARE_GHM_VARIANT_MMDET; variant++) {
      const enum nothing end = kind == TARE_LOSS_GHM_R ? NOTHINGS : NO_CLASS;
      for (enum nothing nothing = NO_ROWS; nothing < end; nothing++) check_no_step(device, kind, variant, way, nothing);
    }
  }
}

Test(ghm_empty, nothing_is_no_step) { FOR_EACH_DEVICE(device) check_every_nothing(device, ONE_CALL); }

Test(ghm_empty, nothing_is_no_step_in_three_calls) { FOR_EACH_DEVICE(device) check_every_nothing(device, THREE_CALLS); }

Test(ghm_empty, nothing_is_no_step_of_a_fused_head) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    check_every_nothing(device, HEAD_IN_ONE_CALL);
    check_every_nothing(device, HEAD_IN_THREE_CALLS);
  }
}

/* S = R is for the first batch that holds anything: by the numbers, the next loss was 4 times too large. */
Test(ghm_empty, the_first_step_is_that_of_the_first_batch) {
  FOR_EACH_DEVICE(device) {
    problem *empty = make_nothing(TARE_LOSS_GHM_C, TARE_GHM_VARIANT_PAPER, ONE_CALL, ALL_IGNORED);
    problem *batch = make_problem(TARE_LOSS_GHM_C, TARE_GHM_VARIANT_PAPER, ONE_CALL, 60);
    outcome *fresh = problem_run(batch, device);
    states s = {0};
    step(empty, device, &s);
    memcpy(batch->ghm_state, s.library, sizeof s.library);
    outcome *second = problem_run(batch, device);
    CHECK_SAME_OUTCOME(batch, second, fresh);
    outcome_free(fresh);
    outcome_free(second);
    problem_free(batch);
    problem_free(empty);
  }
}

/* ---- Several ranks --------------------------------------------------------------------------------------------- */

static buffer *update(const test_device *device, int32_t variant, double momentum, const int64_t *words) {
  buffer *state = buffer_of(device, words, WORDS * sizeof *words);
  tare_loss_spec loss;
  tare_loss_spec_init(&loss, TARE_LOSS_GHM_C);
  loss.ghm.bins = BINS;
  loss.ghm.variant = variant;
  loss.ghm.momentum = momentum;
  loss.ghm.state = state->memory;
  cr_assert_eq(tare_ghm_density_update(device->context, &loss, NULL), TARE_STATUS_OK, "%s",
               tare_error_text(device->context));
  cr_assert_eq(tare_context_synchronize(device->context, NULL), TARE_STATUS_OK);
  buffer_download(state, "state");
  return state;
}

/* N as it stands after an all-reduce decides, not what this rank had. */
Test(ghm_empty, the_sum_over_the_ranks_decides) {
  static const double momenta[] = {0, 0.75};
  FOR_EACH_DEVICE(device) {
    for (int variant = TARE_GHM_VARIANT_PAPER; variant <= TARE_GHM_VARIANT_MMDET; variant++) {
      for (size_t m = 0; m < sizeof momenta / sizeof *momenta; m++) {
        int64_t words[WORDS] = {3};
        for (int k = 0; k < 2 * BINS; k++) {
          const double value = 5 + k;
          memcpy(&words[2 + BINS + k], &value, sizeof value);
        }
        buffer *none = update(device, variant, momenta[m], words);
        cr_assert_arr_eq(none->now, words, sizeof words, "nothing on any rank changed the state");
        words[1] = words[4] = 8; /* from another rank */
        buffer *some = update(device, variant, momenta[m], words);
        int64_t now[WORDS];
        memcpy(now, some->now, sizeof now);
        cr_assert_eq(now[0], momenta[m] > 0 ? 4 : 3);
        double sum;
        memcpy(&sum, &now[2 + BINS + 2], sizeof sum);
        cr_assert_eq(sum, momenta[m] * 7 + (1 - momenta[m]) * 8);
        buffer_free(none);
        buffer_free(some);
      }
    }
  }
}

/* ---- The workspace --------------------------------------------------------------------------------------------- */

static void set_workspace(tare_context *context, void *memory, uint64_t bytes) {
  cr_assert_eq(tare_context_set_workspace(context, memory, bytes), TARE_STATUS_OK, "%s", tare_error_text(context));
}

/* tare_evaluate with as much workspace as tare_workspace_size says, more than that, and less. */
static tare_status with_every_workspace(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                        const tare_output *output, void *user) {
  const test_device *device = user;
  uint64_t bytes = 1;
  tare_status status = tare_workspace_size(context, loss, batch, output, &bytes);
  cr_assert_eq(status, TARE_STATUS_OK, "%s", tare_error_text(context));
  buffer *room = buffer_new(device, bytes + 512, 0);
  if (bytes >= 16) {
    set_workspace(context, room->memory, bytes - 1);
    status = tare_evaluate(context, loss, batch, output, NULL);
    cr_assert_eq(status, TARE_STATUS_WORKSPACE_TOO_SMALL, "%llu bytes less 1: %s", (unsigned long long)bytes,
                 tare_status_name(status));
  }
  set_workspace(context, room->memory, bytes + 512);
  status = tare_evaluate(context, loss, batch, output, NULL);
  cr_assert_eq(status, TARE_STATUS_OK, "%s", tare_error_text(context));
  cr_assert_eq(tare_context_synchronize(context, NULL), TARE_STATUS_OK, "%s", tare_error_text(context));
  set_workspace(context, bytes ? room->memory : NULL, bytes);
  status = tare_evaluate(context, loss, batch, output, NULL);
  cr_assert_eq(tare_context_synchronize(context, NULL), TARE_STATUS_OK, "%s", tare_error_text(context));
  set_workspace(context, NULL, 0);
  buffer_free(room);
  return status;
}

Test(ghm_empty, the_workspace_is_what_its_size_says) {
  static const int64_t rows[] = {0, 1, 70};
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_GHM_C; kind <= TARE_LOSS_GHM_R; kind++) {
      for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        for (int ignored = 0; ignored < 2; ignored++) {
          problem *p = problem_new(kind, TARE_DTYPE_F32, rows[r], CLASSES);
          if (ignored) problem_draw_labels(p, 0, 1);
          p->loss.ghm.density = TARE_GHM_DENSITY_EXACT;
          p->call = with_every_workspace;
          p->user = device;
          CHECK_PROBLEM(p, device);
          problem_free(p);
        }
      }
    }
  }
}

/* Images, levels, rows: whichever of them is not there. */
Test(ghm_empty, exact_density_of_no_rows) {
  static const level_shape none = {0, 7, 3}, some = {2, 3, 3};
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_GHM_C; kind <= TARE_LOSS_GHM_R; kind++) {
      problem *const problems[] = {problem_new(kind, TARE_DTYPE_F32, 0, CLASSES),
                                   problem_new_levels(kind, TARE_DTYPE_F16, 2, CLASSES, 1, &none),
                                   problem_new_levels(kind, TARE_DTYPE_BF16, 0, CLASSES, 1, &some)};
      for (size_t i = 0; i < sizeof problems / sizeof *problems; i++) {
        problems[i]->loss.ghm.density = TARE_GHM_DENSITY_EXACT;
        CHECK_PROBLEM(problems[i], device);
        problem_free(problems[i]);
      }
    }
  }
}
