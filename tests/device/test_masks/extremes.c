/* SPDX-License-Identifier: Apache-2.0 */
/* Logits at the ends of their range, empty and full masks, invalid targets, and scales that are not finite. */
#include "masks.h"

/* A mask of these logits and targets; the other pixels are random. */
static mask_case *case_of(const test_device *device, mask_plan plan, const double *x, const double *t, int64_t n) {
  mask_case *c = mask_case_new(device, &plan);
  for (int64_t i = 0; i < n; i++) {
    c->x[i] = x[i];
    c->t[i] = t[i];
  }
  mask_case_upload(c);
  return c;
}

Test(masks, extreme_logits) {
  static const double x[] = {(double)INFINITY,
                             -(double)INFINITY,
                             125,
                             -125,
                             (double)INFINITY,
                             -(double)INFINITY,
                             125,
                             -125,
                             1e30,
                             -1e30,
                             -90,
                             90};
  static const double t[] = {1, 0, 1, 0, 0, 1, 0, 1, 0, 1, 1, 0};
  FOR_EACH_DEVICE(device) {
    for (int way = 0; way < 16; way++) {
      mask_plan plan = mask_plan_of(1, 12);
      plan.target_dtype = way % 2 ? TARE_MASK_TARGET_U8 : TARE_MASK_TARGET_F32;
      plan.spec.squared = way / 2 % 2;
      plan.spec.focal_weight = way / 4 % 2;
      plan.spec.gamma = way / 8 % 2 ? 0 : 2;
      mask_case *c = case_of(device, plan, x, t, 12);
      mask_case_check(c);
      mask_case_free(c);
    }
  }
}

/* Of p everywhere near 0 or 1, without smoothing, too. */
Test(masks, equal_logits) {
  static const double values[] = {-125, -87, -60, -1e-30, 1e-30, 60, 87, 125};
  FOR_EACH_DEVICE(device) {
    for (int way = 0; way < 32; way++) {
      mask_plan plan = mask_plan_of(1, 100);
      plan.value = values[way % 8];
      plan.target_dtype = TARE_MASK_TARGET_U8;
      plan.spec.squared = way / 8 % 2;
      if (way / 16) plan.spec.numerator_smoothing = plan.spec.denominator_smoothing = 0;
      mask_plan_check(device, &plan);
    }
  }
}

static void fill_targets(mask_case *c, double t) {
  for (int64_t i = 0; i < c->plan.masks * c->plan.pixels; i++) c->t[i] = t;
  mask_case_upload(c);
}

Test(masks, empty_and_full) {
  FOR_EACH_DEVICE(device) {
    for (int way = 0; way < 16; way++) {
      mask_plan plan = mask_plan_of(2, 77);
      plan.target_dtype = way % 2 ? TARE_MASK_TARGET_U8 : TARE_MASK_TARGET_F32;
      plan.spec.squared = way / 2 % 2;
      if (way / 4 % 2) plan.spec.numerator_smoothing = plan.spec.denominator_smoothing = 0;
      mask_case *c = mask_case_new(device, &plan);
      fill_targets(c, way / 8);
      mask_case_check(c);
      if (way / 4 % 2 && !(way / 8)) { /* T is 0, whatever the logits are */
        cr_assert_eq(c->found_losses[0], 2.0);
        for (int64_t i = 0; i < 2 * 77; i++) cr_assert_eq(c->found[i], 0.0);
      }
      mask_case_free(c);
    }
  }
}

/* Nothing was there, and nothing was found; or all of it, and nothing else. */
Test(masks, perfect) {
  FOR_EACH_DEVICE(device) {
    for (int way = 0; way < 16; way++) {
      mask_plan plan = mask_plan_of(1, 33);
      plan.spec.exponent = way / 4 % 2 ? 0.75 : 2;
      if (way / 8 % 2) plan.spec.numerator_smoothing = plan.spec.denominator_smoothing = 0;
      plan.spec.squared = way / 2 % 2;
      plan.value = way % 2 ? (double)INFINITY : -(double)INFINITY;
      mask_case *c = mask_case_new(device, &plan);
      fill_targets(c, way % 2);
      cr_assert_eq(mask_case_run(c), TARE_STATUS_OK);
      cr_assert_eq(c->found_losses[0], 0.0);
      for (int64_t i = 0; i < 33; i++) cr_assert_eq(c->found[i], 0.0);
      mask_case_free(c);
    }
  }
}

/* A NaN spoils its own mask; a mask of weight 0 is never spoilt. */
Test(masks, nan_logits) {
  FOR_EACH_DEVICE(device) {
    for (int weightless = 0; weightless < 2; weightless++) {
      mask_plan plan = mask_plan_of(3, 50);
      plan.has_weights = 1;
      plan.spec.focal_weight = 1;
      mask_case *c = mask_case_new(device, &plan);
      c->x[50 + 7] = (double)NAN;
      c->weight[1] = weightless ? 0 : 2;
      mask_case_upload(c);
      cr_assert_eq(mask_case_run(c), TARE_STATUS_OK);
      cr_assert_eq(isnan(c->found_losses[0]), !weightless);
      for (int64_t i = 0; i < 150; i++) {
        const int is_spoilt = i / 50 == 1;
        cr_assert_eq(isnan(c->found[i]), is_spoilt && !weightless, "pixel %d is %g", (int)i, c->found[i]);
        if (is_spoilt && weightless) cr_assert_eq(c->found[i], 0.0);
      }
      mask_case_free(c);
    }
  }
}

