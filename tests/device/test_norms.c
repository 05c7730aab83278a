/* SPDX-License-Identifier: Apache-2.0 */
/* The histogram of gradient norms beside a sigmoid loss. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/buffers.h"
#include "support/numbers.h"
#include "support/parameters.h"
#include "support/problem.h"

enum { MOST = 1024 };
static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};

/* The call with a histogram. */
typedef struct request {
  buffer *counts;
  int32_t bins;
} request;

static tare_status evaluate_with(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                 const tare_output *output, void *user) {
  const request *r = user;
  tare_output with = *output;
  if (context != r->counts->device->context) /* the CPU computes what the device does not, in memory of its own */
    return tare_evaluate(context, loss, batch, output, NULL);
  with.norm_bins = r->bins;
  with.norm_histogram = buffer_memory(r->counts);
  const tare_status status = tare_evaluate(context, loss, batch, &with, NULL);
  const tare_status checked = tare_context_synchronize(context, NULL);
  return status ? status : checked;
}

static double target_of(const problem *p, int64_t row, int64_t cls) {
  if (p->targets != NULL) return fmin(fmax(p->targets[row * p->classes + cls], 0), 1);
  if (p->labels[row] - p->first_label != cls || p->labels[row] == p->background_label) return 0;
  return p->scores != NULL ? fmin(fmax(p->scores[row], 0), 1) : 1;
}

/* The weight of a row: 0 where it does not count. */
static double weight_of_row(const problem *p, int64_t row) {
  double weight = p->row_weights != NULL ? p->row_weights[row] : 1;
  if (p->labels == NULL) return weight;
  if (p->labels[row] == p->ignore_label) return 0;
  if (p->targets != NULL) return weight;
  if (p->labels[row] == p->background_label) return weight * p->background_weight;
  return p->class_weights != NULL ? weight * p->class_weights[p->labels[row] - p->first_label] : weight;
}

static void expect(const problem *p, int32_t bins, int64_t *counts) {
  memset(counts, 0, (size_t)bins * sizeof *counts);
  for (int64_t row = 0; row < p->rows; row++)
    for (int64_t c = 0; c < p->classes && weight_of_row(p, row) != 0; c++) {
      const int64_t at = row * p->classes + c;
      if (p->element_weights != NULL && p->element_weights[at] == 0) continue;
      counts[oracle_ghm_c_bin(p->logits[at], target_of(p, row, c), bins, 0)]++;
    }
}

/* With the histogram the other outputs are as without. Frees the problem. */
static void check(problem *p, int32_t bins, const test_device *device) {
  int64_t want[MOST], got[MOST];
  request r = {buffer_new(device, (size_t)bins * sizeof *want, 8), bins};
  outcome *without = problem_run(p, device);
  p->call = evaluate_with;
  p->user = &r;
  outcome *with = problem_run(p, device);
  if (without->device == device) { /* else it does not compute this */
    CHECK_SAME_OUTCOME(p, with, without);
    buffer_download(r.counts, "norm_histogram");
    memcpy(got, r.counts->now, (size_t)bins * sizeof *got);
    expect(p, bins, want);
    for (int32_t k = 0; k < bins; k++)
      cr_assert_eq(got[k], want[k], "%s: bin %d of %d: %lld, not %lld", problem_text(p), (int)k, (int)bins,
                   (long long)got[k], (long long)want[k]);
  }
  outcome_free(without);
  outcome_free(with);
  buffer_free(r.counts);
  problem_free(p);
}

Test(norms, beside_every_sigmoid_loss) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      if (is_softmax(kind) || is_ghm(kind)) continue;
      for (int d = 0; d < 4; d++) {
        problem *p = problem_new(kind, dtypes[d], test_size(90, 30), 19);
        if (d == 1) problem_draw_row_weights(p);
        if (d == 2 && takes_scores(kind)) problem_draw_scores(p, TARE_DTYPE_F32);
        check(p, d == 3 ? MOST : 30, device);
      }
    }
  }
}

