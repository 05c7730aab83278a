/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fused head gives the oracle's loss and gradients by features, weights and bias, for every loss, shape and size of
 * workspace, and the same bits for the same workspace.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/head.h"
#include "support/numbers.h"
#include "support/random.h"

static const double rooms[] = {0, 0.3, 1};
enum { ROOMS = sizeof rooms / sizeof *rooms };

/** Calls the problem with the least workspace, an ample one and one between. */
static void check_every_room(problem *p, const test_device *device) {
  outcome *want = problem_expect(p);
  for (int r = 0; r < ROOMS; r++) {
    p->head->room = rooms[r];
    outcome *got = problem_run(p, device);
    CHECK_OUTCOME(p, got, want);
    outcome_free(got);
  }
  outcome_free(want);
}

/* Rows are never a multiple of a tile, and with the least workspace several tiles. */
static int64_t rows_for(int64_t classes) {
  if (classes == 1203) return test_size(70, 30);
  return classes == 80 ? test_size(500, 210) : test_size(2500, 1100);
}

static void check_shape(const test_device *device, int32_t dtype, int64_t classes, int64_t dimensions) {
  FOR_EACH_LOSS(kind) {
    if (!test_is_due(kind, (int)(classes + dimensions / 64) + dtype)) continue;
    problem *p = head_problem(kind, dtype, rows_for(classes), classes, dimensions);
    check_every_room(p, device);
    problem_free(p);
  }
}

static void check_classes(int64_t classes) {
  static const int64_t dimensions[] = {1, 64, 256};
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    for (size_t d = 0; d < 3; d++) check_shape(device, TARE_DTYPE_F32, classes, dimensions[d]);
  }
}

Test(linear, one_class) { check_classes(1); }

Test(linear, three_classes) { check_classes(3); }

Test(linear, coco) { check_classes(80); }

Test(linear, lvis) { check_classes(1203); }

Test(linear, half_types) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    for (int32_t dtype = TARE_DTYPE_F16; dtype <= TARE_DTYPE_BF16; dtype++) {
      check_shape(device, dtype, 3, 64);
      check_shape(device, dtype, 80, 256);
      check_shape(device, dtype, 1203, 64);
    }
  }
}

Test(linear, few_rows_and_none) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    for (int64_t rows = 0; rows <= 2; rows++) {
      FOR_EACH_LOSS(kind) {
        if (rows != 1 && !test_is_due(kind, (int)rows)) continue;
        problem *p = head_problem(kind, TARE_DTYPE_F32, rows, 5, 7);
        check_every_room(p, device);
        p->head->accumulate = true;
        check_every_room(p, device);
        problem_free(p);
      }
    }
  }
}

/* ---- What is wanted, and where it lies -------------------------------------------------------------------------- */

Test(linear, any_of_its_outputs) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    for (int32_t dtype = TARE_DTYPE_F32; dtype <= TARE_DTYPE_BF16; dtype++) {
      for (unsigned outputs = 0; outputs <= HEAD_ALL; outputs++) {
        problem *p = head_problem(TARE_LOSS_SIGMOID_FOCAL, dtype, 300, 60, 20);
        p->head->outputs = outputs;
        check_every_room(p, device);
        p->want = WANT_COUNTS;
        check_every_room(p, device);
        problem_free(p);
      }
    }
  }
}

static void check_places(const test_device *device, problem *p) {
  static const int64_t paddings[][2] = {{0, 0}, {3, 0}, {0, 5}, {1, 2}};
  for (size_t i = 0; i < sizeof paddings / sizeof *paddings; i++) {
    p->head->padding = paddings[i][0];
    p->head->gradient_padding = paddings[i][1];
    check_every_room(p, device);
  }
}

Test(linear, strides_and_features_overwritten) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    for (int32_t dtype = TARE_DTYPE_F32; dtype <= TARE_DTYPE_BF16; dtype++) {
      problem *p =
          head_problem(dtype == TARE_DTYPE_F32 ? TARE_LOSS_GHM_C : TARE_LOSS_SIGMOID_FOCAL, dtype, 300, 60, 20);
      check_places(device, p);
      p->head->in_place = true;
      check_places(device, p);
      problem_free(p);
    }
  }
}

Test(linear, no_bias_and_sums_added_to) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    for (int32_t dtype = TARE_DTYPE_F32; dtype <= TARE_DTYPE_BF16; dtype++) {
      problem *p = head_problem(TARE_LOSS_SIGMOID_CE, dtype, 300, 60, 20);
      p->head->accumulate = true;
      check_every_room(p, device);
      free(p->head->bias);
      p->head->bias = NULL;
      head_multiply(p);
      check_every_room(p, device);
      p->head->accumulate = false;
      check_every_room(p, device);
      problem_free(p);
    }
  }
}

/* ---- Normalizers, weights, labels ------------------------------------------------------------------------------- */

