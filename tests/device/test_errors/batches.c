/* SPDX-License-Identifier: Apache-2.0 */
/* Batches are refused by name, value and range. */
#define _GNU_SOURCE
#include "errors.h"

/* ---- Batches --------------------------------------------------------------------------------------------------- */

Test(errors, batch) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      INVALID(kind, "levels", "NULL", b.batch.levels = NULL);
      INVALID(kind, "level_count", "0", b.batch.level_count = 0);
      INVALID(kind, "level_count", "17", b.batch.level_count = 17);
      INVALID(kind, "level_count", "-1", b.batch.level_count = -1);
      INVALID(kind, "dtype", "4", b.batch.dtype = 4);
      INVALID(kind, "dtype", "-1", b.batch.dtype = -1);
      INVALID(kind, "label_dtype", "2", b.batch.label_dtype = 2);
      INVALID(kind, "score_dtype", "4", b.batch.score_dtype = 4);
      INVALID(kind, "score_dtype", "-1", b.batch.score_dtype = -1);
      INVALID(kind, "selection", "3", b.batch.selection = 3);
      INVALID(kind, "selection", "-1", b.batch.selection = -1);
      INVALID(kind, "scores", NULL, b.levels[0].scores = (const char *)b.weights->memory + 2);
      INVALID(kind, "images", "-1", b.batch.images = -1);
      INVALID(kind, "classes", "0", b.batch.classes = 0);
      INVALID(kind, "classes", "-4", b.batch.classes = -4);
      INVALID(kind, "classes", "2147483648", b.batch.classes = INT64_C(1) << 31);
      INVALID(kind, "ignore_label", "-1", b.batch.ignore_label = -1);
      INVALID(kind, "height", "-1", b.levels[1].height = -1);
      INVALID(kind, "width", "-2", b.levels[0].width = -2);
      INVALID(kind, "anchors", "-3", b.levels[1].anchors = -3);
      INVALID(kind, "logits", "NULL", b.levels[1].logits = NULL);
      INVALID(kind, "logits", NULL, b.levels[1].logits = (const char *)b.levels[1].logits + 1);
      INVALID(kind, "gradient", NULL, b.levels[0].gradient = (char *)b.levels[0].gradient + 2);
      INVALID(kind, "labels", NULL, b.levels[0].labels = (const char *)b.levels[0].labels + 1);
      INVALID(kind, "row_loss", NULL, b.levels[0].row_loss = (char *)b.levels[0].row_loss + 3);
      INVALID(kind, "level_stride", "0", b.batch.level_stride = 0);
      if (kind != TARE_LOSS_GHM_R) INVALID(kind, "labels", "NULL", b.levels[1].labels = NULL);
    }
    INVALID(TARE_LOSS_SIGMOID_CE, "target_dtype", "4",
            (b.batch.target_dtype = 4, b.levels[0].targets = b.levels[1].targets = b.targets->memory));
    INVALID(TARE_LOSS_SIGMOID_CE, "class_weights", NULL,
            b.batch.class_weights = (float *)((char *)b.weights->memory + 2));
    INVALID(TARE_LOSS_SIGMOID_CE, "alpha_per_class", NULL,
            b.loss.ce.alpha_per_class = (float *)((char *)b.weights->memory + 2));
  }
}

/* Sizes whose product leaves 64 bits, or whose offsets do. */
Test(errors, sizes_that_overflow) {
  const int64_t big = INT64_C(1) << 40;
  FOR_EACH_DEVICE(device) {
    INVALID(TARE_LOSS_SIGMOID_CE, "height", NULL, (b.levels[0].height = big, b.levels[0].width = big));
    INVALID(TARE_LOSS_SIGMOID_CE, "images", NULL, (b.batch.images = INT64_MAX));
    INVALID(TARE_LOSS_SIGMOID_CE, "stride", NULL,
            (b.batch.images = 2, b.levels[0].logits_strides.image = INT64_MAX / 2, b.levels[0].gradient = NULL));
  }
}

