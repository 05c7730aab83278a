/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strides and buffers of an array, and the walk over its elements in row order.
 */
#include "layout.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "numbers.h"

enum { PADDING_LABEL = 0x7B }; /* labels made of these bytes are none of a test's */

/* ---- Where an element lies ----------------------------------------------------------------------------------- */

static int64_t *stride_of(tare_strides *strides, int axis) {
  int64_t *all[AXES] = {&strides->image, &strides->y, &strides->x, &strides->anchor, &strides->cls};
  return all[axis];
}

static int64_t place_of(const placed_array *a, int32_t level, const int64_t index[AXES]) {
  const tare_strides *s = &a->strides[level];
  return a->origin[level] + index[AXIS_IMAGE] * s->image + index[AXIS_Y] * s->y + index[AXIS_X] * s->x +
         index[AXIS_ANCHOR] * s->anchor + (a->has_classes ? index[AXIS_CLASS] * s->cls : 0);
}

static void extents_of(const problem *p, const placed_array *a, int32_t level, int64_t extents[AXES]) {
  extents[AXIS_IMAGE] = p->images;
  extents[AXIS_Y] = p->levels[level].height;
  extents[AXIS_X] = p->levels[level].width;
  extents[AXIS_ANCHOR] = p->levels[level].anchors;
  extents[AXIS_CLASS] = !a->has_classes ? 1 : a->columns ? a->columns : p->classes;
}

/* Strides of a placement, and the number of elements that it spans. */
static int64_t lay_out(placed_array *a, int32_t level, const placement *place, const int64_t extents[AXES]) {
  static const int last[AXES] = {AXIS_IMAGE, AXIS_Y, AXIS_X, AXIS_ANCHOR, AXIS_CLASS};
  static const int first[AXES] = {AXIS_IMAGE, AXIS_ANCHOR, AXIS_CLASS, AXIS_Y, AXIS_X};
  const int *order = place->channels_first ? first : last;
  int64_t span = 1;
  a->origin[level] = 0;
  for (int i = AXES - 1; i >= 0; i--) {
    const int axis = order[i];
    const bool absent = axis == AXIS_CLASS && !a->has_classes;
    const bool broadcast = place->broadcast >> axis & 1u;
    const bool flipped = place->flip >> axis & 1u;
    int64_t stride = broadcast || absent ? 0 : span;
    if (!broadcast && !absent) span *= extents[axis] + place->pad[axis];
    if (flipped && extents[axis] > 0) {
      a->origin[level] += stride * (extents[axis] - 1);
      stride = -stride;
    }
    *stride_of(&a->strides[level], axis) = stride;
  }
  return span;
}

static int64_t rows_of_image(const problem *p, int32_t levels) {
  int64_t rows = 0;
  for (int32_t l = 0; l < levels; l++) rows += p->levels[l].height * p->levels[l].width * p->levels[l].anchors;
  return rows;
}

/* [images, rows of all levels], as one buffer for all levels. */
static int64_t lay_out_image_major(const problem *p, placed_array *a, int32_t level, const placement *place) {
  const int64_t rows = rows_of_image(p, p->level_count) + place->pad[AXIS_IMAGE];
  const level_shape *shape = &p->levels[level];
  const int64_t columns = a->has_classes ? a->columns : 1;
  a->origin[level] = rows_of_image(p, level) * columns;
  a->strides[level] = (tare_strides){.image = rows * columns,
                                     .y = shape->width * shape->anchors * columns,
                                     .x = shape->anchors * columns,
                                     .anchor = columns,
                                     .cls = a->has_classes};
  return rows * p->images * columns;
}

/* Calls `visit` for every element of the array, in row order. */
typedef void visitor(const placed_array *a, int32_t level, int64_t place, int64_t logical, const void *context);

static void visit_elements(const problem *p, const placed_array *a, visitor *visit, const void *context) {
  int64_t logical = 0;
  for (int32_t level = 0; level < p->level_count; level++) {
    int64_t e[AXES];
    int64_t at[AXES];
    extents_of(p, a, level, e);
    for (at[0] = 0; at[0] < e[0]; at[0]++) {
      for (at[1] = 0; at[1] < e[1]; at[1]++) {
        for (at[2] = 0; at[2] < e[2]; at[2]++) {
          for (at[3] = 0; at[3] < e[3]; at[3]++) {
            for (at[4] = 0; at[4] < e[4]; at[4]++) visit(a, level, place_of(a, level, at), logical++, context);
          }
        }
      }
    }
  }
}

/* ---- Laying out ------------------------------------------------------------------------------------------------ */

