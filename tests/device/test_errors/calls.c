/* SPDX-License-Identifier: Apache-2.0 */
/* Outputs, NULL, and the calls beside tare_evaluate. */
#define _GNU_SOURCE
#include "errors.h"

/* ---- Output ---------------------------------------------------------------------------------------------------- */

Test(errors, output) {
  FOR_EACH_DEVICE(device) {
    INVALID(TARE_LOSS_SIGMOID_CE, "loss_dtype", "1", b.output.loss_dtype = TARE_DTYPE_F16);
    INVALID(TARE_LOSS_SIGMOID_CE, "loss_dtype", "7", b.output.loss_dtype = 7);
    INVALID(TARE_LOSS_SIGMOID_CE, "normalizer", "8", b.output.normalizer = 8);
    INVALID(TARE_LOSS_SIGMOID_CE, "normalizer", "-1", b.output.normalizer = -1);
    INVALID(TARE_LOSS_SIGMOID_CE, "normalizer_value", "0",
            (b.output.normalizer = TARE_NORMALIZER_VALUE, b.output.normalizer_value = 0));
    INVALID(TARE_LOSS_SIGMOID_CE, "normalizer_value", "nan",
            (b.output.normalizer = TARE_NORMALIZER_VALUE, b.output.normalizer_value = NAN));
    INVALID(TARE_LOSS_SIGMOID_CE, "normalizer_value", "inf",
            (b.output.normalizer = TARE_NORMALIZER_VALUE, b.output.normalizer_value = INFINITY));
    INVALID(TARE_LOSS_SIGMOID_CE, "gradient_scale", "nan", b.output.gradient_scale = NAN);
    INVALID(TARE_LOSS_SIGMOID_CE, "gradient_scale", "inf", b.output.gradient_scale = -INFINITY);
    INVALID(TARE_LOSS_SIGMOID_CE, "loss", NULL, b.output.loss = (char *)b.loss_out->memory + 1);
    INVALID(TARE_LOSS_SIGMOID_CE, "counts", NULL, b.output.counts = (tare_counts *)((char *)b.counts->memory + 4));
  }
}

/* ---- NULL ------------------------------------------------------------------------------------------------------ */

#define NULL_REFUSED(context, name, call)                                                           \
  do {                                                                                              \
    const tare_status status = (call);                                                              \
    cr_assert_eq(status, TARE_STATUS_INVALID_ARGUMENT, "%s: %s", (name), tare_status_name(status)); \
    expect_text(__LINE__, tare_error_text(context), (name), "NULL");                                \
  } while (0)

Test(errors, null_arguments) {
  FOR_EACH_DEVICE(device) {
    base b;
    base_open(&b, device, TARE_LOSS_GHM_C);
    uint64_t bytes = 0;
    NULL_REFUSED(b.context, "loss", tare_evaluate(b.context, NULL, &b.batch, &b.output, NULL));
    NULL_REFUSED(b.context, "batch", tare_evaluate(b.context, &b.loss, NULL, &b.output, NULL));
    NULL_REFUSED(b.context, "output", tare_evaluate(b.context, &b.loss, &b.batch, NULL, NULL));
    NULL_REFUSED(b.context, "loss", tare_workspace_size(b.context, NULL, &b.batch, NULL, &bytes));
    NULL_REFUSED(b.context, "batch", tare_workspace_size(b.context, &b.loss, NULL, NULL, &bytes));
    NULL_REFUSED(b.context, "bytes", tare_workspace_size(b.context, &b.loss, &b.batch, NULL, NULL));
    NULL_REFUSED(b.context, "batch", tare_label_counts(b.context, NULL, NULL, NULL, NULL));
    NULL_REFUSED(b.context, "loss", tare_ghm_histogram(b.context, NULL, &b.batch, NULL));
    NULL_REFUSED(b.context, "batch", tare_ghm_histogram(b.context, &b.loss, NULL, NULL));
    NULL_REFUSED(b.context, "state", tare_ghm_histogram(b.context, &b.loss, &b.batch, NULL));
    NULL_REFUSED(b.context, "loss", tare_ghm_density_update(b.context, NULL, NULL));
    NULL_REFUSED(b.context, "state", tare_ghm_density_update(b.context, &b.loss, NULL));
    NULL_REFUSED(b.context, "description", tare_context_describe(b.context, NULL));
    NULL_REFUSED(b.context, "workspace", tare_context_set_workspace(b.context, NULL, 64));
    base_close(&b);
  }
}

