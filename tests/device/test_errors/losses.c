/* SPDX-License-Identifier: Apache-2.0 */
/* Losses and their parameters are refused by name, value and range. */
#define _GNU_SOURCE
#include "errors.h"

Test(errors, the_base_call_itself_is_right) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      base b;
      base_open(&b, device, kind);
      for (int which = EVALUATE; which <= (is_ghm(kind) ? HISTOGRAM : LABEL_COUNTS); which++) {
        if (which == HISTOGRAM) b.loss.ghm.state = b.state->memory;
        cr_assert_eq(make_call(&b, (which_call)which), TARE_STATUS_OK, "%s %d: %s", tare_loss_name(kind), which,
                     tare_error_text(device->context));
      }
      base_close(&b);
    }
  }
}

/* A later version may give them a meaning. */
Test(errors, reserved_fields_are_zero) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      INVALID(kind, "loss->reserved", "7", b.loss.reserved = 7);
      INVALID(kind, "loss->reserved_words[15]", NULL, b.loss.reserved_words[15] = 1);
    }
    INVALID(TARE_LOSS_SIGMOID_MATCHABILITY, "loss->matchability.reserved", "-1", b.loss.matchability.reserved = -1);
  }
}

/* ---- Losses ---------------------------------------------------------------------------------------------------- */

Test(errors, loss) {
  FOR_EACH_DEVICE(device) {
    INVALID(TARE_LOSS_SIGMOID_CE, "kind", "99", b.loss.kind = 99);
    INVALID(TARE_LOSS_SIGMOID_CE, "kind", "-1", b.loss.kind = -1);
    INVALID(TARE_LOSS_SIGMOID_CE, "alpha", "1.5", b.loss.ce.alpha = 1.5);
    INVALID(TARE_LOSS_SIGMOID_CE, "alpha", "nan", b.loss.ce.alpha = NAN);
    INVALID(TARE_LOSS_SIGMOID_FOCAL, "alpha", "1.01", b.loss.focal.alpha = 1.01);
    INVALID(TARE_LOSS_SIGMOID_FOCAL, "alpha", "inf", b.loss.focal.alpha = INFINITY);
    INVALID(TARE_LOSS_SIGMOID_FOCAL, "gamma", "-0.5", b.loss.focal.gamma = -0.5);
    INVALID(TARE_LOSS_SIGMOID_FOCAL, "gamma", "nan", b.loss.focal.gamma = NAN);
    INVALID(TARE_LOSS_SIGMOID_FOCAL, "gamma", "inf", b.loss.focal.gamma = INFINITY);
    INVALID(TARE_LOSS_SIGMOID_FOCAL, "gamma", "10001", b.loss.focal.gamma = 10001);
    INVALID(TARE_LOSS_SOFTMAX_FOCAL, "gamma", "-1", b.loss.focal.gamma = -1);
    INVALID(TARE_LOSS_SOFTMAX_FOCAL, "alpha", "nan", b.loss.focal.alpha = NAN);
    INVALID(TARE_LOSS_SOFTMAX_FOCAL, "alpha", "inf", b.loss.focal.alpha = INFINITY);
    INVALID(TARE_LOSS_SOFTMAX_LOGIT_ADJUSTED, "logit_adjusted.offset", "aligned to 4",
            b.loss.logit_adjusted.offset = (const float *)(const void *)((const char *)b.weights->memory + 2));
    INVALID(TARE_LOSS_SOFTMAX_LDAM, "ldam.margins", "aligned to 4",
            b.loss.ldam.margins = (const float *)(const void *)((const char *)b.weights->memory + 2));
    INVALID(TARE_LOSS_SOFTMAX_LDAM, "scale", "0", b.loss.ldam.scale = 0);
    INVALID(TARE_LOSS_SOFTMAX_LDAM, "scale", "-30", b.loss.ldam.scale = -30);
    INVALID(TARE_LOSS_SOFTMAX_LDAM, "scale", "nan", b.loss.ldam.scale = NAN);
    INVALID(TARE_LOSS_SOFTMAX_LDAM, "scale", "1e+39", b.loss.ldam.scale = 1e39);
    INVALID(TARE_LOSS_SIGMOID_POLY1, "alpha", "2", b.loss.poly1.alpha = 2);
    INVALID(TARE_LOSS_SIGMOID_POLY1, "gamma", "-2", b.loss.poly1.gamma = -2);
    INVALID(TARE_LOSS_SIGMOID_POLY1, "epsilon", "inf", b.loss.poly1.epsilon = INFINITY);
    INVALID(TARE_LOSS_SIGMOID_POLY1, "epsilon", "nan", b.loss.poly1.epsilon = NAN);
  }
}

