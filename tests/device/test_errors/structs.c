/* SPDX-License-Identifier: Apache-2.0 */
/* Structs of other versions, and defaults. */
#define _GNU_SOURCE
#include "errors.h"

/* ---- Structs of other versions --------------------------------------------------------------------------------- */

typedef struct longer_loss {
  tare_loss_spec loss;
  uint64_t tail[3];
} longer_loss;

typedef struct longer_batch {
  tare_batch batch;
  uint64_t tail[3];
} longer_batch;

typedef struct longer_output {
  tare_output output;
  uint64_t tail[3];
} longer_output;

typedef struct longer_level {
  tare_level level;
  uint64_t tail[3];
} longer_level;

Test(errors, longer_structs_with_an_empty_tail_are_taken) {
  FOR_EACH_DEVICE(device) {
    base b;
    base_open(&b, device, TARE_LOSS_SIGMOID_FOCAL);
    longer_loss loss = {.loss = b.loss};
    longer_batch batch = {.batch = b.batch};
    longer_output output = {.output = b.output};
    longer_level levels[LEVELS] = {{.level = b.levels[0]}, {.level = b.levels[1]}};
    loss.loss.struct_size = sizeof loss;
    batch.batch.struct_size = sizeof batch;
    batch.batch.level_stride = sizeof *levels;
    batch.batch.levels = &levels[0].level;
    output.output.struct_size = sizeof output;
    const tare_status fine = tare_evaluate(b.context, &loss.loss, &batch.batch, &output.output, NULL);
    cr_assert_eq(fine, TARE_STATUS_OK, "%s", tare_error_text(b.context));
    struct {
      uint64_t *word;
      const char *name;
    } tails[] = {
        {&loss.tail[2], "loss"}, {&batch.tail[0], "batch"}, {&output.tail[1], "output"}, {&levels[1].tail[2], "level"}};
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
      *tails[i].word = 1;
      const tare_status status = tare_evaluate(b.context, &loss.loss, &batch.batch, &output.output, NULL);
      cr_assert_eq(status, TARE_STATUS_INVALID_ARGUMENT, "a tail of %s: %s", tails[i].name, tare_status_name(status));
      expect_text(__LINE__, tare_error_text(b.context), tails[i].name, NULL);
      *tails[i].word = 0;
    }
    base_close(&b);
  }
}

Test(errors, structs_of_size_0_are_refused) {
  FOR_EACH_DEVICE(device) {
    INVALID(TARE_LOSS_SIGMOID_CE, "struct_size", "0", b.loss.struct_size = 0);
    INVALID(TARE_LOSS_SIGMOID_CE, "struct_size", "0", b.batch.struct_size = 0);
    INVALID(TARE_LOSS_SIGMOID_CE, "struct_size", "0", b.output.struct_size = 0);
  }
}

/* What a shorter struct lacks has its default, whatever the bytes beyond it hold. */
Test(errors, shorter_structs_have_defaults) {
  FOR_EACH_DEVICE(device) {
    base b;
    base_open(&b, device, TARE_LOSS_SIGMOID_FOCAL);
    for (int i = 0; i < ELEMENTS; i++) ((float *)(void *)b.memory[0].logits->before)[i] = (float)i / 8 - 1;
    buffer_upload(b.memory[0].logits);
    cr_assert_eq(make_call(&b, EVALUATE), TARE_STATUS_OK, "%s", tare_error_text(b.context));
    buffer_download(b.loss_out, "loss");
    float whole, part;
    memcpy(&whole, b.loss_out->now, sizeof whole);
    cr_assert(whole > 0);

    b.loss.struct_size = offsetof(tare_loss_spec, focal.gamma);
    b.loss.focal.gamma = -123;
    b.output.struct_size = offsetof(tare_output, normalizer);
    b.output.normalizer = 99;
    b.output.gradient_scale = NAN;
    b.output.counts = (void *)1;
    b.batch.struct_size = offsetof(tare_batch, class_weights);
    b.batch.class_weights = (void *)1;
    b.batch.positive_weights = (void *)1;
    b.batch.background_weight = NAN;
    cr_assert_eq(make_call(&b, EVALUATE), TARE_STATUS_OK, "%s", tare_error_text(b.context));
    buffer_download(b.loss_out, "loss");
    memcpy(&part, b.loss_out->now, sizeof part);
    cr_assert_eq(part, whole);
    base_close(&b);
  }
}

/* Levels of an older, shorter struct lie at its stride. */
Test(errors, shorter_levels_lie_at_their_stride) {
  FOR_EACH_DEVICE(device) {
    base b;
    base_open(&b, device, TARE_LOSS_SIGMOID_FOCAL);
    const size_t stride = offsetof(tare_level, element_loss);
    char *packed = malloc(stride * LEVELS + sizeof(tare_level));
    memset(packed, 0x11, stride * LEVELS + sizeof(tare_level));
    for (int l = 0; l < LEVELS; l++) memcpy(packed + stride * (size_t)l, &b.levels[l], stride);
    b.batch.levels = (const tare_level *)(const void *)packed;
    b.batch.level_stride = stride;
    cr_assert_eq(make_call(&b, EVALUATE), TARE_STATUS_OK, "%s", tare_error_text(b.context));
    buffer_download(b.memory[1].gradient, "gradient");
    float first;
    memcpy(&first, b.memory[1].gradient->now, sizeof first);
    cr_assert(isfinite(first) && first != 0);
    free(packed);
    base_close(&b);
  }
}