Test(errors, null_contexts) {
  base b;
  test_device *device = devices_first();
  base_open(&b, device, TARE_LOSS_GHM_C);
  tare_context_description description = {.struct_size = sizeof description};
  uint64_t bytes = 0;
  NULL_REFUSED(NULL, "context", tare_evaluate(NULL, &b.loss, &b.batch, &b.output, NULL));
  NULL_REFUSED(NULL, "context", tare_workspace_size(NULL, &b.loss, &b.batch, NULL, &bytes));
  NULL_REFUSED(NULL, "context", tare_label_counts(NULL, &b.batch, NULL, NULL, NULL));
  NULL_REFUSED(NULL, "context", tare_ghm_histogram(NULL, &b.loss, &b.batch, NULL));
  NULL_REFUSED(NULL, "context", tare_ghm_density_update(NULL, &b.loss, NULL));
  NULL_REFUSED(NULL, "context", tare_context_describe(NULL, &description));
  NULL_REFUSED(NULL, "context", tare_context_synchronize(NULL, NULL));
  NULL_REFUSED(NULL, "context", tare_context_set_workspace(NULL, NULL, 0));
  NULL_REFUSED(NULL, "context", tare_context_create(NULL, NULL));
  tare_context_destroy(NULL);
  base_close(&b);
  tare_context_destroy(device->context);
}

/* ---- The other calls ------------------------------------------------------------------------------------------- */

Test(errors, label_counts) {
  FOR_EACH_DEVICE(device) {
    REFUSED(LABEL_COUNTS, TARE_LOSS_SIGMOID_CE, INVALID_ARGUMENT, "labels", "NULL", b.levels[1].labels = NULL);
    REFUSED(LABEL_COUNTS, TARE_LOSS_SIGMOID_CE, INVALID_ARGUMENT, "classes", "0", b.batch.classes = 0);
    REFUSED(LABEL_COUNTS, TARE_LOSS_SIGMOID_CE, INVALID_ARGUMENT, "label_dtype", "9", b.batch.label_dtype = 9);
    REFUSED(LABEL_COUNTS, TARE_LOSS_SIGMOID_CE, INVALID_ARGUMENT, "level_count", "0", b.batch.level_count = 0);
  }
}

Test(errors, label_counts_needs_no_logits) {
  FOR_EACH_DEVICE(device) {
    base b;
    base_open(&b, device, TARE_LOSS_SIGMOID_CE);
    b.levels[0].logits = b.levels[1].logits = NULL;
    b.levels[0].gradient = b.levels[1].gradient = NULL;
    cr_assert_eq(make_call(&b, LABEL_COUNTS), TARE_STATUS_OK, "%s", tare_error_text(device->context));
    base_close(&b);
  }
}

Test(errors, ghm_calls) {
  FOR_EACH_DEVICE(device) {
    REFUSED(HISTOGRAM, TARE_LOSS_GHM_C, UNSUPPORTED, "density", NULL,
            (b.loss.ghm.density = TARE_GHM_DENSITY_EXACT, b.loss.ghm.state = b.state->memory));
    REFUSED(HISTOGRAM, TARE_LOSS_GHM_C, INVALID_ARGUMENT, "bins", "0",
            (b.loss.ghm.bins = 0, b.loss.ghm.state = b.state->memory));
    REFUSED(HISTOGRAM, TARE_LOSS_SIGMOID_CE, INVALID_ARGUMENT, "kind", NULL, (void)0);
    REFUSED(HISTOGRAM, TARE_LOSS_GHM_C, INVALID_ARGUMENT, "logits", "NULL",
            (b.levels[1].logits = NULL, b.loss.ghm.state = b.state->memory));
    REFUSED(DENSITY_UPDATE, TARE_LOSS_SIGMOID_CE, INVALID_ARGUMENT, "kind", NULL, (void)0);
    REFUSED(DENSITY_UPDATE, TARE_LOSS_GHM_C, UNSUPPORTED, "density", NULL,
            (b.loss.ghm.density = TARE_GHM_DENSITY_EXACT, b.loss.ghm.state = b.state->memory));
    REFUSED(DENSITY_UPDATE, TARE_LOSS_GHM_C, INVALID_ARGUMENT, "momentum", "1",
            (b.loss.ghm.momentum = 1, b.loss.ghm.state = b.state->memory));
  }
}