Test(errors, ghm) {
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_GHM_C; kind <= TARE_LOSS_GHM_R; kind++) {
      INVALID(kind, "bins", "0", b.loss.ghm.bins = 0);
      INVALID(kind, "bins", "1025", b.loss.ghm.bins = 1025);
      INVALID(kind, "bins", "-3", b.loss.ghm.bins = -3);
      INVALID(kind, "density", "2", b.loss.ghm.density = 2);
      INVALID(kind, "variant", "-1", b.loss.ghm.variant = -1);
      INVALID(kind, "use_stored_density", "2", (b.loss.ghm.use_stored_density = 2, b.loss.ghm.state = b.state->memory));
      INVALID(kind, "momentum", "1", (b.loss.ghm.momentum = 1, b.loss.ghm.state = b.state->memory));
      INVALID(kind, "momentum", "-0.1", (b.loss.ghm.momentum = -0.1, b.loss.ghm.state = b.state->memory));
      INVALID(kind, "momentum", "nan", (b.loss.ghm.momentum = NAN, b.loss.ghm.state = b.state->memory));
      INVALID(kind, "state", "NULL", b.loss.ghm.momentum = 0.5);
      INVALID(kind, "state", "NULL", b.loss.ghm.use_stored_density = 1);
      INVALID(kind, "state", NULL, b.loss.ghm.state = (char *)b.state->memory + 4);
      INVALID(kind, "epsilon", "0", (b.loss.ghm.density = TARE_GHM_DENSITY_EXACT, b.loss.ghm.epsilon = 0));
      INVALID(kind, "epsilon", "2.5", (b.loss.ghm.density = TARE_GHM_DENSITY_EXACT, b.loss.ghm.epsilon = 2.5));
      INVALID(kind, "epsilon", "nan", (b.loss.ghm.density = TARE_GHM_DENSITY_EXACT, b.loss.ghm.epsilon = NAN));
      UNSUPPORTED(kind, "normalizer", b.output.normalizer = TARE_NORMALIZER_ROWS);
      UNSUPPORTED(kind, "normalizer", b.output.normalizer = TARE_NORMALIZER_VALUE);
      UNSUPPORTED(kind, "class_weights", b.batch.class_weights = b.weights->memory);
      UNSUPPORTED(kind, "positive_weights", b.batch.positive_weights = b.weights->memory);
      UNSUPPORTED(kind, "element_weights", b.levels[1].element_weights = b.weights->memory);
      UNSUPPORTED(kind, "background_weight", b.batch.background_weight = 0.5);
      UNSUPPORTED(kind, "use_stored_density",
                  (b.loss.ghm.density = TARE_GHM_DENSITY_EXACT, b.loss.ghm.use_stored_density = 1,
                   b.loss.ghm.state = b.state->memory));
      UNSUPPORTED(
          kind, "momentum",
          (b.loss.ghm.density = TARE_GHM_DENSITY_EXACT, b.loss.ghm.momentum = 0.5, b.loss.ghm.state = b.state->memory));
    }
    INVALID(TARE_LOSS_GHM_R, "mu", "0", b.loss.ghm.mu = 0);
    INVALID(TARE_LOSS_GHM_R, "mu", "-1", b.loss.ghm.mu = -1);
    INVALID(TARE_LOSS_GHM_R, "mu", "nan", b.loss.ghm.mu = NAN);
    INVALID(TARE_LOSS_GHM_R, "mu", "1e-31", b.loss.ghm.mu = 1e-31);
    INVALID(TARE_LOSS_GHM_R, "mu", "1e+31", b.loss.ghm.mu = 1e31);
    INVALID(TARE_LOSS_GHM_R, "targets", "NULL", b.levels[1].targets = NULL);
  }
}
