/* SPDX-License-Identifier: Apache-2.0 */
/* GHM on several ranks: histogram, update and a given density are one evaluation. */
#include "ghm.h"

/* ---- Several ranks --------------------------------------------------------------------------------------------- */

typedef struct ghm_step {
  buffer *logits, *labels, *state;
  tare_level level;
  tare_batch batch;
} ghm_step;

/* The rows [first, first + rows) of a GHM-C problem in f32 as a batch of their own. */
static void step_open(ghm_step *s, const test_device *device, const problem *p, int64_t first, int64_t rows) {
  const size_t count = (size_t)(rows * p->classes);
  float *logits = malloc(count * sizeof *logits);
  for (size_t i = 0; i < count; i++) logits[i] = (float)p->logits[(size_t)(first * p->classes) + i];
  s->logits = buffer_of(device, logits, count * sizeof *logits);
  s->labels = buffer_of(device, p->labels + first, (size_t)rows * sizeof *p->labels);
  s->state = buffer_of(device, p->ghm_state, tare_ghm_state_bytes(p->loss.ghm.bins));
  free(logits);
  tare_level_init_rows(&s->level, rows, p->classes);
  s->level.logits = s->logits->memory;
  s->level.labels = s->labels->memory;
  tare_batch_init(&s->batch);
  s->batch.levels = &s->level;
  s->batch.level_count = 1;
  s->batch.classes = p->classes;
  s->batch.label_dtype = TARE_LABEL_DTYPE_I64;
}

static void step_close(ghm_step *s) {
  buffer_free(s->logits);
  buffer_free(s->labels);
  buffer_free(s->state);
}

static tare_loss_spec loss_with_state(const problem *p, const buffer *state) {
  tare_loss_spec loss = p->loss;
  loss.ghm.state = state->memory;
  return loss;
}

static void expect_ok(tare_status status, const test_device *device) {
  cr_assert_eq(status, TARE_STATUS_OK, "%s: %s", tare_status_name(status), tare_error_text(device->context));
}

/* Histogram and density update, then an evaluation of the given density, are one evaluation. */
static void check_three_calls(const test_device *device, int32_t variant, double momentum) {
  problem *p = ghm_problem(TARE_LOSS_GHM_C, TARE_DTYPE_F32, 400, 5, 20);
  const uint64_t bytes = tare_ghm_state_bytes(20);
  p->label_dtype = TARE_LABEL_DTYPE_I64;
  p->loss.ghm.variant = variant;
  p->loss.ghm.momentum = momentum;
  uint64_t *apart = calloc(1, bytes), *together = calloc(1, bytes);
  for (int step = 0; step < 3; step++) {
    next_batch(p, step);
    memcpy(p->ghm_state, together, bytes);
    outcome *whole = problem_run(p, device);
    memcpy(together, p->ghm_state, bytes);

    memcpy(p->ghm_state, apart, bytes);
    ghm_step s;
    step_open(&s, device, p, 0, p->rows);
    const tare_loss_spec loss = loss_with_state(p, s.state);
    expect_ok(tare_ghm_histogram(device->context, &loss, &s.batch, NULL), device);
    buffer_expect_unchanged(s.logits, "logits");
    expect_ok(tare_ghm_density_update(device->context, &loss, NULL), device);
    buffer_download(s.state, "state");
    memcpy(p->ghm_state, s.state->now, bytes);
    memcpy(apart, p->ghm_state, bytes);
    cr_assert_arr_eq(apart, together, bytes, "states differ after step %d", step);
    step_close(&s);

    p->loss.ghm.use_stored_density = 1;
    outcome *given = problem_run(p, device);
    cr_assert_arr_eq(p->ghm_state, apart, bytes, "a given state was written to");
    CHECK_SAME_OUTCOME(p, given, whole);
    p->loss.ghm.use_stored_density = 0;
    outcome_free(whole);
    outcome_free(given);
  }
  free(apart);
  free(together);
  problem_free(p);
}

Test(ghm, histogram_update_and_given_are_one_evaluation) {
  FOR_EACH_DEVICE(device) {
    const test_device *able = device_able(device, TARE_LOSS_GHM_C, TARE_DTYPE_F32);
    check_three_calls(able, TARE_GHM_VARIANT_PAPER, 0);
    check_three_calls(able, TARE_GHM_VARIANT_PAPER, 0.75);
    check_three_calls(able, TARE_GHM_VARIANT_MMDET, 0);
    check_three_calls(able, TARE_GHM_VARIANT_MMDET, 0.75);
  }
}

