/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What shares memory with what: every output against every other array, at the last byte that both have and one element
 * further, forwards and backwards; and the search itself against a list of all bytes.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "core/check/overlap.h"
#include "support/problem.h"
#include "support/random.h"

enum { ROWS = 4, CLASSES = 3, DIMENSIONS = 5, SLOT = 64 };

/* ---- Every pair of arrays -------------------------------------------------------------------------------------- */

enum name {
  LOGITS,
  GRADIENT,
  LABELS,
  TARGETS,
  ROW_WEIGHTS,
  ELEMENT_WEIGHTS,
  ROW_LOSS,
  ELEMENT_LOSS,
  LEVEL_ARRAYS,
  FEATURES = LEVEL_ARRAYS,
  WEIGHTS,
  BIAS,
  FEATURES_GRADIENT,
  WEIGHTS_GRADIENT,
  BIAS_GRADIENT,
  NAMES
};

static const struct {
  const char *name;
  bool is_output;
  int64_t elements;
} arrays[NAMES] = {{"logits", false, ROWS *CLASSES},
                   {"gradient", true, ROWS *CLASSES},
                   {"labels", false, ROWS},
                   {"targets", false, ROWS *CLASSES},
                   {"row_weights", false, ROWS},
                   {"element_weights", false, ROWS *CLASSES},
                   {"row_loss", true, ROWS},
                   {"element_loss", true, ROWS *CLASSES},
                   {"features", false, ROWS *DIMENSIONS},
                   {"weights", false, CLASSES *DIMENSIONS},
                   {"bias", false, CLASSES},
                   {"features_gradient", true, ROWS *DIMENSIONS},
                   {"weights_gradient", true, CLASSES *DIMENSIONS},
                   {"bias_gradient", true, CLASSES}};

/* Where each array lies, in floats; only the check reads the addresses. */
static _Alignas(64) float memory[SLOT * 2 * NAMES];

typedef struct places {
  float *at[2][NAMES];
  bool backwards[2][NAMES]; /* all strides are below 0, and the pointer is at the other end */
} places;

static places apart(void) {
  places p;
  memset(&p, 0, sizeof p);
  for (int i = 0; i < 2 * NAMES; i++) p.at[i / NAMES][i % NAMES] = memory + i * SLOT;
  return p;
}

static void *pointer_to(const places *p, int l, int name) {
  return p->at[l][name] + (p->backwards[l][name] ? arrays[name].elements - 1 : 0);
}

static tare_strides strides_of(const places *p, int l, int name) {
  const bool by_row = name == LABELS || name == ROW_WEIGHTS || name == ROW_LOSS;
  const int64_t row = by_row ? 1 : CLASSES, sign = p->backwards[l][name] ? -1 : 1;
  return (tare_strides){ROWS * row * sign, ROWS * row * sign, row * sign, row * sign, by_row ? 0 : sign};
}

static void fill_level(tare_level *level, const places *p, int l) {
  tare_level_init_rows(level, ROWS, CLASSES);
#define SET(field, name) level->field = pointer_to(p, l, name), level->field##_strides = strides_of(p, l, name)
  SET(logits, LOGITS);
  SET(gradient, GRADIENT);
  SET(labels, LABELS);
  SET(targets, TARGETS);
  SET(row_weights, ROW_WEIGHTS);
  SET(element_weights, ELEMENT_WEIGHTS);
  SET(row_loss, ROW_LOSS);
  SET(element_loss, ELEMENT_LOSS);
#undef SET
}

/* The sizes of the workspace come after all checks. */
static tare_status check_places(tare_context *context, const places *p, bool fused) {
  tare_loss_spec loss;
  tare_level levels[2];
  tare_batch batch;
  tare_linear linear;
  uint64_t bytes;
  tare_loss_spec_init(&loss, TARE_LOSS_SIGMOID_CE);
  tare_batch_init(&batch);
  batch.levels = levels;
  batch.level_count = fused ? 1 : 2;
  batch.classes = CLASSES;
  for (int l = 0; l < 2; l++) fill_level(&levels[l], p, l);
  if (!fused) return tare_workspace_size(context, &loss, &batch, NULL, &bytes);
  levels[0].logits = levels[0].gradient = NULL;
  tare_linear_init(&linear, DIMENSIONS);
  linear.features = p->at[0][FEATURES];
  linear.weights = p->at[0][WEIGHTS];
  linear.bias = p->at[0][BIAS];
  linear.features_gradient = p->at[0][FEATURES_GRADIENT];
  linear.weights_gradient = p->at[0][WEIGHTS_GRADIENT];
  linear.bias_gradient = p->at[0][BIAS_GRADIENT];
  return tare_linear_workspace_size(context, &loss, &batch, &linear, NULL, &bytes, NULL);
}

static void expect_overlap(tare_context *context, const places *p, bool fused, int a, int b) {
  const tare_status status = check_places(context, p, fused);
  const char *text = tare_error_text(context);
  cr_assert_eq(status, TARE_STATUS_INVALID_ARGUMENT, "%s in %s: %s", arrays[a].name, arrays[b].name,
               tare_status_name(status));
  cr_assert(strstr(text, "overlaps") && strstr(text, arrays[a].name) && strstr(text, arrays[b].name), "%s", text);
}

static void expect_apart(tare_context *context, const places *p, bool fused, int a, int b) {
  cr_assert_eq(check_places(context, p, fused), TARE_STATUS_OK, "%s beside %s: %s", arrays[a].name, arrays[b].name,
               tare_error_text(context));
}