static void check_workspace(const test_device *device, int32_t kind) {
  base b;
  uint64_t bytes = 0;
  base_open(&b, device, kind);
  b.loss.ghm.density = TARE_GHM_DENSITY_EXACT;
  cr_assert_eq(tare_workspace_size(b.context, &b.loss, &b.batch, NULL, &bytes), TARE_STATUS_OK);
  cr_assert_gt(bytes, 0u);
  expect_refused(&b, EVALUATE, TARE_STATUS_WORKSPACE_TOO_SMALL, "workspace", "0", __LINE__);
  buffer *workspace = buffer_new(device, bytes + 16, 0);
  cr_assert_eq(tare_context_set_workspace(b.context, workspace->memory, bytes - 1), TARE_STATUS_OK);
  expect_refused(&b, EVALUATE, TARE_STATUS_WORKSPACE_TOO_SMALL, "workspace", NULL, __LINE__);
  cr_assert_eq(tare_context_set_workspace(b.context, (char *)workspace->memory + 8, bytes),
               TARE_STATUS_INVALID_ARGUMENT);
  cr_assert_eq(tare_context_set_workspace(b.context, workspace->memory, bytes), TARE_STATUS_OK);
  cr_assert_eq(make_call(&b, EVALUATE), TARE_STATUS_OK, "%s", tare_error_text(b.context));
  buffer_download(workspace, "workspace");
  for (int i = 0; i < 16; i++) cr_assert_eq(workspace->now[bytes + (uint64_t)i], 0xFF, "written beyond what was lent");
  cr_assert_eq(tare_context_set_workspace(b.context, NULL, 0), TARE_STATUS_OK);
  base c;
  base_open(&c, device, kind);
  c.loss.ghm.density = TARE_GHM_DENSITY_EXACT;
  expect_refused(&c, EVALUATE, TARE_STATUS_WORKSPACE_TOO_SMALL, "workspace", NULL, __LINE__);
  base_close(&c);
  buffer_free(workspace);
  base_close(&b);
}

Test(errors, workspace) {
  FOR_EACH_DEVICE(device) {
    check_workspace(device_able(device, TARE_LOSS_GHM_C, TARE_DTYPE_F32), TARE_LOSS_GHM_C);
    check_workspace(device_able(device, TARE_LOSS_GHM_R, TARE_DTYPE_F32), TARE_LOSS_GHM_R);
    FOR_EACH_LOSS(kind) {
      base b;
      uint64_t bytes = 77;
      base_open(&b, device, kind);
      cr_assert_eq(tare_workspace_size(b.context, &b.loss, &b.batch, NULL, &bytes), TARE_STATUS_OK);
      cr_assert_eq(bytes, 0u, "only the exact density needs a workspace");
      base_close(&b);
    }
    REFUSED(WORKSPACE_SIZE, TARE_LOSS_GHM_C, INVALID_ARGUMENT, "bins", "0", b.loss.ghm.bins = 0);
    REFUSED(WORKSPACE_SIZE, TARE_LOSS_GHM_C, INVALID_ARGUMENT, "classes", "0", b.batch.classes = 0);
  }
}

/* The size is asked for first, so it is refused first. */
Test(errors, what_a_gpu_does_not_compute) {
  FOR_EACH_DEVICE(device) {
    if (device_computes(device, TARE_LOSS_GHM_C, TARE_DTYPE_F64)) continue;
    for (int32_t density = TARE_GHM_DENSITY_UNIT_REGION; density <= TARE_GHM_DENSITY_EXACT; density++) {
      for (int which = EVALUATE; which <= WORKSPACE_SIZE; which++) {
        REFUSED((which_call)which, TARE_LOSS_GHM_C, UNSUPPORTED, "batch->dtype", "TARE_DTYPE_F64",
                (b.batch.dtype = TARE_DTYPE_F64, b.loss.ghm.density = density));
      }
    }
  }
}

static tare_status any_simple_call(const base *b, int which, int64_t rows, int64_t classes, tare_dtype dtype,
                                   tare_normalizer normalizer) {
  const void *logits = b->memory[0].logits->memory;
  const int32_t *labels = b->memory[0].labels->memory;
  float *loss = b->loss_out->memory;
  void *gradient = b->memory[0].gradient->memory;
  switch (which) {
    case 0:
      return tare_sigmoid_ce(b->context, rows, classes, dtype, logits, labels, -1, normalizer, loss, gradient, NULL);
    case 1:
      return tare_sigmoid_focal(b->context, rows, classes, dtype, logits, labels, 2, 0.25, normalizer, loss, gradient,
                                NULL);
    case 2:
      return tare_softmax_ce(b->context, rows, classes, dtype, logits, labels, normalizer, loss, gradient, NULL);
    case 3:
      return tare_softmax_focal(b->context, rows, classes, dtype, logits, labels, 2, -1, normalizer, loss, gradient,
                                NULL);
    default:
      return tare_ghm_c(b->context, rows, classes, dtype, logits, labels, 10, loss, gradient, NULL);
  }
}