/* The histogram writes words [1, 2+bins) and nothing else. */
Test(ghm, histogram_leaves_the_rest_of_the_state) {
  FOR_EACH_DEVICE(device) {
    problem *p = ghm_problem(TARE_LOSS_GHM_C, TARE_DTYPE_F32, 400, 5, 20);
    for (int w = 0; w < 62; w++) p->ghm_state[w] = 0x4010101010101010u + (uint64_t)w;
    ghm_step s;
    const test_device *able = device_able(device, TARE_LOSS_GHM_C, TARE_DTYPE_F32);
    step_open(&s, able, p, 0, p->rows);
    const tare_loss_spec loss = loss_with_state(p, s.state);
    expect_ok(tare_ghm_histogram(able->context, &loss, &s.batch, NULL), able);
    buffer_download(s.state, "state");
    uint64_t words[62];
    memcpy(words, s.state->now, sizeof words);
    int64_t sum = 0;
    for (int w = 2; w < 22; w++) sum += (int64_t)words[w];
    cr_assert_eq(sum, (int64_t)words[1]);
    cr_assert_gt(sum, 0);
    cr_assert_eq(words[0], p->ghm_state[0]);
    for (int w = 22; w < 62; w++) cr_assert_eq(words[w], p->ghm_state[w], "word %d", w);
    step_close(&s);
    problem_free(p);
  }
}

/* Two ranks with a part each: the sum of their counts, words [1, 2+bins), is one machine's state, and what they
 * compute with it is their part of one machine's result. */
static void check_two_ranks(const test_device *device, int64_t rows_of_first, double momentum) {
  problem *p = ghm_problem(TARE_LOSS_GHM_C, TARE_DTYPE_F32, 500, 5, 16);
  const uint64_t bytes = tare_ghm_state_bytes(16);
  p->label_dtype = TARE_LABEL_DTYPE_I64;
  p->loss.ghm.momentum = momentum;
  ghm_step ranks[2];
  step_open(&ranks[0], device, p, 0, rows_of_first);
  step_open(&ranks[1], device, p, rows_of_first, p->rows - rows_of_first);
  int64_t sum[18] = {0};
  for (int r = 0; r < 2; r++) {
    const tare_loss_spec loss = loss_with_state(p, ranks[r].state);
    expect_ok(tare_ghm_histogram(device->context, &loss, &ranks[r].batch, NULL), device);
    buffer_download(ranks[r].state, "state");
    int64_t words[18];
    memcpy(words, ranks[r].state->now, sizeof words);
    for (int w = 1; w < 18; w++) sum[w] += words[w];
  }
  outcome *whole = problem_run(p, device);
  cr_assert_eq(whole->status, TARE_STATUS_OK, "%s", whole->text);
  double loss_sum = 0;
  for (int r = 0; r < 2; r++) {
    buffer *state = ranks[r].state;
    memcpy(state->before, state->now, bytes);
    memcpy(state->before + 8, sum + 1, 17 * 8);
    buffer_upload(state);
    tare_loss_spec loss = loss_with_state(p, state);
    expect_ok(tare_ghm_density_update(device->context, &loss, NULL), device);
    buffer_download(state, "state");
    cr_assert_arr_eq(state->now, p->ghm_state, bytes, "rank %d has another state than one machine", r);

    loss.ghm.use_stored_density = 1;
    buffer *value = buffer_new(device, sizeof(double), 0);
    tare_output output;
    tare_output_init(&output);
    output.loss = value->memory;
    output.loss_dtype = TARE_DTYPE_F64;
    expect_ok(tare_evaluate(device->context, &loss, &ranks[r].batch, &output, NULL), device);
    buffer_download(value, "loss");
    loss_sum += load_element(value->now, 0, TARE_DTYPE_F64);
    buffer_free(value);
  }
  CHECK_NEAR("loss of both", loss_sum, whole->loss, ((tolerance){0, 1e-6}));
  step_close(&ranks[0]);
  step_close(&ranks[1]);
  outcome_free(whole);
  problem_free(p);
}

Test(ghm, two_ranks_that_add_their_counts_agree_with_one) {
  FOR_EACH_DEVICE(device) {
    const test_device *able = device_able(device, TARE_LOSS_GHM_C, TARE_DTYPE_F32);
    check_two_ranks(able, 250, 0);
    check_two_ranks(able, 123, 0.9);
    check_two_ranks(able, 0, 0);
  }
}
