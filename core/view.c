/* SPDX-License-Identifier: Apache-2.0 */
/* Turns a level into a view. The row axes are ordered, so that logits are nearest in memory along the last one. They
 * are merged where every array allows it, so that contiguous rows become one axis. */
#include "view.h"

#include <string.h>

static int64_t magnitude(int64_t x) { return x < 0 ? -x : x; }

static void swap_axes(tare_view *view, int a, int b) {
  const int64_t dim = view->dim[a];
  view->dim[a] = view->dim[b];
  view->dim[b] = dim;
  for (int i = 0; i < TARE_ARRAY_COUNT; i++) {
    const int64_t stride = view->array[i].stride[a];
    view->array[i].stride[a] = view->array[i].stride[b];
    view->array[i].stride[b] = stride;
  }
}

/** Axes of length 1 first, then by falling stride of the array `key`. */
static int belongs_before(const tare_view *view, int key, int a, int b) {
  if ((view->dim[a] == 1) != (view->dim[b] == 1)) return view->dim[a] == 1;
  return magnitude(view->array[key].stride[a]) > magnitude(view->array[key].stride[b]);
}

static void order_axes(tare_view *view, int key) {
  for (int end = TARE_AXES; end > 1; end--)
    for (int a = 0; a + 1 < end; a++)
      if (belongs_before(view, key, a + 1, a)) swap_axes(view, a, a + 1);
}

static int can_merge(const tare_view *view, int outer, int inner) {
  for (int i = 0; i < TARE_ARRAY_COUNT; i++) {
    const tare_array *array = &view->array[i];
    if (i != TARE_ARRAY_ROW_INDEX && !array->data) continue;
    if (array->stride[outer] != array->stride[inner] * view->dim[inner]) return 0;
  }
  return 1;
}

/** Removes the axis and moves the axes before it one place towards the end. */
static void remove_axis(tare_view *view, int axis) {
  for (int a = axis; a > 0; a--) {
    view->dim[a] = view->dim[a - 1];
    for (int i = 0; i < TARE_ARRAY_COUNT; i++) view->array[i].stride[a] = view->array[i].stride[a - 1];
  }
  view->dim[0] = 1;
}

static void merge_axes(tare_view *view) {
  for (int inner = TARE_AXES - 1; inner > 0;) {
    const int outer = inner - 1;
    if (view->dim[outer] == 1 || !can_merge(view, outer, inner)) {
      inner--;
      continue;
    }
    view->dim[inner] *= view->dim[outer];
    remove_axis(view, outer);
  }
}

void tare_view_arrange(tare_view *view, int key) {
  order_axes(view, key);
  merge_axes(view);
}

void tare_problem_slice(tare_problem *slice, const tare_problem *whole, int64_t first, int64_t rows, float *logits,
                        float *gradient) {
  *slice = *whole;
  tare_view *view = &slice->view[0];
  slice->rows = view->rows = view->dim[TARE_AXES - 1] = rows;
  view->first_row = first;
  for (int name = 0; name < TARE_ARRAY_ROW_INDEX; name++) {
    tare_array *array = &view->array[name];
    if (array->data)
      array->data = (char *)array->data + first * array->stride[TARE_AXES - 1] * tare_array_bytes(whole, name);
  }
  view->array[TARE_ARRAY_LOGITS].data = logits;
  view->array[TARE_ARRAY_GRADIENT].data = gradient;
}