Test(errors, overlaps) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      INVALID(kind, "gradient", NULL, b.levels[0].gradient = (char *)b.memory[0].logits->memory + 4);
      INVALID(kind, "gradient", NULL, b.levels[0].gradient = b.memory[1].logits->memory);
      INVALID(kind, "gradient", NULL, b.levels[0].gradient = b.memory[1].gradient->memory);
      INVALID(kind, "gradient", NULL, b.levels[0].gradient = (char *)b.memory[1].gradient->memory + 4);
      INVALID(kind, "row_loss", NULL, b.levels[0].row_loss = (char *)b.memory[1].row_loss->memory + 4);
      INVALID(kind, "gradient", NULL, b.levels[0].gradient = b.memory[0].labels->memory);
      INVALID(kind, "gradient", NULL, b.levels[0].gradient_strides.cls = 0);
      INVALID(kind, "gradient", NULL, b.levels[0].gradient_strides.cls = CLASSES);
      INVALID(kind, "row_loss", NULL,
              (b.levels[0].row_loss_strides = (tare_strides){0, 0, 0, 0, 0}, b.levels[0].row_loss = b.spare->memory));
      /* in place, but not with the logits' strides */
      INVALID(kind, "gradient", NULL,
              (b.levels[0].gradient = b.memory[0].logits->memory,
               b.levels[0].gradient_strides = (tare_strides){ELEMENTS, 1, 1, 1, ROWS}));
      INVALID(kind, "gradient", NULL, /* nor where the classes alone lie otherwise */
              (b.levels[0].gradient = b.memory[0].logits->memory,
               b.levels[0].logits_strides = b.levels[0].gradient_strides =
                   (tare_strides){2 * ELEMENTS, 2 * CLASSES, 2 * CLASSES, 2 * CLASSES, 1},
               b.levels[0].gradient_strides.cls = 2));
    }
    INVALID(TARE_LOSS_SIGMOID_CE, "gradient", NULL, b.levels[1].gradient = b.memory[0].row_loss->memory);
    INVALID(TARE_LOSS_SIGMOID_CE, "gradient", NULL,
            (b.levels[0].row_weights = b.spare->memory, b.levels[0].gradient = b.spare->memory));
    INVALID(TARE_LOSS_SIGMOID_CE, "scores", NULL,
            (b.levels[0].scores = b.spare->memory, b.levels[0].gradient = b.spare->memory));
    INVALID(TARE_LOSS_SIGMOID_CE, "scores_strides", "2^58",
            (b.levels[0].scores = b.spare->memory, b.levels[0].scores_strides.x = INT64_MAX / 2));
    INVALID(TARE_LOSS_SIGMOID_CE, "gradient", NULL,
            (b.levels[0].element_weights = b.spare->memory, b.levels[0].gradient = b.spare->memory));
    INVALID(TARE_LOSS_SIGMOID_CE, "gradient", NULL,
            (b.levels[0].element_loss = b.spare->memory, b.levels[0].gradient = b.spare->memory));
    INVALID(TARE_LOSS_SIGMOID_CE, "gradient", NULL,
            (b.levels[0].targets = b.levels[1].targets = b.spare->memory, b.levels[0].gradient = b.spare->memory));
  }
}

/* Arrays that only interleave do not overlap: the halves of rows twice as wide. */
Test(errors, interleaved_arrays_are_no_overlap) {
  FOR_EACH_DEVICE(device) {
    base b;
    base_open(&b, device, TARE_LOSS_SIGMOID_CE);
    buffer *wide = zeros(device, ELEMENTS * 8);
    b.batch.level_count = 1;
    b.levels[0].logits = wide->memory;
    b.levels[0].gradient = (float *)wide->memory + CLASSES;
    tare_strides *const both[] = {&b.levels[0].logits_strides, &b.levels[0].gradient_strides};
    for (int i = 0; i < 2; i++) {
      both[i]->image *= 2;
      both[i]->y *= 2;
      both[i]->x *= 2;
      both[i]->anchor *= 2;
    }
    cr_assert_eq(make_call(&b, EVALUATE), TARE_STATUS_OK, "%s", tare_error_text(device->context));
    buffer_free(wide);
    base_close(&b);
  }
}

Test(errors, softmax_takes_no_element_arrays) {
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_SOFTMAX_CE; kind <= TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED; kind++) {
      UNSUPPORTED(kind, "element_weights", b.levels[1].element_weights = b.weights->memory);
      UNSUPPORTED(kind, "element_loss", b.levels[1].element_loss = b.spare->memory);
      UNSUPPORTED(kind, "positive_weights", b.batch.positive_weights = b.weights->memory);
    }
  }
}