Test(errors, simple_calls) {
  FOR_EACH_DEVICE(device) {
    base b;
    base_open(&b, device, TARE_LOSS_SIGMOID_CE);
    for (int which = 0; which < 5; which++) {
      const tare_normalizer sum = TARE_NORMALIZER_SUM;
      cr_assert_eq(any_simple_call(&b, which, -1, CLASSES, TARE_DTYPE_F32, sum), TARE_STATUS_INVALID_ARGUMENT);
      expect_text(__LINE__, tare_error_text(b.context), "rows", "-1");
      cr_assert_eq(any_simple_call(&b, which, ROWS, 0, TARE_DTYPE_F32, sum), TARE_STATUS_INVALID_ARGUMENT);
      expect_text(__LINE__, tare_error_text(b.context), "classes", "0");
      cr_assert_eq(any_simple_call(&b, which, ROWS, CLASSES, (tare_dtype)9, sum), TARE_STATUS_INVALID_ARGUMENT);
      expect_text(__LINE__, tare_error_text(b.context), "dtype", "9");
      if (which == 4) continue;
      cr_assert_eq(any_simple_call(&b, which, ROWS, CLASSES, TARE_DTYPE_F32, TARE_NORMALIZER_VALUE),
                   TARE_STATUS_INVALID_ARGUMENT);
      expect_text(__LINE__, tare_error_text(b.context), "normalizer", NULL);
    }
    buffer_expect_unchanged(b.loss_out, "loss");
    buffer_expect_unchanged(b.memory[0].gradient, "gradient");
    cr_assert_eq(tare_sigmoid_ce(NULL, 1, 1, TARE_DTYPE_F32, NULL, NULL, -1, TARE_NORMALIZER_SUM, NULL, NULL, NULL),
                 TARE_STATUS_INVALID_ARGUMENT);
    base_close(&b);
  }
}

Test(errors, class_balanced_calls) {
  double number = 7;
  float weights[3] = {7, 7, 7};
  const int64_t counts[3] = {5, 0, 9}, none[3] = {0, 0, 0}, negative[3] = {5, -1, 9};
  const double betas[3] = {0.9, 1, 0.9};
  const tare_status bad = TARE_STATUS_INVALID_ARGUMENT;
#define HOST_REFUSED(name, value, call)                                              \
  do {                                                                               \
    cr_assert_eq((call), bad);                                                       \
    expect_text(__LINE__, tare_error_text(NULL), (name), (value));                   \
    cr_assert(number == 7 && weights[0] == 7 && weights[1] == 7 && weights[2] == 7); \
  } while (0)
  HOST_REFUSED("n", "-1", tare_effective_number(-1, 0.9, &number));
  HOST_REFUSED("n", "nan", tare_effective_number(NAN, 0.9, &number));
  HOST_REFUSED("beta", "1", tare_effective_number(5, 1, &number));
  HOST_REFUSED("beta", "-0.1", tare_effective_number(5, -0.1, &number));
  HOST_REFUSED("beta", "nan", tare_effective_number(5, NAN, &number));
  HOST_REFUSED("effective_number", "NULL", tare_effective_number(5, 0.9, NULL));
  HOST_REFUSED("volume", "0.5", tare_beta_from_volume(0.5, &number));
  HOST_REFUSED("volume", NULL, tare_beta_from_volume(0x1p53, &number));
  HOST_REFUSED("volume", "inf", tare_beta_from_volume(INFINITY, &number));
  HOST_REFUSED("volume", "nan", tare_beta_from_volume(NAN, &number));
  HOST_REFUSED("beta", "NULL", tare_beta_from_volume(2, NULL));
  HOST_REFUSED("classes", "0", tare_class_balanced_weights(0, counts, 0.9, NULL, weights));
  HOST_REFUSED("classes", "-3", tare_class_balanced_weights(-3, counts, 0.9, NULL, weights));
  HOST_REFUSED("counts", "NULL", tare_class_balanced_weights(3, NULL, 0.9, NULL, weights));
  HOST_REFUSED("weights", "NULL", tare_class_balanced_weights(3, counts, 0.9, NULL, NULL));
  HOST_REFUSED("counts[1]", "-1", tare_class_balanced_weights(3, negative, 0.9, NULL, weights));
  HOST_REFUSED("counts", "0", tare_class_balanced_weights(3, none, 0.9, NULL, weights));
  HOST_REFUSED("beta", "1", tare_class_balanced_weights(3, counts, 1, NULL, weights));
  HOST_REFUSED("beta_per_class[1]", "1", tare_class_balanced_weights(3, counts, 0.9, betas, weights));
  const double real[3] = {5, 0.5, 9}, no_real[3] = {0, -0.0, 0};
  HOST_REFUSED("classes", "0", tare_class_balanced_weights_real(0, real, 0.9, NULL, weights));
  HOST_REFUSED("counts", "NULL", tare_class_balanced_weights_real(3, NULL, 0.9, NULL, weights));
  HOST_REFUSED("weights", "NULL", tare_class_balanced_weights_real(3, real, 0.9, NULL, NULL));
  HOST_REFUSED("counts", "0", tare_class_balanced_weights_real(3, no_real, 0.9, NULL, weights));
  HOST_REFUSED("beta", "1", tare_class_balanced_weights_real(3, real, 1, NULL, weights));
  HOST_REFUSED("beta_per_class[1]", "1", tare_class_balanced_weights_real(3, real, 0.9, betas, weights));
  const double wrong[] = {-1, -5e-324, NAN, INFINITY, -INFINITY};
  const char *const said[] = {"-1", "-4.9", "nan", "inf", "-inf"};
  for (int i = 0; i < 5; i++) {
    HOST_REFUSED("counts[1]", said[i],
                 tare_class_balanced_weights_real(3, (const double[]){5, wrong[i], 9}, 0.9, NULL, weights));
  }
}