Test(linear, normalizers_and_scales) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    FOR_EACH_LOSS(kind) {
      for (int32_t normalizer = TARE_NORMALIZER_SUM;
           normalizer <= (is_ghm(kind) ? TARE_NORMALIZER_SUM : TARE_NORMALIZER_VALUE); normalizer++) {
        if (!is_ghm(kind) && !test_is_due(kind, normalizer)) continue;
        problem *p = head_problem(kind, TARE_DTYPE_F32, 300, 60, 20);
        p->normalizer = normalizer;
        p->normalizer_value = 7.5;
        p->normalizer_on_device = normalizer == TARE_NORMALIZER_VALUE;
        p->gradient_scale = -3;
        p->device_scale = 0.5;
        p->loss_dtype = TARE_DTYPE_F64;
        if (!is_ghm(kind)) p->class_weights = random_class_weights(p, 1);
        if (!is_ghm(kind)) p->background_weight = 0.5;
        problem_draw_row_weights(p);
        check_every_room(p, device);
        problem_free(p);
      }
    }
  }
}

Test(linear, labels_of_another_convention) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    FOR_EACH_LOSS(kind) {
      problem *p = head_problem(kind, TARE_DTYPE_F32, 300, 60, 20);
      p->label_dtype = TARE_LABEL_DTYPE_I64;
      p->first_label = 1;
      p->background_label = 0;
      p->ignore_label = 255;
      problem_draw_labels(p, 0.3, 0.2);
      check_every_room(p, device);
      problem_free(p);
    }
  }
}

Test(linear, element_weights_and_dense_targets) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    FOR_EACH_LOSS(kind) {
      if (is_softmax(kind) || is_ghm(kind)) continue;
      problem *p = head_problem(kind, TARE_DTYPE_F32, 300, 60, 20);
      problem_draw_element_weights(p);
      p->positive_weights = random_class_weights(p, 2);
      p->alpha_per_class = random_class_weights(p, 3);
      for (int64_t c = 0; c < p->classes; c++) p->alpha_per_class[c] = (double)(float)(p->alpha_per_class[c] / 2.5);
      check_every_room(p, device);
      problem_draw_targets(p, TARE_DTYPE_F32);
      p->slack = 1e-5;
      check_every_room(p, device);
      problem_free(p);
    }
  }
}

/* ---- GHM --------------------------------------------------------------------------------------------------------- */

static void check_counts(const problem *p) {
  for (int k = 0; k < p->loss.ghm.bins; k++) {
    cr_assert_eq((int64_t)p->ghm_state[2 + k], p->oracle_state->counts[k], "%s: bin %d", problem_text(p), k);
  }
}

Test(linear, ghm_counts_all_chunks_together) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    for (int32_t kind = TARE_LOSS_GHM_C; kind <= TARE_LOSS_GHM_R; kind++) {
      problem *p = head_problem(kind, TARE_DTYPE_F32, 300, 60, 20);
      problem_add_ghm_state(p);
      p->loss.ghm.momentum = 0.75;
      for (int step = 0; step < 3; step++) {
        p->head->room = rooms[step];
        CHECK_PROBLEM(p, device);
        check_counts(p);
      }
      problem_free(p);
    }
  }
}

/** The three calls of several ranks, by hand: histogram, density, evaluation. */
static void count_by_hand(problem *p, const test_device *device) {
  head_run run;
  head_open(&run, p, device);
  buffer *labels = buffer_new(device, (size_t)p->rows * 4, 0);
  for (int64_t i = 0; i < p->rows; i++) ((int32_t *)labels->before)[i] = (int32_t)p->labels[i];
  buffer_upload(labels);
  buffer *state = buffer_of(device, p->ghm_state, tare_ghm_state_bytes(p->loss.ghm.bins));
  tare_level level;
  tare_level_init_rows(&level, p->rows, p->classes);
  level.labels = labels->memory;
  tare_batch batch;
  tare_batch_init(&batch);
  batch.levels = &level;
  batch.level_count = 1;
  batch.classes = p->classes;
  tare_loss_spec loss = p->loss;
  loss.ghm.state = state->memory;
  uint64_t least = 0;
  tare_context *context = device->context;
  cr_assert_eq(tare_linear_workspace_size(context, &loss, &batch, &run.linear, NULL, &least, NULL), TARE_STATUS_OK);
  buffer *workspace = buffer_new(device, least, 0);
  tare_context_set_workspace(context, workspace->memory, least);
  cr_assert_eq(tare_linear_ghm_histogram(context, &loss, &batch, &run.linear, NULL), TARE_STATUS_OK, "%s",
               tare_error_text(context));
  cr_assert_eq(tare_ghm_density_update(context, &loss, NULL), TARE_STATUS_OK, "%s", tare_error_text(context));
  cr_assert_eq(tare_context_synchronize(context, NULL), TARE_STATUS_OK);
  tare_context_set_workspace(context, NULL, 0);
  buffer_download(workspace, "workspace");
  buffer_download(state, "state");
  memcpy(p->ghm_state, state->now, state->bytes);
  head_expect_nothing_written(&run);
  head_close(&run);
  buffer_free(labels);
  buffer_free(state);
  buffer_free(workspace);
}