Test(errors, ldam_takes_labels_alone) {
  FOR_EACH_DEVICE(device) {
    UNSUPPORTED(TARE_LOSS_SOFTMAX_LDAM, "element_weights", b.levels[1].element_weights = b.weights->memory);
    UNSUPPORTED(TARE_LOSS_SOFTMAX_LDAM, "element_loss", b.levels[1].element_loss = b.spare->memory);
    UNSUPPORTED(TARE_LOSS_SOFTMAX_LDAM, "positive_weights", b.batch.positive_weights = b.weights->memory);
  }
}

Test(errors, of_targets_between_bins) {
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_SOFTMAX_DISTRIBUTION_FOCAL; kind <= TARE_LOSS_SOFTMAX_TWO_HOT; kind++) {
      INVALID(kind, "scores", "levels[1]", b.levels[1].scores = b.weights->memory);
      INVALID(kind, "scores", "levels[1]", b.levels[0].scores = b.weights->memory);
      INVALID(kind, "score_dtype", "3",
              (b.levels[0].scores = b.levels[1].scores = b.weights->memory, b.batch.score_dtype = TARE_DTYPE_F64));
      UNSUPPORTED(kind, "targets", b.levels[0].targets = b.levels[1].targets = b.targets->memory);
      UNSUPPORTED(kind, "class_sums",
                  (b.levels[0].scores = b.levels[1].scores = b.weights->memory,
                   b.output.class_sums = (tare_class_sums *)b.spare->memory));
      UNSUPPORTED(kind, "selection",
                  (b.levels[0].scores = b.levels[1].scores = b.weights->memory,
                   b.batch.selection = TARE_SELECTION_HARD_NEGATIVES, b.batch.background_label = 0));
    }
    UNSUPPORTED(
        TARE_LOSS_SOFTMAX_DISTRIBUTION_FOCAL, "class_weights",
        (b.levels[0].scores = b.levels[1].scores = b.weights->memory, b.batch.class_weights = b.weights->memory));
    UNSUPPORTED(TARE_LOSS_SOFTMAX_DISTRIBUTION_FOCAL, "background_weight",
                (b.levels[0].scores = b.levels[1].scores = b.weights->memory, b.batch.background_weight = 0.5));
    INVALID(TARE_LOSS_SOFTMAX_DISTRIBUTION_FOCAL, "distribution_focal.delta", "1.5",
            b.loss.distribution_focal.delta = 1.5);
    INVALID(TARE_LOSS_SOFTMAX_TWO_HOT, "two_hot.reserved", "1", b.loss.two_hot.reserved = 1);
    INVALID(
        TARE_LOSS_SOFTMAX_TWO_HOT, "scores_strides", "cls",
        (b.levels[0].scores = b.levels[1].scores = b.weights->memory, b.levels[0].scores_strides.cls = INT64_MAX / 2));
  }
}

Test(errors, targets_take_no_class) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      if (takes_scores(kind)) {
        UNSUPPORTED(
            kind, "targets",
            (b.levels[1].scores = b.weights->memory, b.levels[0].targets = b.levels[1].targets = b.targets->memory));
        INVALID(kind, "score_dtype", "3",
                (b.levels[0].scores = b.weights->memory, b.batch.score_dtype = TARE_DTYPE_F64));
      } else if (takes_bins(kind) == 0) {
        UNSUPPORTED(kind, "scores", b.levels[1].scores = b.weights->memory);
      }
    }
    UNSUPPORTED(TARE_LOSS_SOFTMAX_FOCAL, "targets", b.levels[0].targets = b.levels[1].targets = b.targets->memory);
    UNSUPPORTED(
        TARE_LOSS_SIGMOID_CE, "class_weights",
        (b.levels[0].targets = b.levels[1].targets = b.targets->memory, b.batch.class_weights = b.weights->memory));
    UNSUPPORTED(
        TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED, "class_weights",
        (b.levels[0].targets = b.levels[1].targets = b.targets->memory, b.batch.class_weights = b.weights->memory));
    UNSUPPORTED(TARE_LOSS_SOFTMAX_CE, "normalizer",
                (b.levels[0].targets = b.levels[1].targets = b.targets->memory,
                 b.output.normalizer = TARE_NORMALIZER_POSITIVES));
  }
}
