/* SPDX-License-Identifier: Apache-2.0 */
/* What is refused, and in which words. */
#include "masks.h"

static void expect_refused(mask_case *c, tare_status wanted, const char *text) {
  const tare_status status = tare_mask_evaluate(c->device->context, &c->plan.spec, &c->masks, &c->output, NULL);
  const char *found = tare_error_text(c->device->context);
  cr_assert_eq(status, wanted, "%s: %s", text, found);
  cr_assert(strstr(found, text), "no '%s' in: %s", text, found);
}

#define REFUSE_AS(status, place, value, text)      \
  do {                                             \
    c->plan.spec = sound.spec;                     \
    c->masks = masks;                              \
    c->output = output;                            \
    place = value;                                 \
    expect_refused(c, TARE_STATUS_##status, text); \
  } while (0)
#define REFUSE(place, value, text) REFUSE_AS(INVALID_ARGUMENT, place, value, text)

#define BEGIN                                   \
  mask_plan sound = mask_plan_of(3, 16);        \
  mask_case *c = mask_case_new(device, &sound); \
  const tare_masks masks = c->masks;            \
  const tare_mask_output output = c->output;    \
  cr_assert_eq(tare_context_set_workspace(device->context, c->workspace->memory, c->workspace->bytes), TARE_STATUS_OK)
#define END                                             \
  tare_context_set_workspace(device->context, NULL, 0); \
  mask_case_free(c)

Test(mask_errors, parameters) {
  FOR_EACH_DEVICE(device) {
    BEGIN;
    REFUSE(c->plan.spec.false_positive_weight, -1, "spec->false_positive_weight is -1");
    REFUSE(c->plan.spec.false_positive_weight, 1e-31, "in [1e-30,1e+30], or 0");
    REFUSE(c->plan.spec.false_negative_weight, (double)NAN, "spec->false_negative_weight is nan");
    REFUSE(c->plan.spec.exponent, 0, "spec->exponent is 0; it must be in [0.01,100]");
    REFUSE(c->plan.spec.exponent, 101, "spec->exponent is 101");
    REFUSE(c->plan.spec.numerator_smoothing, 1, "spec->numerator_smoothing is 1; it must be at most");
    REFUSE(c->plan.spec.denominator_smoothing, -1, "spec->denominator_smoothing is -1");
    REFUSE(c->plan.spec.overlap_weight, (double)INFINITY, "spec->overlap_weight is inf");
    REFUSE(c->plan.spec.focal_weight, -2, "spec->focal_weight is -2");
    REFUSE(c->plan.spec.alpha, 1.5, "spec->alpha is 1.5");
    REFUSE(c->plan.spec.alpha, (double)NAN, "spec->alpha is nan");
    REFUSE(c->plan.spec.gamma, 10001, "spec->gamma is 10001; it must be in [0,10000]");
    REFUSE(c->plan.spec.squared, 2, "spec->squared is 2");
    REFUSE(c->plan.spec.reserved, 1, "spec->reserved is 1");
    REFUSE(c->plan.spec.struct_size, 12, "mask_spec->struct_size is 12");
    END;
  }
}

Test(mask_errors, arrays) {
  FOR_EACH_DEVICE(device) {
    BEGIN;
    char *const logits = c->logits->memory;
    REFUSE(c->masks.masks, -1, "masks->masks is -1");
    REFUSE(c->masks.pixels, -1, "masks->pixels is -1");
    REFUSE(c->masks.pixels, (int64_t)1 << 40, "in [0,2^40)");
    REFUSE(c->masks.logits, NULL, "masks->logits is NULL");
    REFUSE(c->masks.targets, NULL, "masks->targets is NULL");
    REFUSE(c->masks.logits, logits + 1, "masks->logits is");
    REFUSE(c->masks.targets, (char *)c->targets->memory + 2, "aligned to 4 bytes");
    REFUSE(c->masks.mask_weights, (void *)(logits + 3), "masks->mask_weights is");
    REFUSE(c->masks.logits_stride, INT64_MAX, "masks->logits_stride is too large");
    REFUSE(c->masks.targets_stride, INT64_MIN, "masks->targets_stride is too large");
    REFUSE(c->output.gradient_stride, 15, "output->gradient_stride is 15; it must be at least masks->pixels, 16");
    REFUSE(c->output.gradient, c->targets->memory, "overlaps masks->targets");
    REFUSE(c->output.gradient, logits + 4, "overlaps masks->logits");
    REFUSE(c->output.loss, c->output.focal_loss, "overlaps output->focal_loss");
    REFUSE(c->output.loss, logits + 8, "output->loss");
    REFUSE(c->output.sums, (void *)((char *)c->sums->memory + 4), "output->sums is");
    REFUSE(c->output.mask_loss, c->sums->memory, "overlaps output->sums");
    REFUSE(c->masks.struct_size, 12, "masks->struct_size is 12");
    REFUSE(c->output.struct_size, 12, "mask_output->struct_size is 12");
    END;
  }
}

Test(mask_errors, types_and_numbers) {
  FOR_EACH_DEVICE(device) {
    BEGIN;
    REFUSE(c->masks.dtype, 4, "masks->dtype is 4");
    REFUSE(c->masks.target_dtype, 5, "masks->target_dtype is 5");
    REFUSE(c->masks.ignore_target, 1, "masks->ignore_target is 1; it must be in [2,255]");
    REFUSE(c->masks.ignore_target, 255, "only targets of u8 have it");
    REFUSE(c->masks.reserved, 1, "masks->reserved is 1");
    REFUSE(c->output.loss_dtype, TARE_DTYPE_F16, "output->loss_dtype is 1");
    REFUSE(c->output.normalizer, 8, "output->normalizer is 8");
    REFUSE_AS(UNSUPPORTED, c->output.normalizer, TARE_NORMALIZER_POSITIVES,
              "output->normalizer is 3; for masks it must be");
    REFUSE(c->output.normalizer_value, 0, "output->normalizer_value is 0");
    REFUSE(c->output.gradient_scale, 1e39, "output->gradient_scale is 1e+39");
    REFUSE(c->output.gradient_scale_pointer, (float *)((char *)c->scale->memory + 1), "aligned to 4 bytes");
    if (device->kind == TARE_DEVICE_CUDA) REFUSE_AS(UNSUPPORTED, c->masks.dtype, TARE_DTYPE_F64, "TARE_DTYPE_F64");
    tare_context_set_workspace(device->context, c->workspace->memory, c->workspace->bytes - 8);
    REFUSE_AS(WORKSPACE_TOO_SMALL, c->masks.reserved, 0, "tare_mask_workspace_size");
    cr_assert_eq(tare_mask_evaluate(NULL, &c->plan.spec, &c->masks, &c->output, NULL), TARE_STATUS_INVALID_ARGUMENT);
    cr_assert_eq(tare_mask_workspace_size(device->context, &c->masks, NULL), TARE_STATUS_INVALID_ARGUMENT);
    uint64_t bytes;
    c->masks.masks = INT32_MAX;
    c->masks.pixels = ((int64_t)1 << 40) - 1;
    cr_assert_eq(tare_mask_workspace_size(device->context, &c->masks, &bytes), TARE_STATUS_INVALID_ARGUMENT);
    cr_assert(strstr(tare_error_text(device->context), "2^50"));
    END;
  }
}