Test(errors, logit_adjustment_calls) {
  double number = 7;
  float weights[3] = {7, 7, 7};
  const double counts[3] = {5, 0, 9};
  const tare_status bad = TARE_STATUS_INVALID_ARGUMENT;
  HOST_REFUSED("classes", "0", tare_logit_adjustment(0, counts, 1, weights));
  HOST_REFUSED("classes", "-3", tare_logit_adjustment(-3, counts, 1, weights));
  HOST_REFUSED("counts", "NULL", tare_logit_adjustment(3, NULL, 1, weights));
  HOST_REFUSED("offset", "NULL", tare_logit_adjustment(3, counts, 1, NULL));
  HOST_REFUSED("tau", "nan", tare_logit_adjustment(3, counts, NAN, weights));
  HOST_REFUSED("tau", "inf", tare_logit_adjustment(3, counts, INFINITY, weights));
  HOST_REFUSED("tau", "-1.01e+30", tare_logit_adjustment(3, counts, -1.01e30, weights));
  const double wrong[] = {-1, -5e-324, NAN, INFINITY, -INFINITY};
  const char *const said[] = {"-1", "-4.9", "nan", "inf", "-inf"};
  for (int i = 0; i < 5; i++)
    HOST_REFUSED("counts[1]", said[i], tare_logit_adjustment(3, (const double[]){5, wrong[i], 9}, 1, weights));
  /* Frequencies: a single sample is not 1 there. */
  HOST_REFUSED("counts[2]", "counts[1] is 0.25", tare_logit_adjustment(3, (const double[]){0.75, 0.25, 0}, 1, weights));
  HOST_REFUSED("counts[0]", "0.5", tare_logit_adjustment(3, (const double[]){0, 0.5, 100}, 1, weights));
  HOST_REFUSED("empty", "2", tare_logit_offsets(3, counts, 1, 2, weights));
  HOST_REFUSED("every count", "0", tare_logit_offsets(3, (const double[]){0, 0, 0}, 1, 1, weights));
}

Test(errors, ldam_margins) {
  double number = 7;
  float weights[3] = {7, 7, 7};
  const double counts[3] = {5, 0, 9};
  const tare_status bad = TARE_STATUS_INVALID_ARGUMENT;
  HOST_REFUSED("classes", "0", tare_ldam_margins(0, counts, 0.5, 0, weights));
  HOST_REFUSED("counts", "NULL", tare_ldam_margins(3, NULL, 0.5, 0, weights));
  HOST_REFUSED("margins", "NULL", tare_ldam_margins(3, counts, 0.5, 0, NULL));
  HOST_REFUSED("max_margin", "nan", tare_ldam_margins(3, counts, NAN, 0, weights));
  HOST_REFUSED("max_margin", "-0.5", tare_ldam_margins(3, counts, -0.5, 0, weights));
  HOST_REFUSED("empty", "-1", tare_ldam_margins(3, counts, 0.5, -1, weights));
  HOST_REFUSED("counts[1]", "nan", tare_ldam_margins(3, (const double[]){5, NAN, 9}, 0.5, 0, weights));
  HOST_REFUSED("every count", "0", tare_ldam_margins(3, (const double[]){0, 0, 0}, 0.5, 1, weights));
}