Test(linear, ghm_histogram_of_a_head) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    problem *p = head_problem(TARE_LOSS_GHM_C, TARE_DTYPE_BF16, 300, 60, 20);
    problem_add_ghm_state(p);
    outcome *want = problem_expect(p);
    count_by_hand(p, device);
    check_counts(p);
    p->loss.ghm.use_stored_density = 1;
    p->head->room = 0.5;
    outcome *got = problem_run(p, device);
    CHECK_OUTCOME(p, got, want);
    outcome_free(got);
    outcome_free(want);
    problem_free(p);
  }
}

/* ---- The same bits ----------------------------------------------------------------------------------------------- */

/** Numbers whose products round, as those of training do. */
static problem *rounding_problem(int32_t kind, int32_t dtype, int64_t rows, int64_t classes, int64_t dimensions) {
  problem *p = head_problem(kind, dtype, rows, classes, dimensions);
  struct head *h = p->head;
  random_source source = random_from(77);
  for (int64_t i = 0; i < rows * dimensions; i++) h->features[i] = round_to_dtype(dtype, random_normal(&source));
  const double deviation = 2 / sqrt((double)dimensions);
  for (int64_t i = 0; i < classes * dimensions; i++) {
    h->weights[i] = round_to_dtype(dtype, deviation * random_normal(&source));
  }
  head_multiply(p);
  return p;
}

Test(linear, same_bits_for_the_same_workspace) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    FOR_EACH_LOSS(kind) {
      for (int r = 0; r < ROOMS; r++) {
        if (!test_is_due(kind, r)) continue;
        problem *p = rounding_problem(kind, TARE_DTYPE_F32, test_size(3000, 300), 60, 65);
        p->head->room = rooms[r];
        outcome *first = problem_run(p, device);
        for (int again = 0; again < 3; again++) {
          p->context = again == 0 ? NULL : device_context(device, again == 1 ? 1 : 3);
          outcome *o = problem_run(p, device);
          CHECK_SAME_OUTCOME(p, o, first);
          outcome_free(o);
          tare_context_destroy(p->context);
        }
        outcome_free(first);
        problem_free(p);
      }
    }
  }
}

/* Logits that are rounded sums: the loss is smooth, so what comes of it is near. */
Test(linear, products_that_round) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    FOR_EACH_LOSS(kind) {
      if (is_ghm(kind)) continue; /* an element at an edge of a bin may fall on either side */
      problem *p = rounding_problem(kind, TARE_DTYPE_F32, 300, 60, 256);
      p->want = WANT_GRADIENT | WANT_COUNTS;
      p->slack = 1e-5;
      check_every_room(p, device);
      problem_free(p);
    }
  }
}

/* ---- Labels that are none ---------------------------------------------------------------------------------------- */

/* Row 217's is refused. Frees the problem. */
static void check_refused(problem *p, const test_device *device) {
  outcome *got = problem_run(p, device);
  if (device->host_memory) {
    cr_assert_eq(got->status, TARE_STATUS_INVALID_LABEL, "%s", got->text);
  } else {
    cr_assert_eq(got->status, TARE_STATUS_OK, "%s", got->text);
    cr_assert_eq(got->check_status, TARE_STATUS_INVALID_LABEL, "%s", got->text);
    outcome *want = problem_expect(p);
    CHECK_OUTCOME(p, got, want);
    outcome_free(want);
  }
  cr_assert_not_null(strstr(got->text, "217"), "%s", got->text);
  outcome_free(got);
  problem_free(p);
}

Test(linear, an_invalid_label) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    FOR_EACH_LOSS(kind) {
      problem *p = head_problem(kind, TARE_DTYPE_F32, 300, 60, 20);
      p->labels[217] = kind == TARE_LOSS_GHM_R ? -7 : 60;
      check_refused(p, device);
    }
  }
}

/* Of a class that the loss excludes. */
Test(linear, an_excluded_label) {
  FOR_EACH_DEVICE(device) {
    head_require_blas(device);
    FOR_EACH_LOSS(kind) {
      problem *p = head_problem(kind, TARE_DTYPE_F32, 300, 60, 20);
      for (int64_t i = 0; i < p->rows; i++)
        if (p->labels[i] == 7) p->labels[i] = 8;
      p->labels[217] = 7;
      if (p->offset != NULL) p->offset[7] = -INFINITY;
      if (p->margins != NULL) p->margins[7] = INFINITY;
      if (p->offset != NULL || p->margins != NULL)
        check_refused(p, device);
      else
        problem_free(p);
    }
  }
}
