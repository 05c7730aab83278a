/* SPDX-License-Identifier: Apache-2.0 */
/* Defaults of the public structs, and the strides of the usual layouts. The caller's struct may be shorter or longer
 * than ours. Only fields that it has are written. Its bytes beyond ours become zero. */
#include <string.h>

#include "parameters.h"

static void give(void *theirs, uint64_t their_size, const void *ours, uint64_t our_size) {
  memset(theirs, 0, their_size);
  memcpy(theirs, ours, their_size < our_size ? their_size : our_size);
}

void tare_context_options_init_sized(tare_context_options *options, uint64_t struct_size) {
  const tare_context_options defaults = {.struct_size = struct_size, .device_index = -1};
  give(options, struct_size, &defaults, sizeof defaults);
}

void tare_loss_spec_init_sized(tare_loss_spec *loss, tare_loss_kind kind, uint64_t struct_size) {
  tare_loss_spec defaults;
  memset(&defaults, 0, sizeof defaults);
  defaults.struct_size = struct_size;
  defaults.kind = (int32_t)kind;
  tare_parameters_set_defaults(&defaults);
  give(loss, struct_size, &defaults, sizeof defaults);
}

void tare_batch_init_sized(tare_batch *batch, uint64_t struct_size, uint64_t level_size) {
  const tare_batch defaults = {.struct_size = struct_size,
                               .level_stride = level_size,
                               .images = 1,
                               .background_label = -1,
                               .ignore_label = -2,
                               .background_weight = 1,
                               .selection_ratio = 3,
                               .class_mask_class_stride = 1};
  give(batch, struct_size, &defaults, sizeof defaults);
}

void tare_output_init_sized(tare_output *output, uint64_t struct_size) {
  const tare_output defaults = {.struct_size = struct_size, .normalizer_value = 1, .gradient_scale = 1};
  give(output, struct_size, &defaults, sizeof defaults);
}

void tare_linear_init_sized(tare_linear *linear, int64_t dimensions, uint64_t struct_size) {
  const tare_linear defaults = {.struct_size = struct_size,
                                .dimensions = dimensions,
                                .features_stride = dimensions,
                                .features_gradient_stride = dimensions};
  give(linear, struct_size, &defaults, sizeof defaults);
}

/** A product that saturates. A level that large is refused later, so its strides must not wrap before. */
static int64_t times(int64_t a, int64_t b) {
  int64_t product;
  return __builtin_mul_overflow(a, b, &product) ? INT64_MAX : product;
}

/** Strides of the arrays with a class axis, and of those with one value a row (contiguous in row order). */
static void fill_level(tare_level *level, uint64_t struct_size, int64_t height, int64_t width, int64_t anchors,
                       tare_strides element) {
  const int64_t line = times(width, anchors);
  const tare_strides row = {times(height, line), line, anchors, 1, 0};
  const tare_level filled = {.height = height,
                             .width = width,
                             .anchors = anchors,
                             .logits_strides = element,
                             .gradient_strides = element,
                             .labels_strides = row,
                             .targets_strides = element,
                             .row_weights_strides = row,
                             .element_weights_strides = element,
                             .row_loss_strides = row,
                             .element_loss_strides = element,
                             .scores_strides = row,
                             .loss_weight = 1};
  give(level, struct_size, &filled, sizeof filled);
}

void tare_level_init_rows_sized(tare_level *level, int64_t rows, int64_t classes, uint64_t struct_size) {
  tare_level_init_nhwc_sized(level, 1, classes, 1, rows, struct_size);
}

void tare_level_init_nchw_sized(tare_level *level, int64_t anchors, int64_t classes, int64_t height, int64_t width,
                                uint64_t struct_size) {
  const int64_t plane = times(height, width), anchor = times(classes, plane);
  const tare_strides element = {times(anchors, anchor), width, 1, anchor, plane};
  fill_level(level, struct_size, height, width, anchors, element);
}

void tare_level_init_nhwc_sized(tare_level *level, int64_t anchors, int64_t classes, int64_t height, int64_t width,
                                uint64_t struct_size) {
  const int64_t channels = times(anchors, classes), line = times(width, channels);
  const tare_strides element = {times(height, line), line, channels, classes, 1};
  fill_level(level, struct_size, height, width, anchors, element);
}

void tare_class_balance_init_sized(tare_class_balance *balance, int64_t classes, uint64_t struct_size) {
  const tare_class_balance defaults = {.struct_size = struct_size, .classes = classes, .beta = 0.999, .decay = 1};
  give(balance, struct_size, &defaults, sizeof defaults);
}

void tare_gradient_balance_init_sized(tare_gradient_balance *balance, tare_gradient_rule rule, int64_t classes,
                                      uint64_t struct_size) {
  const tare_gradient_balance defaults = {.struct_size = struct_size,
                                          .classes = classes,
                                          .exempt = -1,
                                          .rule = (int32_t)rule,
                                          .steepness = 12,
                                          .midpoint = 0.8,
                                          .gain = 4,
                                          .gamma = 2,
                                          .scale = 8};
  give(balance, struct_size, &defaults, sizeof defaults);
}

void tare_mask_spec_init_sized(tare_mask_spec *spec, uint64_t struct_size) {
  const tare_mask_spec defaults = {.struct_size = struct_size,
                                   .false_positive_weight = 0.5,
                                   .false_negative_weight = 0.5,
                                   .exponent = 1,
                                   .numerator_smoothing = 0.5,
                                   .denominator_smoothing = 0.5,
                                   .overlap_weight = 1,
                                   .alpha = 0.25,
                                   .gamma = 2};
  give(spec, struct_size, &defaults, sizeof defaults);
}

void tare_masks_init_sized(tare_masks *masks, int64_t count, int64_t pixels, uint64_t struct_size) {
  const tare_masks defaults = {.struct_size = struct_size,
                               .masks = count,
                               .pixels = pixels,
                               .logits_stride = pixels,
                               .targets_stride = pixels,
                               .valid_stride = pixels,
                               .ignore_target = -1};
  give(masks, struct_size, &defaults, sizeof defaults);
}

void tare_mask_output_init_sized(tare_mask_output *output, int64_t pixels, uint64_t struct_size) {
  const tare_mask_output defaults = {
      .struct_size = struct_size, .normalizer_value = 1, .gradient_scale = 1, .gradient_stride = pixels};
  give(output, struct_size, &defaults, sizeof defaults);
}
