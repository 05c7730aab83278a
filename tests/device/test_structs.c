/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Structs of other versions: a struct may end behind any field, and nowhere else. Each size from 0 to beyond the struct
 * is tried, with bytes of 0xFF behind it, which no call may read or write.
 */
#include <criterion/criterion.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/problem.h"

#define AT(type, field) offsetof(type, field)
enum { MOST = 1024 };

/* A call on two rows of three classes in which everything is right. Structs are copied to the end of their memory. */
typedef struct call {
  const test_device *device;
  tare_context *context;
  void *arrays; /* device memory: logits, labels, gradient, state */
  tare_loss_spec loss;
  tare_level level;
  tare_batch batch;
  tare_output output;
} call;

static call *call_new(const test_device *device, int32_t kind) {
  call *c = calloc(1, sizeof *c);
  c->device = device;
  c->context = device->context;
  c->arrays = device->allocate(4096);
  const unsigned char nothing[4096] = {0};
  device->upload(c->arrays, nothing, sizeof nothing);
  tare_loss_spec_init(&c->loss, (tare_loss_kind)kind);
  tare_level_init_rows(&c->level, 2, 3);
  c->level.logits = c->arrays;
  c->level.labels = (char *)c->arrays + 512;
  c->level.gradient = (char *)c->arrays + 1024;
  if (kind == TARE_LOSS_GHM_R) c->level.targets = (char *)c->arrays + 1536;
  tare_batch_init(&c->batch);
  c->batch.levels = &c->level;
  c->batch.level_count = 1;
  c->batch.classes = 3;
  tare_output_init(&c->output);
  return c;
}

static void call_free(call *c) {
  c->device->release(c->arrays);
  free(c);
}

/* The first `size` bytes of a struct whose struct_size is that, then 0xFF. */
static void *cut(unsigned char memory[MOST], const void *whole, size_t whole_size, uint64_t size) {
  memset(memory, 0xFF, MOST);
  memcpy(memory, whole, size < whole_size ? size : whole_size);
  if (size > whole_size) memset(memory + whole_size, 0, size - whole_size);
  memcpy(memory, &size, sizeof size);
  return memory;
}

static bool is_in(uint64_t size, const size_t *ends, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (ends[i] == size) return true;
  return false;
}

/* A size where a field ends is taken or, where too much is missing, refused for that; any other is refused as such. */
static void expect(tare_status status, const char *text, const char *name, uint64_t size, bool ends_on_field) {
  if (ends_on_field) {
    if (status == TARE_STATUS_OK) return;
    cr_assert_null(strstr(text, "inside a field"), "%s of %d bytes: %s", name, (int)size, text);
    cr_assert(status == TARE_STATUS_INVALID_ARGUMENT, "%s of %d bytes: %s", name, (int)size, text);
    return;
  }
  cr_assert_eq(status, TARE_STATUS_INVALID_ARGUMENT, "%s of %d bytes: %s", name, (int)size, tare_status_name(status));
  char value[32];
  snprintf(value, sizeof value, " %d", (int)size);
  cr_assert(strstr(text, name) && strstr(text, value), "%s of %d bytes: %s", name, (int)size, text);
}

/* ---- Inputs ---------------------------------------------------------------------------------------------------- */

static const size_t ce_ends[] = {16,
                                 AT(tare_loss_spec, ce.alpha_per_class),
                                 AT(tare_loss_spec, ce.label_smoothing),
                                 AT(tare_loss_spec, ce.smoothed),
                                 AT(tare_loss_spec, ce.weighting),
                                 AT(tare_loss_spec, ce.z_loss),
                                 AT(tare_loss_spec, ce.z_loss) + 8};
static const size_t bin_ends[] = {16, AT(tare_loss_spec, distribution_focal.delta) + 8};
static const size_t focal_ends[] = {16,
                                    AT(tare_loss_spec, focal.alpha_per_class),
                                    AT(tare_loss_spec, focal.gamma),
                                    AT(tare_loss_spec, focal.label_smoothing),
                                    AT(tare_loss_spec, focal.smoothed),
                                    AT(tare_loss_spec, focal.reserved) + 4};