/* `a` of the first level above `b` of level `l`, then below it: with one element in common, and with none. */
static void check_pair(tare_context *context, bool fused, int a, int l, int b, bool a_backwards, bool b_backwards) {
  places p = apart();
  p.backwards[0][a] = a_backwards;
  p.backwards[l][b] = b_backwards;
  float *const there = p.at[l][b];
  p.at[0][a] = there + arrays[b].elements;
  expect_apart(context, &p, fused, a, b);
  p.at[0][a]--;
  expect_overlap(context, &p, fused, a, b);
  p.at[0][a] = there - arrays[a].elements;
  if (there == memory) return; /* nothing lies before it */
  expect_apart(context, &p, fused, a, b);
  p.at[0][a]++;
  expect_overlap(context, &p, fused, a, b);
}

Test(overlaps, every_output_against_every_array) {
  FOR_EACH_DEVICE(device) {
    for (int a = 0; a < LEVEL_ARRAYS; a++)
      for (int other = 0; other < 2 * LEVEL_ARRAYS; other++) {
        const int l = other / LEVEL_ARRAYS, b = other % LEVEL_ARRAYS;
        if (!arrays[a].is_output || (l == 0 && b == a)) continue;
        for (int way = 0; way < 4; way++) check_pair(device->context, false, a, l, b, way & 1, way & 2);
      }
  }
}

static bool in_head(int name) { return name != LOGITS && name != GRADIENT; }

Test(overlaps, every_output_of_a_head_against_every_array) {
  FOR_EACH_DEVICE(device) {
    for (int a = 0; a < NAMES; a++)
      for (int b = 0; b < NAMES; b++) {
        if (!arrays[a].is_output || a == b || !in_head(a) || !in_head(b)) continue;
        for (int way = 0; way < 4; way++) {
          const bool a_backwards = way & 1, b_backwards = way & 2;
          if ((a_backwards && a >= LEVEL_ARRAYS) || (b_backwards && b >= LEVEL_ARRAYS)) continue;
          check_pair(device->context, true, a, 0, b, a_backwards, b_backwards);
        }
      }
  }
}

/* ---- The search against all bytes ------------------------------------------------------------------------------ */

static tare_footprint random_footprint(random_source *source, bool huge) {
  tare_footprint f = {.element = INT64_C(1) << random_below(source, 4)};
  const int64_t far = huge ? INT64_C(1) << (20 + random_below(source, 30)) : 1;
  f.data = 4096 + (intptr_t)(random_below(source, 60) * far);
  for (int axis = 0; axis < TARE_FOOTPRINT_AXES; axis++) {
    f.length[axis] = 1 + random_below(source, 3);
    f.stride[axis] = (random_below(source, 41) - 20) * (random_below(source, 2) ? far : 1);
  }
  return f;
}

static int64_t address(const tare_footprint *f, int64_t number) {
  int64_t at = f->data;
  for (int axis = 0; axis < TARE_FOOTPRINT_AXES; axis++) {
    at += number % f->length[axis] * f->stride[axis];
    number /= f->length[axis];
  }
  return at;
}

static int64_t element_count(const tare_footprint *f) {
  int64_t count = 1;
  for (int axis = 0; axis < TARE_FOOTPRINT_AXES; axis++) count *= f->length[axis];
  return count;
}

static bool shares_a_byte(const tare_footprint *a, const tare_footprint *b) {
  for (int64_t i = 0; i < element_count(a); i++)
    for (int64_t j = 0; j < element_count(b); j++) {
      const int64_t from = address(a, i), to = address(b, j);
      if (from < to + b->element && to < from + a->element) return true;
    }
  return false;
}

Test(overlaps, the_search_finds_what_a_list_of_bytes_finds) {
  random_source source = random_from(7);
  int shared = 0;
  const int count = (int)test_size(20000, 2000);
  for (int i = 0; i < count; i++) {
    const tare_footprint a = random_footprint(&source, i % 2), b = random_footprint(&source, i % 2);
    const bool want = shares_a_byte(&a, &b);
    shared += want;
    cr_assert_eq(tare_footprints_overlap(&a, &b) != 0, want, "pair %d", i);
  }
  cr_assert(shared > count / 20 && shared < count - count / 20, "%d of %d share a byte", shared, count);
}

/* Lengths, strides and addresses as large as a caller can name them. */
Test(overlaps, the_largest_places) {
  const int64_t most = INT64_C(1) << 61;
  tare_footprint low = {.data = 64, .element = 8, .length = {1, 1, 1, 1, 1}};
  tare_footprint high = {.data = INTPTR_MAX - 63, .element = 8, .length = {1, 1, 1, 1, 1}};
  tare_footprint other = {.data = INTPTR_MIN + 64, .element = 8, .length = {1, 1, 1, 1, 1}};
  cr_assert_not(tare_footprints_overlap(&low, &high));
  cr_assert_not(tare_footprints_overlap(&high, &other));
  cr_assert_not(tare_footprints_overlap(&other, &high));
  for (int axis = 0; axis < TARE_FOOTPRINT_AXES; axis++) {
    low.length[axis] = high.length[axis] = other.length[axis] = 2;
    low.stride[axis] = high.stride[axis] = other.stride[axis] = axis % 2 ? most - axis : -most + axis;
  }
  cr_assert(tare_footprints_overlap(&low, &low));
  cr_assert(tare_footprints_overlap(&high, &high));
  cr_assert(tare_footprints_overlap(&other, &other));
}