Test(norms, in_every_layout) {
  static const level_shape shapes[] = {{4, 5, 3}, {2, 3, 3}, {8, 8, 3}};
  static const int64_t classes[] = {1, 3, 8, 80, 300};
  static const int32_t bins[] = {1, 2, 10, 30, 33, 100};
  FOR_EACH_DEVICE(device) {
    for (int way = 0; way < 40; way++) {
      const int32_t kind = way % 2 ? TARE_LOSS_SIGMOID_FOCAL : TARE_LOSS_SIGMOID_QUALITY_FOCAL;
      problem *p = problem_new_levels(kind, dtypes[way / 4 % 4], 2, classes[way % 5], test_size(3, 1), shapes);
      p->place[ARRAY_LOGITS].channels_first = p->place[ARRAY_GRADIENT].channels_first = way & 1;
      p->place[ARRAY_LOGITS].phase = way % 5 == 0 ? 3 : 0;
      p->image_major = (way & 2) != 0;
      p->in_place = way % 3 == 0;
      p->normalizer = way % 4;
      if (way % 4 == 1) problem_draw_scores(p, TARE_DTYPE_F32);
      if (way % 8 == 2) problem_draw_targets(p, TARE_DTYPE_F32);
      if (way % 8 == 3) p->positive_weights = random_class_weights(p, 1);
      if (way % 3 == 1) problem_draw_element_weights(p);
      if (way % 7 == 1) problem_draw_row_weights(p);
      if (way % 8 == 4) p->background_weight = 0;
      if (way & 8) p->want = WANT_LOSS | WANT_GRADIENT | WANT_COUNTS;
      if (way % 6 == 5) p->of_level[0].weight = 2;
      check(p, bins[way % 6], device);
    }
  }
}

/* At the edges, far out, and NaN, which is in the first bin. */
Test(norms, of_extreme_logits) {
  static const double x[] = {INFINITY, -INFINITY, NAN, 0, -0.0, 1e30, -1e30, 100, -100, 1e-40, 0.6931471805599453};
  enum { COUNT = sizeof x / sizeof *x };
  FOR_EACH_DEVICE(device) {
    for (int d = 0; d < 4; d++) {
      problem *p = problem_new(TARE_LOSS_SIGMOID_CE, dtypes[d], 2 * COUNT, 2);
      for (int64_t i = 0; i < 4 * COUNT; i++) p->logits[i] = round_to_dtype(p->dtype, x[i / 2 % COUNT]);
      for (int64_t row = 0; row < p->rows; row++) p->labels[row] = row % 2 - 1;
      p->want &= ~(unsigned)WANT_LOSS;
      check(p, 10, device);
    }
  }
}

static void expect_refused(problem *p, int32_t bins, tare_status status, const char *text, const test_device *device) {
  request r = {buffer_new(device, 80, 0), bins};
  p->call = evaluate_with;
  p->user = &r;
  outcome *o = problem_run(p, device);
  cr_assert_eq(o->status, status, "%s: %s", problem_text(p), o->text);
  cr_assert(strstr(o->text, text), "no '%s' in: %s", text, o->text);
  outcome_free(o);
  buffer_free(r.counts);
  problem_free(p);
}

Test(norms, what_is_refused) {
  FOR_EACH_DEVICE(device) {
    expect_refused(problem_new(TARE_LOSS_SOFTMAX_CE, TARE_DTYPE_F32, 8, 3), 10, TARE_STATUS_UNSUPPORTED,
                   "norm_histogram with a softmax loss", device);
    expect_refused(problem_new(TARE_LOSS_GHM_C, TARE_DTYPE_F32, 8, 3), 10, TARE_STATUS_UNSUPPORTED,
                   "norm_histogram with a GHM loss", device);
    expect_refused(problem_new(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 8, 3), 0, TARE_STATUS_INVALID_ARGUMENT,
                   "norm_bins is 0", device);
    expect_refused(problem_new(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 8, 3), 1025, TARE_STATUS_INVALID_ARGUMENT,
                   "norm_bins is 1025", device);
  }
}