/* The init functions write no more than the caller's struct has. */
Test(errors, inits_respect_the_callers_size) {
  _Alignas(16) unsigned char bytes[512];
#define WRITES_ONLY(size, call)                                                                         \
  do {                                                                                                  \
    memset(bytes, 0x5A, sizeof bytes);                                                                  \
    call;                                                                                               \
    uint64_t first;                                                                                     \
    memcpy(&first, bytes, sizeof first);                                                                \
    for (size_t i = (size); i < sizeof bytes; i++) cr_assert_eq(bytes[i], 0x5A, #call " wrote %zu", i); \
    cr_assert_neq(first, UINT64_C(0x5A5A5A5A5A5A5A5A), #call " wrote nothing");                         \
  } while (0)
  WRITES_ONLY(16, tare_loss_spec_init_sized((tare_loss_spec *)(void *)bytes, TARE_LOSS_SIGMOID_FOCAL, 16));
  WRITES_ONLY(48, tare_batch_init_sized((tare_batch *)(void *)bytes, 48, sizeof(tare_level)));
  WRITES_ONLY(24, tare_output_init_sized((tare_output *)(void *)bytes, 24));
  WRITES_ONLY(16, tare_context_options_init_sized((tare_context_options *)(void *)bytes, 16));
  WRITES_ONLY(64, tare_level_init_rows_sized((tare_level *)(void *)bytes, 5, 3, 64));
  WRITES_ONLY(64, tare_level_init_nchw_sized((tare_level *)(void *)bytes, 3, 5, 2, 2, 64));
  WRITES_ONLY(64, tare_level_init_nhwc_sized((tare_level *)(void *)bytes, 3, 5, 2, 2, 64));
}

/* The defaults that the header names. */
Test(errors, defaults) {
  tare_loss_spec loss;
  tare_batch batch;
  tare_output output;
  tare_context_options options;
  memset(&loss, 0xFF, sizeof loss);
  tare_loss_spec_init(&loss, TARE_LOSS_SIGMOID_CE);
  cr_assert(loss.struct_size == sizeof loss && loss.kind == TARE_LOSS_SIGMOID_CE && loss.ce.alpha == -1 &&
            loss.ce.alpha_per_class == NULL);
  tare_loss_spec_init(&loss, TARE_LOSS_SIGMOID_FOCAL);
  cr_assert(loss.focal.alpha == 0.25 && loss.focal.gamma == 2 && loss.focal.alpha_per_class == NULL);
  tare_loss_spec_init(&loss, TARE_LOSS_SOFTMAX_FOCAL);
  cr_assert(loss.focal.alpha < 0 && loss.focal.gamma == 2);
  tare_loss_spec_init(&loss, TARE_LOSS_SIGMOID_POLY1);
  cr_assert(loss.poly1.alpha < 0 && loss.poly1.gamma == 2 && loss.poly1.epsilon == 1);
  for (int32_t kind = TARE_LOSS_GHM_C; kind <= TARE_LOSS_GHM_R; kind++) {
    memset(&loss, 0xFF, sizeof loss);
    tare_loss_spec_init(&loss, (tare_loss_kind)kind);
    cr_assert(loss.ghm.bins == (kind == TARE_LOSS_GHM_C ? 30 : 10) &&
              loss.ghm.density == TARE_GHM_DENSITY_UNIT_REGION && loss.ghm.variant == TARE_GHM_VARIANT_PAPER &&
              loss.ghm.use_stored_density == 0 && loss.ghm.momentum == 0 && loss.ghm.epsilon == 0.1 &&
              loss.ghm.mu == 0.02 && loss.ghm.state == NULL);
  }
  tare_loss_spec_init(&loss, (tare_loss_kind)77);
  cr_assert_eq(loss.kind, 77);
  memset(&batch, 0xFF, sizeof batch);
  tare_batch_init(&batch);
  cr_assert(batch.struct_size == sizeof batch && batch.level_stride == sizeof(tare_level) && batch.levels == NULL &&
            batch.dtype == TARE_DTYPE_F32 && batch.label_dtype == TARE_LABEL_DTYPE_I32 &&
            batch.target_dtype == TARE_DTYPE_F32 && batch.images == 1 && batch.first_label == 0 &&
            batch.background_label == -1 && batch.ignore_label == -2 && batch.class_weights == NULL &&
            batch.background_weight == 1 && batch.positive_weights == NULL);
  memset(&output, 0xFF, sizeof output);
  tare_output_init(&output);
  cr_assert(output.struct_size == sizeof output && output.loss == NULL && output.loss_dtype == TARE_DTYPE_F32 &&
            output.normalizer == TARE_NORMALIZER_SUM && output.normalizer_value == 1 &&
            output.normalizer_pointer == NULL && output.gradient_scale == 1 && output.gradient_scale_pointer == NULL &&
            output.counts == NULL);
  memset(&options, 0xFF, sizeof options);
  tare_context_options_init(&options);
  cr_assert(options.struct_size == sizeof options && options.device == TARE_DEVICE_AUTO && options.device_index == -1 &&
            options.threads == 0 && options.reserved == 0);
}
