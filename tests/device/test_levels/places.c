/* SPDX-License-Identifier: Apache-2.0 */
/* Odd places, arrays in place, and broadcast. */
#define _GNU_SOURCE
#include "levels.h"

/* ---- Odd places ------------------------------------------------------------------------------------------------ */

/* A class count of a vector's width and one that is not. */
static problem *head_of(int32_t kind, int32_t dtype, int64_t classes) {
  problem *p = problem_new_levels(kind, dtype, 2, classes, 3, pyramid);
  problem_draw_row_weights(p);
  return p;
}

Test(levels, element_alignment_suffices) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t d = 0; d < DTYPES; d++) {
        for (int64_t phase = 1; phase < 8; phase += 2) {
          if (!test_is_due(kind, (int)phase / 2 + (int)d)) continue;
          problem *p = problem_new(kind, dtypes[d], 57, phase < 4 ? 16 : 19);
          problem_draw_row_weights(p);
          for (int kind_of = 0; kind_of < ARRAY_KINDS; kind_of++) p->place[kind_of].phase = phase + kind_of % 3;
          CHECK_PROBLEM(p, device);
          problem_free(p);
        }
      }
    }
  }
}

Test(levels, logits_and_gradient_of_different_phase) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t d = 0; d < DTYPES; d++) {
        for (int64_t phase = 0; phase < 4; phase++) {
          if (!test_is_due(kind, (int)phase + (int)d)) continue;
          problem *p = problem_new(kind, dtypes[d], 57, 19);
          p->place[ARRAY_LOGITS].phase = phase;
          p->place[ARRAY_GRADIENT].phase = 3 - phase;
          CHECK_PROBLEM(p, device);
          problem_free(p);
        }
      }
    }
  }
}

Test(levels, slices_of_larger_tensors) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (int order = 0; order < 2; order++) {
        problem *p = head_of(kind, TARE_DTYPE_F32, 6);
        if (kind != TARE_LOSS_GHM_R && !is_softmax(kind) && !is_ghm(kind)) problem_draw_element_weights(p);
        if (order == 1) use_channels_first(p);
        for (int a = 0; a < ARRAY_KINDS; a++) {
          for (int axis = 0; axis < AXES; axis++) p->place[a].pad[axis] = (a + axis) % 3;
          p->place[a].pad[AXIS_CLASS] += 1;
          if (is_row_array(a)) p->place[a].pad[AXIS_CLASS] = 0;
        }
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* A detection head that shares one tensor with box outputs: C logits in rows of C + 4. */
Test(levels, classes_beside_boxes_in_one_row) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      problem *p = problem_new(kind, TARE_DTYPE_F32, test_size(500, 50), 16);
      p->place[ARRAY_LOGITS].pad[AXIS_CLASS] = 4;
      p->place[ARRAY_GRADIENT].pad[AXIS_CLASS] = 4;
      CHECK_PROBLEM(p, device);
      p->in_place = true;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

Test(levels, in_place) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (size_t d = 0; d < DTYPES; d++) {
        for (int order = 0; order < 2; order++) {
          if (!test_is_due(kind, order + (int)d)) continue;
          problem *p = head_of(kind, dtypes[d], 9);
          if (order == 1) use_channels_first(p);
          outcome *apart = problem_run(p, device);
          p->in_place = true;
          outcome *together = problem_run(p, device);
          CHECK_SAME_OUTCOME(p, together, apart);
          CHECK_PROBLEM(p, device);
          outcome_free(apart);
          outcome_free(together);
          problem_free(p);
        }
      }
    }
  }
}

Test(levels, in_place_rows_wider_than_a_tile) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      problem *p = problem_new(kind, TARE_DTYPE_F32, 5, test_size(20011, 2003));
      p->in_place = true;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* The gradient lies as it likes. */
Test(levels, gradient_in_another_order) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (int order = 0; order < 2; order++) {
        problem *p = head_of(kind, TARE_DTYPE_F32, 8);
        p->place[ARRAY_LOGITS].channels_first = order == 0;
        p->place[ARRAY_GRADIENT].channels_first = order == 1;
        p->place[ARRAY_GRADIENT].phase = 3;
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

Test(levels, strides_below_zero) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      for (unsigned flip = 1; flip < 1u << AXES; flip++) {
        if (!test_is_due(kind, (int)flip)) continue;
        problem *p = problem_new_levels(kind, TARE_DTYPE_F32, 2, 5, 2, pyramid + 2);
        problem_draw_row_weights(p);
        p->place[ARRAY_LOGITS].flip = flip;
        p->place[ARRAY_LABELS].flip = flip & ~(1u << AXIS_CLASS);
        p->place[ARRAY_GRADIENT].flip = flip >> 1;
        p->place[ARRAY_ROW_WEIGHTS].flip = flip & 3u;
        CHECK_PROBLEM(p, device);
        problem_free(p);
      }
    }
  }
}

/* ---- Broadcast ------------------------------------------------------------------------------------------------- */

Test(levels, one_row_weight_an_image) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      problem *p = problem_new_levels(kind, TARE_DTYPE_F32, 3, 5, 1, pyramid);
      p->row_weights = calloc((size_t)p->rows, sizeof *p->row_weights);
      for (int64_t i = 0; i < p->rows; i++) p->row_weights[i] = 0.5 + (double)(i / (p->rows / 3));
      p->place[ARRAY_ROW_WEIGHTS].broadcast = 1u << AXIS_Y | 1u << AXIS_X | 1u << AXIS_ANCHOR;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

Test(levels, one_element_weight_a_class) {
  FOR_EACH_DEVICE(device) {
    for (int32_t kind = TARE_LOSS_SIGMOID_CE; kind <= TARE_LOSS_SIGMOID_POLY1; kind++) {
      problem *p = head_of(kind, TARE_DTYPE_F32, 5);
      p->element_weights = calloc((size_t)(p->rows * 5), sizeof *p->element_weights);
      for (int64_t i = 0; i < p->rows * 5; i++) p->element_weights[i] = (double)(i % 5);
      p->place[ARRAY_ELEMENT_WEIGHTS].broadcast = (1u << AXES) - 1 - (1u << AXIS_CLASS);
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* One label, one target and one logit for all: inputs of no extent at all. */
Test(levels, everything_broadcast) {
  const unsigned all = (1u << AXES) - 1;
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      problem *p = problem_new_levels(kind, TARE_DTYPE_F32, 2, 4, 2, pyramid);
      for (int64_t i = 0; i < p->rows * 4; i++) p->logits[i] = 0.75;
      for (int64_t i = 0; i < p->rows; i++) p->labels[i] = 2;
      if (p->targets != NULL) {
        for (int64_t i = 0; i < p->rows * 4; i++) p->targets[i] = 0.5;
        p->place[ARRAY_TARGETS].broadcast = all;
      }
      p->place[ARRAY_LOGITS].broadcast = all;
      p->place[ARRAY_LABELS].broadcast = all;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

/* All anchors share one row of logits (a shared head), and each has a label of its own. */
Test(levels, logits_shared_by_anchors) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      problem *p = problem_new_levels(kind, TARE_DTYPE_F32, 1, 4, 1, pyramid);
      for (int64_t row = 0; row < p->rows; row++) {
        memcpy(p->logits + row * 4, p->logits + row / 3 * 3 * 4, 4 * sizeof *p->logits);
      }
      p->place[ARRAY_LOGITS].broadcast = 1u << AXIS_ANCHOR;
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}