static const size_t asymmetric_ends[] = {
    16, AT(tare_loss_spec, asymmetric.gamma_negative), AT(tare_loss_spec, asymmetric.margin),
    AT(tare_loss_spec, asymmetric.modulator), AT(tare_loss_spec, asymmetric.reserved) + 4};
static const size_t heatmap_focal_ends[] = {16, AT(tare_loss_spec, heatmap_focal.beta),
                                            AT(tare_loss_spec, heatmap_focal.beta) + 8};
static const size_t reduced_focal_ends[] = {
    16, AT(tare_loss_spec, reduced_focal.alpha_per_class), AT(tare_loss_spec, reduced_focal.gamma),
    AT(tare_loss_spec, reduced_focal.threshold), AT(tare_loss_spec, reduced_focal.threshold) + 8};
static const size_t focal_star_ends[] = {16, AT(tare_loss_spec, focal_star.alpha_per_class),
                                         AT(tare_loss_spec, focal_star.steepness), AT(tare_loss_spec, focal_star.shift),
                                         AT(tare_loss_spec, focal_star.shift) + 8};
static const size_t logit_adjusted_ends[] = {16, AT(tare_loss_spec, logit_adjusted.z_loss),
                                             AT(tare_loss_spec, logit_adjusted.z_loss) + 8};
static const size_t seesaw_ends[] = {16, AT(tare_loss_spec, seesaw.p), AT(tare_loss_spec, seesaw.q),
                                     AT(tare_loss_spec, seesaw.epsilon), AT(tare_loss_spec, seesaw.epsilon) + 8};
static const size_t ldam_ends[] = {16, AT(tare_loss_spec, ldam.scale), AT(tare_loss_spec, ldam.scale) + 8};
static const size_t poly1_ends[] = {16, AT(tare_loss_spec, poly1.alpha_per_class), AT(tare_loss_spec, poly1.gamma),
                                    AT(tare_loss_spec, poly1.epsilon), AT(tare_loss_spec, poly1.epsilon) + 8};
static const size_t varifocal_ends[] = {
    16, AT(tare_loss_spec, varifocal.gamma), AT(tare_loss_spec, varifocal.modulator),
    AT(tare_loss_spec, varifocal.positives), AT(tare_loss_spec, varifocal.positives) + 4};
static const size_t quality_focal_ends[] = {16, AT(tare_loss_spec, quality_focal.alpha_per_class),
                                            AT(tare_loss_spec, quality_focal.beta),
                                            AT(tare_loss_spec, quality_focal.beta) + 8};
static const size_t matchability_ends[] = {16, AT(tare_loss_spec, matchability.gamma),
                                           AT(tare_loss_spec, matchability.modulator),
                                           AT(tare_loss_spec, matchability.reserved) + 4};
static const size_t iou_aware_ends[] = {16, AT(tare_loss_spec, iou_aware.p_exponent),
                                        AT(tare_loss_spec, iou_aware.p_exponent) + 8};
static const size_t ghm_ends[] = {16,
                                  AT(tare_loss_spec, ghm.density),
                                  AT(tare_loss_spec, ghm.variant),
                                  AT(tare_loss_spec, ghm.use_stored_density),
                                  AT(tare_loss_spec, ghm.momentum),
                                  AT(tare_loss_spec, ghm.epsilon),
                                  AT(tare_loss_spec, ghm.mu),
                                  AT(tare_loss_spec, ghm.state),
                                  AT(tare_loss_spec, ghm.state) + 8};