static void expect_invalid(mask_case *c, const char *text, const char *of_gpu) {
  const tare_status status = mask_case_run(c);
  const char *found = tare_error_text(c->device->context), *wanted = c->device->kind == TARE_DEVICE_CPU ? text : of_gpu;
  tare_mask_sums sums;
  cr_assert_eq(status, TARE_STATUS_INVALID_TARGET, "%s", found);
  cr_assert(strstr(found, wanted), "no '%s' in: %s", wanted, found);
  buffer_download(c->sums, "sums");
  memcpy(&sums, c->sums->now + sizeof sums, sizeof sums);
  cr_assert_eq(sums.true_positives, 0.0);
  cr_assert_eq(sums.pixels, 0);
  for (int64_t i = 50; i < 100; i++) cr_assert_eq(c->found[i], 0.0);
  cr_assert_neq(c->found[100], 0.0);
}

/* The mask adds nothing, and the mean is that of the others. */
Test(masks, invalid_targets) {
  static const double wrong[] = {(double)NAN, 1.5, -0.5, (double)INFINITY};
  FOR_EACH_DEVICE(device) {
    for (int way = 0; way < 5; way++) {
      mask_plan plan = mask_plan_of(3, 50), others = mask_plan_of(3, 50);
      plan.has_weights = others.has_weights = 1;
      plan.normalizer = others.normalizer = TARE_NORMALIZER_SUM;
      plan.target_dtype = way == 4 ? TARE_MASK_TARGET_U8 : TARE_MASK_TARGET_F32;
      mask_case *c = mask_case_new(device, &plan);
      c->t[50 + 31] = way == 4 ? 7 : wrong[way];
      c->t[50 + 40] = way == 4 ? 7 : wrong[way];
      mask_case_upload(c);
      expect_invalid(c, way == 1 ? "target of pixel 31 of mask 1 is 1.5" : "target of pixel 31 of mask 1 is", "row 1");
      const double loss = c->found_losses[0];
      c->weight[1] = 0; /* such a mask is not checked */
      mask_case_upload(c);
      cr_assert_eq(mask_case_run(c), TARE_STATUS_OK, "%s", tare_error_text(device->context));
      cr_assert_eq(c->found_losses[0], loss);
      mask_case_free(c);
    }
  }
}

/* An invalid mask is not counted; neither is one without a pixel that counts. */
Test(masks, what_counts) {
  FOR_EACH_DEVICE(device) {
    mask_plan plan = mask_plan_of(4, 20);
    plan.has_valid = 1;
    plan.normalizer = TARE_NORMALIZER_ROWS;
    mask_case *c = mask_case_new(device, &plan);
    for (int i = 0; i < 20; i++) c->counts[20 + i] = 0;
    mask_case_upload(c);
    mask_case_check(c);
    c->counts[0] = 1;
    c->t[0] = 3;
    mask_case_upload(c);
    cr_assert_eq(mask_case_run(c), TARE_STATUS_INVALID_TARGET);
    const double of_two = c->found_losses[0];
    c->counts[0] = 0;
    for (int i = 0; i < 20; i++) c->counts[i] = 0;
    mask_case_upload(c);
    mask_case_check(c);
    cr_assert_eq(c->found_losses[0], of_two);
    mask_case_free(c);
  }
}

/* Within a thousandth of the ends a target is clamped. */
Test(masks, clamped_targets) {
  FOR_EACH_DEVICE(device) {
    mask_plan plan = mask_plan_of(1, 40);
    plan.spec.focal_weight = 1;
    mask_case *c = mask_case_new(device, &plan);
    double *kept = malloc(40 * sizeof *kept);
    for (int i = 0; i < 40; i++) kept[i] = c->t[i], c->t[i] += c->t[i] == 1 ? 9e-4 : -9e-4;
    mask_case_upload(c);
    memcpy(c->t, kept, 40 * sizeof *kept);
    mask_case_check(c);
    free(kept);
    mask_case_free(c);
  }
}

Test(masks, scales_that_are_not_finite) {
  static const double scales[] = {(double)INFINITY, (double)NAN, 0};
  FOR_EACH_DEVICE(device) {
    for (int way = 0; way < 3; way++) {
      mask_plan plan = mask_plan_of(1, 40);
      plan.by_pointer = 1;
      plan.has_valid = 1;
      plan.normalizer = TARE_NORMALIZER_VALUE;
      mask_case *c = mask_case_new(device, &plan);
      store_element(c->scale->before, 0, TARE_DTYPE_F32, way == 2 ? 1 : scales[way]);
      if (way == 2) store_element(c->divisor->before, 0, TARE_DTYPE_F32, 0);
      buffer_upload(c->scale);
      buffer_upload(c->divisor);
      cr_assert_eq(mask_case_run(c), TARE_STATUS_OK);
      for (int i = 0; i < 40; i++) cr_assert_eq(isfinite(c->found[i]), !c->counts[i], "%g", c->found[i]);
      mask_case_free(c);
    }
  }
}