static void store_number(const placed_array *a, int32_t level, int64_t place, int64_t logical, const void *context) {
  (void)context;
  store_element(a->buffers[level]->before, (size_t)place, a->dtype, a->data[logical]);
}

static void store_label(const placed_array *a, int32_t level, int64_t place, int64_t logical, const void *context) {
  const problem *p = context;
  const int64_t wide = p->labels[logical];
  const int32_t narrow = (int32_t)wide;
  unsigned char *at = a->buffers[level]->before + (size_t)place * a->size;
  if (p->label_dtype == TARE_LABEL_DTYPE_I64) {
    memcpy(at, &wide, sizeof wide);
  } else {
    cr_assert_eq(narrow, wide, "label %lld needs int64", (long long)wide);
    memcpy(at, &narrow, sizeof narrow);
  }
}

bool is_row_array(int kind) {
  return kind == ARRAY_LABELS || kind == ARRAY_SCORES || kind == ARRAY_ROW_WEIGHTS || kind == ARRAY_ROW_LOSS;
}

static buffer *make_buffer(const placed_array *a, const test_device *device, int64_t span, int64_t phase) {
  buffer *b = buffer_new(device, (size_t)span * a->size, (size_t)phase * a->size);
  if (a->dtype < 0) memset(b->before, PADDING_LABEL, b->bytes);
  return b;
}

void layout_place(placed_array *a, const problem *p, int kind, const test_device *device) {
  const placement *place = &p->place[kind];
  const bool shared = p->image_major && is_row_array(kind);
  a->size = a->dtype >= 0 ? dtype_size(a->dtype) : p->label_dtype == TARE_LABEL_DTYPE_I64 ? 8 : 4;
  for (int32_t level = 0; level < p->level_count; level++) {
    int64_t extents[AXES];
    extents_of(p, a, level, extents);
    const int64_t span = shared ? lay_out_image_major(p, a, level, place) : lay_out(a, level, place, extents);
    a->owned[level] = !shared || level == 0;
    a->buffers[level] = a->owned[level] ? make_buffer(a, device, span, place->phase) : a->buffers[0];
  }
  if (a->is_output) return;
  visit_elements(p, a, a->dtype < 0 ? store_label : store_number, p);
  for (int32_t level = 0; level < p->level_count; level++) {
    if (a->owned[level]) buffer_upload(a->buffers[level]);
  }
}

void *layout_memory(const placed_array *a, int32_t level) {
  if (!a->present) return NULL;
  return (char *)a->buffers[level]->memory + a->origin[level] * (int64_t)a->size;
}

/* ---- Reading back ---------------------------------------------------------------------------------------------- */

typedef struct reader {
  double *into;
  unsigned char *written[TARE_MAX_LEVELS];
} reader;

static void read_number(const placed_array *a, int32_t level, int64_t place, int64_t logical, const void *context) {
  const reader *to = context;
  to->into[logical] = load_element(a->buffers[level]->now, (size_t)place, a->dtype);
  memset(to->written[level] + (size_t)place * a->size, 1, a->size);
}

static void expect_rest_untouched(const placed_array *a, int32_t level, const unsigned char *written) {
  const buffer *b = a->buffers[level];
  for (size_t i = 0; i < b->bytes; i++) {
    if (!written[i] && b->now[i] != b->before[i]) {
      cr_assert_fail("%s of level %d: byte %zu, outside its elements, was overwritten", a->name, (int)level, i);
    }
  }
}

double *layout_read(const placed_array *a, const problem *p) {
  reader to = {.into = calloc((size_t)(p->rows * p->classes) + 1, sizeof(double))};
  for (int32_t l = 0; l < p->level_count; l++) {
    if (!a->owned[l]) {
      to.written[l] = to.written[0];
      continue;
    }
    buffer_download(a->buffers[l], a->name);
    to.written[l] = calloc(a->buffers[l]->bytes + 1, 1);
  }
  visit_elements(p, a, read_number, &to);
  for (int32_t l = 0; l < p->level_count; l++) {
    if (!a->owned[l]) continue;
    expect_rest_untouched(a, l, to.written[l]);
    free(to.written[l]);
  }
  return to.into;
}

void layout_expect_unchanged(const placed_array *a) {
  for (int32_t l = 0; l < TARE_MAX_LEVELS; l++) {
    if (a->owned[l]) buffer_expect_unchanged(a->buffers[l], a->name);
  }
}

void layout_free(placed_array *a) {
  for (int32_t l = 0; l < TARE_MAX_LEVELS; l++) {
    if (a->owned[l]) buffer_free(a->buffers[l]);
  }
}