static bool loss_ends(int32_t kind, uint64_t size) {
#define ENDS(list) \
  is_in(size, list, sizeof(list) / sizeof *(list)) || (size > (list)[sizeof(list) / sizeof *(list)-1] && size % 8 == 0)
  if (size >= sizeof(tare_loss_spec)) return true;
  if (is_ghm(kind)) return ENDS(ghm_ends);
  if (kind == TARE_LOSS_SIGMOID_POLY1) return ENDS(poly1_ends);
  if (kind == TARE_LOSS_SIGMOID_VARIFOCAL) return ENDS(varifocal_ends);
  if (kind == TARE_LOSS_SIGMOID_QUALITY_FOCAL) return ENDS(quality_focal_ends);
  if (kind == TARE_LOSS_SIGMOID_MATCHABILITY) return ENDS(matchability_ends);
  if (kind == TARE_LOSS_SIGMOID_IOU_AWARE) return ENDS(iou_aware_ends);
  if (kind == TARE_LOSS_SIGMOID_ASYMMETRIC) return ENDS(asymmetric_ends);
  if (kind == TARE_LOSS_SIGMOID_HEATMAP_FOCAL) return ENDS(heatmap_focal_ends);
  if (kind == TARE_LOSS_SIGMOID_REDUCED_FOCAL) return ENDS(reduced_focal_ends);
  if (kind == TARE_LOSS_SIGMOID_FOCAL_STAR) return ENDS(focal_star_ends);
  if (kind == TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED) return ENDS(logit_adjusted_ends);
  if (kind == TARE_LOSS_SOFTMAX_SEESAW) return ENDS(seesaw_ends);
  if (kind == TARE_LOSS_SOFTMAX_DISTRIBUTION_FOCAL || kind == TARE_LOSS_SOFTMAX_TWO_HOT) return ENDS(bin_ends);
  if (kind == TARE_LOSS_SOFTMAX_LDAM) return ENDS(ldam_ends);
  return kind == TARE_LOSS_SIGMOID_FOCAL || kind == TARE_LOSS_SOFTMAX_FOCAL ? ENDS(focal_ends) : ENDS(ce_ends);
}

Test(structs, a_loss_ends_on_a_field) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      call *c = call_new(device, kind);
      unsigned char memory[MOST];
      for (uint64_t size = 0; size <= sizeof c->loss + 8; size++) {
        const tare_loss_spec *loss = cut(memory, &c->loss, sizeof c->loss, size);
        const tare_status status = tare_evaluate(c->context, loss, &c->batch, &c->output, NULL);
        expect(status, tare_error_text(c->context), "loss->struct_size", size, loss_ends(kind, size));
        if (size >= 16 && loss_ends(kind, size))
          cr_assert_eq(status, TARE_STATUS_OK, "%s, %d: %s", tare_loss_name(kind), (int)size,
                       tare_error_text(c->context));
      }
      call_free(c);
    }
  }
}

static const size_t batch_ends[] = {AT(tare_batch, levels),
                                    AT(tare_batch, level_count),
                                    AT(tare_batch, dtype),
                                    AT(tare_batch, label_dtype),
                                    AT(tare_batch, target_dtype),
                                    AT(tare_batch, images),
                                    AT(tare_batch, classes),
                                    AT(tare_batch, first_label),
                                    AT(tare_batch, background_label),
                                    AT(tare_batch, ignore_label),
                                    AT(tare_batch, class_weights),
                                    AT(tare_batch, background_weight),
                                    AT(tare_batch, positive_weights),
                                    AT(tare_batch, score_dtype),
                                    AT(tare_batch, selection),
                                    AT(tare_batch, selection_ratio),
                                    AT(tare_batch, selection_minimum),
                                    AT(tare_batch, selection_count),
                                    AT(tare_batch, selection_fraction),
                                    AT(tare_batch, negative_weights),
                                    AT(tare_batch, background_negative_weights),
                                    AT(tare_batch, class_mask),
                                    AT(tare_batch, class_mask_image_stride),
                                    AT(tare_batch, class_mask_class_stride)};

Test(structs, a_batch_ends_on_a_field) {
  FOR_EACH_DEVICE(device) {
    call *c = call_new(device, TARE_LOSS_SIGMOID_FOCAL);
    unsigned char memory[MOST];
    for (uint64_t size = 0; size <= sizeof c->batch + 8; size++) {
      const bool ends = size >= sizeof c->batch || is_in(size, batch_ends, sizeof batch_ends / sizeof *batch_ends);
      const tare_batch *batch = cut(memory, &c->batch, sizeof c->batch, size);
      tare_status status = tare_evaluate(c->context, &c->loss, batch, &c->output, NULL);
      expect(status, tare_error_text(c->context), "batch->struct_size", size, ends);
      cr_assert_eq(status == TARE_STATUS_OK, ends && size >= AT(tare_batch, first_label), "%d: %s", (int)size,
                   tare_error_text(c->context));
      status = tare_label_counts(c->context, batch, NULL, NULL, NULL);
      expect(status, tare_error_text(c->context), "batch->struct_size", size, ends);
    }
    call_free(c);
  }
}

