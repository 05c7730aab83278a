/* SPDX-License-Identifier: Apache-2.0 */
/* The flags of a gradient and a loss that are not finite. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "support/numbers.h"
#include "support/problem.h"

typedef struct flags {
  const test_device *device;
  float gradient, loss; /* before the call, and after it */
} flags;

static tare_status evaluate_with_flags(tare_context *context, const tare_loss_spec *loss, const tare_batch *batch,
                                       const tare_output *output, void *user) {
  flags *f = user;
  tare_output with_flags = *output;
  float values[2] = {f->gradient, f->loss};
  float *const memory = f->device->allocate(sizeof values);
  f->device->upload(memory, values, sizeof values);
  with_flags.nonfinite_gradient = memory;
  with_flags.nonfinite_loss = memory + 1;
  const tare_status status = tare_evaluate(context, loss, batch, &with_flags, NULL);
  tare_context_synchronize(context, NULL);
  f->device->download(values, memory, sizeof values);
  f->device->release(memory);
  f->gradient = values[0];
  f->loss = values[1];
  return status;
}

static void expect_flags_at(int line, problem *p, const test_device *device, float gradient, float loss) {
  for (int before = 0; before < 2; before++) { /* a flag that is set stays so */
    flags f = {device, (float)before, (float)before};
    p->call = evaluate_with_flags;
    p->user = &f;
    outcome *o = problem_run(p, device);
    cr_assert_eq(o->status, TARE_STATUS_OK, "line %d: %s", line, o->text);
    cr_assert_eq(f.gradient, fmaxf(gradient, (float)before), "line %d: %s: gradient %g", line, problem_text(p),
                 (double)f.gradient);
    cr_assert_eq(f.loss, fmaxf(loss, (float)before), "line %d: %s: loss %g", line, problem_text(p), (double)f.loss);
    outcome_free(o);
  }
}
#define EXPECT_FLAGS(p, device, gradient, loss) expect_flags_at(__LINE__, (p), (device), (gradient), (loss))

static const int32_t dtypes[] = {TARE_DTYPE_F32, TARE_DTYPE_F16, TARE_DTYPE_BF16, TARE_DTYPE_F64};
static const level_shape levels[] = {{9, 7, 3}, {0, 3, 2}, {5, 1, 3}, {1, 1, 4}};

static void set_label(problem *p, int64_t row, int64_t label, double logit) {
  p->labels[row] = label;
  p->logits[row * p->classes + 1] = logit;
}

/* Row 40 has its logit in class 1: NaN, or the infinity at which the loss is infinite and the gradient is not. */
Test(flags, every_loss_type_and_layout) {
  FOR_EACH_DEVICE(device) FOR_EACH_LOSS(kind) for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
    if (kind == TARE_LOSS_GHM_R || !device_computes(device, kind, dtypes[i]) || !test_is_due(kind, (int)i)) continue;
    problem *p = problem_new_levels(kind, dtypes[i], 2, 5, 4, levels);
    p->want = WANT_LOSS | WANT_GRADIENT;
    p->place[ARRAY_GRADIENT].channels_first = i % 2;
    EXPECT_FLAGS(p, device, 0, 0);
    set_label(p, 40, p->ignore_label, (double)NAN);
    EXPECT_FLAGS(p, device, 0, 0);
    set_label(p, 40, p->first_label + 1, (double)NAN);
    EXPECT_FLAGS(p, device, 1, 1);
    if (!is_ghm(kind)) {
      set_label(p, 40, p->first_label + 1, -(double)INFINITY);
      EXPECT_FLAGS(p, device, 0, 1);
    }
    problem_free(p);
  }
}

/* The gradient is tested after scale and rounding: what f16 cannot hold is infinite there. */
Test(flags, after_scale_and_rounding) {
  FOR_EACH_DEVICE(device) for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
    if (!device_computes(device, TARE_LOSS_SIGMOID_CE, dtypes[i])) continue;
    problem *p = problem_new(TARE_LOSS_SIGMOID_CE, dtypes[i], 300, 3);
    p->want = WANT_LOSS | WANT_GRADIENT;
    p->gradient_scale = 1e6;
    EXPECT_FLAGS(p, device, dtypes[i] == TARE_DTYPE_F16, 0);
    p->gradient_scale = 1;
    p->device_scale = (double)INFINITY;
    EXPECT_FLAGS(p, device, 1, 0);
    problem_free(p);
  }
}

Test(flags, no_rows) {
  FOR_EACH_DEVICE(device) {
    problem *p = problem_new(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 0, 3);
    EXPECT_FLAGS(p, device, 0, 0);
    problem_free(p);
  }
}

static void expect_refused(const test_device *device, unsigned want, const char *word) {
  problem *p = problem_new(TARE_LOSS_SIGMOID_CE, TARE_DTYPE_F32, 9, 3);
  flags f = {device, 0, 0};
  p->want = want;
  p->call = evaluate_with_flags;
  p->user = &f;
  outcome *o = problem_run(p, device);
  cr_assert_eq(o->status, TARE_STATUS_INVALID_ARGUMENT, "%s", o->text);
  cr_assert_not_null(strstr(o->text, word), "no '%s' in: %s", word, o->text);
  outcome_free(o);
  problem_free(p);
}

Test(flags, refusals) {
  FOR_EACH_DEVICE(device) {
    expect_refused(device, WANT_LOSS, "no level has a gradient to test");
    expect_refused(device, WANT_GRADIENT, "output->loss, which it tests, is NULL");
  }
}
