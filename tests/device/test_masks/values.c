/* SPDX-License-Identifier: Apache-2.0 */
/* Losses of masks against the oracle: types, layouts, sizes and parameters. */
#include "masks.h"

static int computes(const test_device *device, int32_t dtype) {
  return device->kind == TARE_DEVICE_CPU || dtype != TARE_DTYPE_F64;
}

static const int64_t sizes[] = {1, 7, 8, 63, 784, 1025, 8192, 8193, 20011};

Test(masks, types_and_sizes) {
  FOR_EACH_DEVICE(device) {
    for (int32_t way = 0; way < 9 * 20; way++) {
      mask_plan plan = mask_plan_of(1 + way % 5, sizes[way % 9]);
      plan.dtype = way / 9 % 4;
      plan.target_dtype = way / 36 % 5;
      plan.soft = way % 2 && plan.target_dtype != TARE_MASK_TARGET_U8;
      plan.spec.squared = way / 2 % 2;
      plan.spec.focal_weight = way % 3 ? 20 : 0;
      plan.normalizer = way % 3 == 2 ? TARE_NORMALIZER_ROWS : TARE_NORMALIZER_SUM;
      if (computes(device, plan.dtype)) mask_plan_check(device, &plan);
    }
  }
}

Test(masks, layouts) {
  FOR_EACH_DEVICE(device) {
    for (int32_t way = 0; way < 64; way++) {
      mask_plan plan = mask_plan_of(3, way % 2 ? 8229 : 131);
      plan.dtype = way % 4;
      plan.target_dtype = way / 4 % 2 ? TARE_MASK_TARGET_U8 : way % 3;
      plan.gap = way / 2 % 2 * 5;
      plan.misalign = way / 8 % 2 * 3;
      plan.in_place = way / 16 % 2;
      plan.has_valid = way / 32 % 2;
      plan.has_weights = way % 3 == 1;
      plan.ignore_target = way / 4 % 2 && way % 5 < 3 && !plan.has_valid ? 255 : 0;
      plan.normalizer = way % 3 == 0 ? TARE_NORMALIZER_VALUE : TARE_NORMALIZER_ROWS;
      plan.by_pointer = way % 6 == 0;
      plan.scale = way % 7 ? 0 : -3;
      plan.spec.focal_weight = way % 5 ? 0.5 : 0;
      if (computes(device, plan.dtype)) mask_plan_check(device, &plan);
    }
  }
}

Test(masks, parameters) {
  static const double weights[][2] = {{0.5, 0.5}, {0.3, 0.7}, {1, 1}, {0, 1}, {0.7, 0}, {1e-9, 2}};
  static const double exponents[] = {1, 0.75, 4.0 / 3, 2, 0.1};
  static const double smoothings[][2] = {{0.5, 0.5}, {0, 0}, {1e-5, 1e-5}, {0, 1e-3}, {1, 30}};
  static const double gammas[] = {2, 0, 1, 1.5, 0.5, 3.7};
  FOR_EACH_DEVICE(device) {
    for (int32_t way = 0; way < 150; way++) {
      mask_plan plan = mask_plan_of(2, 301);
      tare_mask_spec *s = &plan.spec;
      plan.dtype = computes(device, TARE_DTYPE_F64) && way % 2 ? TARE_DTYPE_F64 : TARE_DTYPE_F32;
      plan.target_dtype = way % 4 < 2 ? TARE_MASK_TARGET_U8 : plan.dtype;
      plan.soft = way % 4 >= 2;
      s->false_positive_weight = weights[way % 6][0];
      s->false_negative_weight = weights[way % 6][1];
      s->exponent = exponents[way % 5];
      s->numerator_smoothing = smoothings[way / 6 % 5][0];
      s->denominator_smoothing = smoothings[way / 6 % 5][1];
      s->squared = way / 3 % 2;
      s->focal_weight = way % 7 ? 2 : 0;
      s->overlap_weight = way % 11 ? 3 : 0;
      s->gamma = gammas[way % 6];
      s->alpha = way % 4 == 3 ? -1 : way % 13 ? 0.25 : 1;
      mask_plan_check(device, &plan);
    }
  }
}

/* Sums of four million equal terms keep their digits. */
Test(masks, large) {
  FOR_EACH_DEVICE(device) {
    mask_plan plan = mask_plan_of(1, test_size(1 << 22, 1 << 16));
    plan.target_dtype = TARE_MASK_TARGET_U8;
    plan.spec.focal_weight = 1;
    mask_plan_check(device, &plan);
    plan.value = -2.1;
    plan.spec.numerator_smoothing = plan.spec.denominator_smoothing = 0;
    mask_plan_check(device, &plan);
  }
}

Test(masks, nothing) {
  FOR_EACH_DEVICE(device) {
    for (int way = 0; way < 4; way++) {
      mask_plan plan = mask_plan_of(way % 2 ? 3 : 0, way / 2 ? 5 : 0);
      if (plan.masks && plan.pixels) continue;
      plan.normalizer = TARE_NORMALIZER_ROWS;
      mask_plan_check(device, &plan);
    }
  }
}