static const size_t output_ends[] = {AT(tare_output, loss),
                                     AT(tare_output, loss_dtype),
                                     AT(tare_output, normalizer),
                                     AT(tare_output, normalizer_value),
                                     AT(tare_output, normalizer_pointer),
                                     AT(tare_output, gradient_scale),
                                     AT(tare_output, gradient_scale_pointer),
                                     AT(tare_output, counts),
                                     AT(tare_output, class_sums),
                                     AT(tare_output, nonfinite_gradient),
                                     AT(tare_output, nonfinite_loss),
                                     AT(tare_output, normalizer_addend),
                                     AT(tare_output, normalizer_minimum),
                                     AT(tare_output, normalizer_sums),
                                     AT(tare_output, normalizer_scope),
                                     AT(tare_output, norm_bins),
                                     AT(tare_output, norm_histogram)};

Test(structs, an_output_ends_on_a_field) {
  FOR_EACH_DEVICE(device) {
    call *c = call_new(device, TARE_LOSS_SIGMOID_FOCAL);
    unsigned char memory[MOST];
    for (uint64_t size = 0; size <= sizeof c->output + 8; size++) {
      const bool ends = size >= sizeof c->output || is_in(size, output_ends, sizeof output_ends / sizeof *output_ends);
      const tare_output *output = cut(memory, &c->output, sizeof c->output, size);
      const tare_status status = tare_evaluate(c->context, &c->loss, &c->batch, output, NULL);
      expect(status, tare_error_text(c->context), "output->struct_size", size, ends);
      cr_assert_eq(status == TARE_STATUS_OK, ends, "%d: %s", (int)size, tare_error_text(c->context));
    }
    call_free(c);
  }
}

static const size_t level_ends[] = {
    AT(tare_level, gradient),     AT(tare_level, labels),          AT(tare_level, targets),
    AT(tare_level, row_weights),  AT(tare_level, element_weights), AT(tare_level, row_loss),
    AT(tare_level, element_loss), AT(tare_level, scores),          AT(tare_level, loss),
    AT(tare_level, loss_weight),  AT(tare_level, divisor),         AT(tare_level, divisor_pointer)};

/* An array and its strides belong together: no version has the one without the other. */
Test(structs, a_level_ends_behind_an_array) {
  FOR_EACH_DEVICE(device) {
    call *c = call_new(device, TARE_LOSS_SIGMOID_FOCAL);
    unsigned char memory[MOST];
    for (uint64_t size = 0; size <= sizeof c->level + 24; size++) {
      const bool ends = size == sizeof c->level || (size > sizeof c->level && size % 8 == 0) ||
                        is_in(size, level_ends, sizeof level_ends / sizeof *level_ends);
      memset(memory, 0xFF, sizeof memory);
      memcpy(memory, &c->level, size < sizeof c->level ? size : sizeof c->level);
      if (size > sizeof c->level) memset(memory + sizeof c->level, 0, size - sizeof c->level);
      c->batch.levels = (const tare_level *)(const void *)memory;
      c->batch.level_stride = size;
      const tare_status status = tare_evaluate(c->context, &c->loss, &c->batch, &c->output, NULL);
      const bool has_labels = size >= AT(tare_level, targets);
      cr_assert_eq(status == TARE_STATUS_OK, ends && has_labels, "%d: %s", (int)size, tare_error_text(c->context));
      if (!ends) expect(status, tare_error_text(c->context), "batch->level_stride", size, false);
    }
    call_free(c);
  }
}

