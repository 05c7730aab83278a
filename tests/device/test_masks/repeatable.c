/* SPDX-License-Identifier: Apache-2.0 */
/* The same bits from run to run and for any number of threads; masks by themselves; derivatives as differences. */
#include "masks.h"

Test(masks, any_number_of_threads) {
  FOR_EACH_DEVICE(device) {
    mask_plan plan = mask_plan_of(2, test_size(200000, 30000));
    plan.spec.focal_weight = 1;
    mask_case *c = mask_case_new(device, &plan);
    const size_t bytes = (size_t)(plan.masks * plan.pixels) * sizeof *c->found;
    cr_assert_eq(mask_case_run(c), TARE_STATUS_OK);
    memcpy(c->expected, c->found, bytes);
    memcpy(c->expected_losses, c->found_losses, sizeof c->found_losses);
    for (int32_t threads = 0; threads < 6; threads++) {
      test_device other = *device;
      other.context = device_context(device, threads);
      c->device = &other;
      cr_assert_eq(mask_case_run(c), TARE_STATUS_OK);
      cr_assert_eq(memcmp(c->expected, c->found, bytes), 0);
      cr_assert_eq(memcmp(c->expected_losses, c->found_losses, sizeof c->found_losses), 0);
      tare_context_destroy(other.context);
      c->device = device;
    }
    mask_case_free(c);
  }
}

/* Targets that all masks share have a stride of 0. */
Test(masks, shared_targets) {
  FOR_EACH_DEVICE(device) {
    mask_plan plan = mask_plan_of(4, 99);
    mask_case *c = mask_case_new(device, &plan);
    for (int64_t i = 99; i < 4 * 99; i++) c->t[i] = c->t[i % 99];
    mask_case_upload(c);
    c->masks.targets_stride = 0;
    mask_case_check(c);
    mask_case_free(c);
  }
}

/* Masks in the reverse order have the reverse losses. */
Test(masks, negative_strides) {
  FOR_EACH_DEVICE(device) {
    mask_plan plan = mask_plan_of(3, 41);
    mask_case *c = mask_case_new(device, &plan);
    cr_assert_eq(mask_case_run(c), TARE_STATUS_OK);
    memcpy(c->expected, c->found, 3 * 41 * sizeof *c->found);
    buffer *reversed = buffer_new(device, 3 * 41 * 4, 0);
    c->masks.logits = (const float *)c->masks.logits + 2 * 41;
    c->masks.targets = (const float *)c->masks.targets + 2 * 41;
    c->masks.logits_stride = c->masks.targets_stride = -41;
    c->output.gradient = reversed->memory;
    cr_assert_eq(mask_case_run(c), TARE_STATUS_OK);
    buffer_download(reversed, "reversed");
    for (int64_t i = 0; i < 3 * 41; i++)
      cr_assert_eq(load_element(reversed->now, (size_t)i, TARE_DTYPE_F32), c->expected[(2 - i / 41) * 41 + i % 41]);
    buffer_free(reversed);
    mask_case_free(c);
  }
}

/* In double, the gradient is what the loss does when a logit moves. */
Test(masks, finite_differences) {
  FOR_EACH_DEVICE(device) {
    if (device->kind != TARE_DEVICE_CPU) continue; /* f64 */
    for (int way = 0; way < 8; way++) {
      mask_plan plan = mask_plan_of(1, 24);
      plan.dtype = TARE_DTYPE_F64;
      plan.target_dtype = TARE_MASK_TARGET_F64;
      plan.soft = way % 2;
      plan.spec.squared = way / 2 % 2;
      plan.spec.exponent = 0.75;
      plan.spec.focal_weight = way / 4 % 2 ? 3 : 0;
      plan.spec.false_positive_weight = 0.3;
      plan.spec.false_negative_weight = 0.7;
      mask_case *c = mask_case_new(device, &plan);
      double gradient[24];
      cr_assert_eq(mask_case_run(c), TARE_STATUS_OK);
      memcpy(gradient, c->found, sizeof gradient);
      for (int i = 0; i < 24; i++) {
        const double x = c->x[i], step = 1e-5;
        double loss[2];
        for (int side = 0; side < 2; side++) {
          c->x[i] = x + (side ? step : -step);
          mask_case_upload(c);
          cr_assert_eq(mask_case_run(c), TARE_STATUS_OK);
          loss[side] = c->found_losses[0];
        }
        c->x[i] = x;
        const double slope = (loss[1] - loss[0]) / (2 * step);
        cr_assert(fabs(slope - gradient[i]) < 1e-8, "%d: %g is not %g", i, gradient[i], slope);
      }
      mask_case_free(c);
    }
  }
}

/* Only what is wanted is written, and what is not wanted changes nothing. */
Test(masks, outputs_apart) {
  FOR_EACH_DEVICE(device) {
    mask_plan plan = mask_plan_of(2, 500);
    mask_case *c = mask_case_new(device, &plan);
    cr_assert_eq(mask_case_run(c), TARE_STATUS_OK);
    const double loss = c->found_losses[0];
    memcpy(c->expected, c->found, 1000 * sizeof *c->found);
    c->output.gradient = NULL;
    c->output.sums = NULL;
    c->output.mask_loss = NULL;
    cr_assert_eq(mask_case_run(c), TARE_STATUS_OK);
    cr_assert_eq(c->found_losses[0], loss);
    c->output.gradient = c->gradient->memory;
    c->output.loss = c->output.overlap_loss = c->output.focal_loss = NULL;
    cr_assert_eq(mask_case_run(c), TARE_STATUS_OK);
    cr_assert_eq(memcmp(c->expected, c->found, 1000 * sizeof *c->found), 0);
    mask_case_free(c);
  }
}