/* Every version has all fields of the fused head. */
Test(structs, a_linear_ends_where_it_does) {
  FOR_EACH_DEVICE(device) {
    call *c = call_new(device, TARE_LOSS_SIGMOID_FOCAL);
    unsigned char memory[MOST];
    tare_linear linear;
    tare_linear_init(&linear, 4);
    linear.features = c->arrays;
    linear.weights = (char *)c->arrays + 2048;
    c->level.logits = NULL;
    c->level.gradient = NULL;
    for (uint64_t size = 0; size <= sizeof linear + 8; size++) {
      uint64_t least;
      const tare_status status = tare_linear_workspace_size(
          c->context, &c->loss, &c->batch, cut(memory, &linear, sizeof linear, size), &c->output, &least, NULL);
      expect(status, tare_error_text(c->context), "linear->struct_size", size, size >= sizeof linear);
      cr_assert_eq(status == TARE_STATUS_OK, size >= sizeof linear, "%d: %s", (int)size, tare_error_text(c->context));
    }
    call_free(c);
  }
}

Test(structs, options_end_on_a_field) {
  static const size_t ends[] = {8, AT(tare_context_options, device_index), AT(tare_context_options, threads),
                                AT(tare_context_options, reserved)};
  tare_context_options options;
  unsigned char memory[MOST];
  tare_context_options_init(&options);
  options.device = TARE_DEVICE_CPU;
  for (uint64_t size = 0; size <= sizeof options + 8; size++) {
    const bool is_end = size >= sizeof options || is_in(size, ends, sizeof ends / sizeof *ends);
    tare_context *context = NULL;
    const tare_status status = tare_context_create(&context, cut(memory, &options, sizeof options, size));
    expect(status, tare_error_text(NULL), "context_options->struct_size", size, is_end);
    cr_assert_eq(status == TARE_STATUS_OK, is_end, "%d: %s", (int)size, tare_error_text(NULL));
    tare_context_destroy(context);
  }
}

/* ---- The description, which a call writes ---------------------------------------------------------------------- */

Test(structs, a_description_ends_on_a_field) {
  static const size_t ends[] = {8,
                                AT(tare_context_description, device_index),
                                AT(tare_context_description, threads),
                                AT(tare_context_description, reserved),
                                AT(tare_context_description, device_name),
                                AT(tare_context_description, instruction_set),
                                AT(tare_context_description, reason)};
  FOR_EACH_DEVICE(device) {
    unsigned char memory[MOST];
    for (uint64_t size = 0; size <= sizeof(tare_context_description); size++) {
      const bool is_end = size == sizeof(tare_context_description) || is_in(size, ends, sizeof ends / sizeof *ends);
      memset(memory, 0xFF, sizeof memory);
      memcpy(memory, &size, sizeof size);
      tare_context_description *description = (tare_context_description *)(void *)memory;
      const tare_status status = tare_context_describe(device->context, description);
      expect(status, tare_error_text(device->context), "context_description->struct_size", size, is_end);
      cr_assert_eq(status == TARE_STATUS_OK, is_end, "%d: %s", (int)size, tare_error_text(device->context));
      for (size_t i = is_end ? size : 8; i < sizeof memory; i++) cr_assert_eq(memory[i], 0xFF, "byte %d", (int)i);
    }
  }
}

/* A program built against a later header has a longer description and sets nothing but its size. */
Test(structs, a_longer_description_comes_back_with_zeros) {
  FOR_EACH_DEVICE(device) {
    unsigned char memory[MOST];
    memset(memory, 0xFF, sizeof memory);
    const uint64_t size = sizeof(tare_context_description) + 40;
    memcpy(memory, &size, sizeof size);
    tare_context_description *description = (tare_context_description *)(void *)memory;
    const tare_status status = tare_context_describe(device->context, description);
    cr_assert_eq(status, TARE_STATUS_OK, "%s", tare_error_text(device->context));
    cr_assert_eq(description->struct_size, size);
    cr_assert_eq(description->device, device->kind);
    cr_assert_neq(description->device_name[0], '\0');
    for (size_t i = sizeof *description; i < size; i++) cr_assert_eq(memory[i], 0, "byte %d", (int)i);
    for (size_t i = size; i < sizeof memory; i++) cr_assert_eq(memory[i], 0xFF, "byte %d", (int)i);
  }
}
