/* SPDX-License-Identifier: Apache-2.0 */
/* Checks a batch and its levels and turns each into a view. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "batch.h"
#include "core/backend.h"
#include "core/structs.h"
#include "core/view.h"
#include "overlap.h"

static const char *const array_names[TARE_ARRAY_COUNT] = {
    "logits",          "gradient", "labels",       "targets",    "scores", "row_weights",
    "element_weights", "row_loss", "element_loss", "class_mask", "rows"};

/** Whether each array has a class axis. */
static const unsigned char has_classes[TARE_ARRAY_COUNT] = {1, 1, 0, 1, 0, 0, 1, 0, 1, 1, 0};

/** A stride that is safe in arithmetic. The stride of an axis of length 1 may be any number and could overflow. */
static int64_t usable_stride(int64_t stride, int64_t length) {
  const int64_t most = (int64_t)1 << 58;
  return length > 1 || (stride >= -most && stride <= most) ? stride : 0;
}

/** The last axis of an array has the classes, or the two weights of a row. */
static int64_t columns_of(const tare_problem *problem, int name) {
  if (name == TARE_ARRAY_SCORES) return tare_bin_numbers(problem) == 2 ? 2 : 1;
  return has_classes[name] ? problem->batch.classes : 1;
}

/** The public axes of a view before it is arranged: image, y, x, anchor. The strides of an absent array stay 0. */
static void set_array(const tare_problem *problem, tare_view *view, int name, const void *data, const tare_strides *s) {
  const int64_t columns = columns_of(problem, name);
  if (!data) return;
  const int64_t strides[TARE_AXES] = {s->image, s->y, s->x, s->anchor};
  tare_array *array = &view->array[name];
  array->data = (void *)(uintptr_t)data; /* backends write only to outputs */
  for (int axis = 0; axis < TARE_AXES; axis++) array->stride[axis] = usable_stride(strides[axis], view->dim[axis]);
  array->cls = has_classes[name] || columns > 1 ? usable_stride(s->cls, columns) : 0;
}

int64_t tare_array_bytes(const tare_problem *problem, int name) {
  switch (name) {
    case TARE_ARRAY_LABELS:
      return problem->batch.label_dtype == TARE_LABEL_DTYPE_I64 ? 8 : 4;
    case TARE_ARRAY_TARGETS:
      return tare_dtype_bytes(problem->batch.target_dtype);
    case TARE_ARRAY_SCORES:
      return tare_dtype_bytes(problem->batch.score_dtype);
    case TARE_ARRAY_ROW_WEIGHTS:
    case TARE_ARRAY_ELEMENT_WEIGHTS:
      return 4;
    case TARE_ARRAY_CLASS_MASK:
      return 1;
    case TARE_ARRAY_ROW_LOSS:
    case TARE_ARRAY_ELEMENT_LOSS:
      return problem->batch.dtype == TARE_DTYPE_F64 ? 8 : 4;
    default:
      return tare_dtype_bytes(problem->batch.dtype);
  }
}

static int64_t axis_length(const tare_problem *problem, const tare_view *view, int name, int axis) {
  return axis < TARE_AXES ? view->dim[axis] : columns_of(problem, name);
}

static int64_t axis_stride(const tare_array *array, int axis) {
  return axis < TARE_AXES ? array->stride[axis] : array->cls;
}

/** The distance in elements from an array's lowest to its highest element, and the position of the first. False if the
 *  distance in bytes does not fit 62 bits. */
static int extent(const tare_problem *problem, const tare_view *view, int name, int64_t *below, int64_t *above) {
  *below = *above = 0;
  for (int axis = 0; axis <= TARE_AXES; axis++) {
    int64_t reach;
    int64_t *side = axis_stride(&view->array[name], axis) < 0 ? below : above;
    if (__builtin_mul_overflow(axis_stride(&view->array[name], axis), axis_length(problem, view, name, axis) - 1,
                               &reach) ||
        __builtin_add_overflow(*side, reach, side) || *side > ((int64_t)1 << 58) || *side < -((int64_t)1 << 58))
      return 0;
  }
  return 1;
}

/** Whether the elements of an array certainly do not overlap: each axis steps over all axes inside it. */
static int is_injective(const tare_problem *problem, const tare_view *view, int name) {
  const int axes = has_classes[name] ? TARE_AXES + 1 : TARE_AXES;
  int64_t inside = 0;
  unsigned done = 0;
  for (int round = 0; round < axes; round++) {
    int smallest = -1;
    int64_t stride = INT64_MAX;
    for (int axis = 0; axis < axes; axis++) {
      const int64_t s = axis_stride(&view->array[name], axis);
      const int64_t size = s < 0 ? -s : s;
      if (!(done & 1u << axis) && axis_length(problem, view, name, axis) > 1 && size < stride)
        smallest = axis, stride = size;
    }
    if (smallest < 0) break;
    if (stride <= inside) return 0;
    inside += stride * (axis_length(problem, view, name, smallest) - 1);
    done |= 1u << smallest;
  }
  return 1;
}

static int is_output(int name) {
  return name == TARE_ARRAY_GRADIENT || name == TARE_ARRAY_ROW_LOSS || name == TARE_ARRAY_ELEMENT_LOSS;
}

static tare_status check_array(const tare_problem *problem, const tare_view *view, int level, int name,
                               tare_error *error) {
  const tare_array *array = &view->array[name];
  if (!array->data) return TARE_STATUS_OK;
  const int64_t bytes = tare_array_bytes(problem, name);
  if ((uintptr_t)array->data % (uintptr_t)bytes)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "batch->levels[%d].%s is %p; it must be aligned to %d bytes",
                     level, array_names[name], array->data, (int)bytes);
  int64_t below, above;
  if (!extent(problem, view, name, &below, &above))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "batch->levels[%d].%s_strides {image %lld, y %lld, x %lld, anchor %lld, cls %lld} span more "
                     "than 2^58 elements",
                     level, array_names[name], (long long)array->stride[0], (long long)array->stride[1],
                     (long long)array->stride[2], (long long)array->stride[3], (long long)array->cls);
  if (is_output(name) && !is_injective(problem, view, name))
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "batch->levels[%d].%s_strides {image %lld, y %lld, x %lld, anchor %lld, cls %lld} make "
                     "elements overlap; in an output each axis must step over all axes inside it",
                     level, array_names[name], (long long)array->stride[0], (long long)array->stride[1],
                     (long long)array->stride[2], (long long)array->stride[3], (long long)array->cls);
  return TARE_STATUS_OK;
}

/** Whether the gradient is in place: the logits' pointer, and their strides on every axis longer than 1. */
static int is_in_place(const tare_problem *problem, const tare_view *view) {
  const tare_array *a = &view->array[TARE_ARRAY_LOGITS], *b = &view->array[TARE_ARRAY_GRADIENT];
  if (a->data != b->data) return 0;
  for (int axis = 0; axis <= TARE_AXES; axis++)
    if (axis_length(problem, view, TARE_ARRAY_LOGITS, axis) > 1 && axis_stride(a, axis) != axis_stride(b, axis))
      return 0;
  return 1;
}

const char *tare_array_text(int name) { return array_names[name]; }

tare_array_owner tare_array_path(int level, int name) {
  tare_array_owner path;
  if (name == TARE_ARRAY_CLASS_MASK)
    snprintf(path.text, sizeof path.text, "batch->%s", array_names[name]);
  else
    snprintf(path.text, sizeof path.text, "batch->levels[%d].%s", level, array_names[name]);
  return path;
}

tare_footprint tare_view_footprint(const tare_problem *problem, const tare_view *view, int name) {
  const int64_t bytes = tare_array_bytes(problem, name);
  tare_footprint f = {.data = (intptr_t)view->array[name].data, .element = bytes};
  for (int axis = 0; axis <= TARE_AXES; axis++) {
    f.length[axis] = axis_length(problem, view, name, axis);
    f.stride[axis] = axis_stride(&view->array[name], axis) * bytes;
  }
  return f;
}

static tare_status check_overlap(const tare_problem *problem, int i, int a, int j, int b, tare_error *error) {
  const tare_view *v = &problem->view[i], *w = &problem->view[j];
  if (i == j && a == TARE_ARRAY_GRADIENT && b == TARE_ARRAY_LOGITS && is_in_place(problem, v)) return TARE_STATUS_OK;
  const tare_footprint first = tare_view_footprint(problem, v, a), second = tare_view_footprint(problem, w, b);
  if (!tare_footprints_overlap(&first, &second)) return TARE_STATUS_OK;
  return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                   "batch->levels[%d].%s (%p) overlaps %s (%p); the gradient may be the logits themselves, with the "
                   "same strides; no other output may overlap an array",
                   i, array_names[a], v->array[a].data, tare_array_path(j, b).text, w->array[b].data);
}

static int is_present(const tare_problem *problem, int level, int name) {
  return problem->view[level].rows && problem->view[level].array[name].data;
}

static void find_spans(const tare_problem *problem, tare_span (*spans)[TARE_ARRAY_ROW_INDEX]) {
  for (int i = 0; i < problem->level_count; i++)
    for (int name = 0; name < TARE_ARRAY_ROW_INDEX; name++) {
      if (!is_present(problem, i, name)) continue;
      const tare_footprint footprint = tare_view_footprint(problem, &problem->view[i], name);
      spans[i][name] = tare_span_of(&footprint);
    }
}

/** Compares every output with every other array, each pair of outputs once. */
static tare_status check_overlaps(const tare_problem *problem, tare_error *error) {
  tare_status status = TARE_STATUS_OK;
  tare_span spans[TARE_MAX_LEVELS][TARE_ARRAY_ROW_INDEX];
  find_spans(problem, spans);
  for (int i = 0; i < problem->level_count; i++)
    for (int a = 0; a < TARE_ARRAY_ROW_INDEX; a++) {
      if (!is_output(a) || !is_present(problem, i, a)) continue;
      for (int j = 0; j < problem->level_count; j++)
        for (int b = 0; b < TARE_ARRAY_ROW_INDEX && !status; b++)
          if (is_present(problem, j, b) && !(is_output(b) && (j < i || (j == i && b <= a))) &&
              tare_spans_overlap(&spans[i][a], &spans[j][b]))
            status = check_overlap(problem, i, a, j, b, error);
    }
  return status;
}

/** The caller's level, whose struct may be shorter or longer than ours. */
static tare_status read_level(const tare_batch *batch, int index, tare_level *level, tare_error *error) {
  const unsigned char *theirs = (const unsigned char *)batch->levels + (uint64_t)index * batch->level_stride;
  memset(level, 0, sizeof *level);
  level->loss_weight = 1;
  memcpy(level, theirs, batch->level_stride < sizeof *level ? batch->level_stride : sizeof *level);
  for (uint64_t i = sizeof *level; i < batch->level_stride; i++)
    if (theirs[i])
      return tare_fail(
          error, TARE_STATUS_INVALID_ARGUMENT,
          "batch->levels[%d] has byte %llu set; this library knows %llu bytes of a level and takes a longer "
          "one only if the rest is zero",
          index, (unsigned long long)i, (unsigned long long)sizeof *level);
  return TARE_STATUS_OK;
}

static tare_status check_level_size(const tare_batch *batch, int index, const tare_level *level, int64_t *rows,
                                    tare_error *error) {
  const int64_t sizes[3] = {level->height, level->width, level->anchors};
  const char *const names[3] = {"height", "width", "anchors"};
  int64_t product = batch->images, elements;
  for (int i = 0; i < 3; i++)
    if (sizes[i] < 0)
      return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "batch->levels[%d].%s is %lld; it must be >= 0", index,
                       names[i], (long long)sizes[i]);
  int empty = product == 0;
  for (int i = 0; i < 3; i++) empty |= sizes[i] == 0;
  *rows = 0;
  if (empty) return TARE_STATUS_OK;
  for (int i = 0; i < 3; i++)
    if (__builtin_mul_overflow(product, sizes[i], &product)) product = INT64_MAX;
  if (__builtin_mul_overflow(product, batch->classes, &elements) || elements > (int64_t)1 << 58)
    return tare_fail(
        error, TARE_STATUS_INVALID_ARGUMENT,
        "batch->levels[%d] has images %lld x height %lld x width %lld x anchors %lld x classes %lld elements; "
        "they must be at most 2^58",
        index, (long long)batch->images, (long long)level->height, (long long)level->width, (long long)level->anchors,
        (long long)batch->classes);
  *rows = product;
  return TARE_STATUS_OK;
}

static void fill_view(const tare_problem *problem, tare_view *view, const tare_level *level) {
  const int64_t row = level->anchors, line = level->width * row, image = level->height * line;
  const int64_t index[TARE_AXES] = {image, line, row, 1};
  const int64_t dim[TARE_AXES] = {problem->batch.images, level->height, level->width, level->anchors};
  memcpy(view->dim, dim, sizeof dim);
  set_array(problem, view, TARE_ARRAY_LOGITS, level->logits, &level->logits_strides);
  set_array(problem, view, TARE_ARRAY_GRADIENT, level->gradient, &level->gradient_strides);
  set_array(problem, view, TARE_ARRAY_LABELS, level->labels, &level->labels_strides);
  set_array(problem, view, TARE_ARRAY_TARGETS, level->targets, &level->targets_strides);
  set_array(problem, view, TARE_ARRAY_SCORES, level->scores, &level->scores_strides);
  set_array(problem, view, TARE_ARRAY_ROW_WEIGHTS, level->row_weights, &level->row_weights_strides);
  set_array(problem, view, TARE_ARRAY_ELEMENT_WEIGHTS, level->element_weights, &level->element_weights_strides);
  set_array(problem, view, TARE_ARRAY_ROW_LOSS, level->row_loss, &level->row_loss_strides);
  set_array(problem, view, TARE_ARRAY_ELEMENT_LOSS, level->element_loss, &level->element_loss_strides);
  set_array(
      problem, view, TARE_ARRAY_CLASS_MASK, problem->batch.class_mask,
      &(tare_strides){.image = problem->batch.class_mask_image_stride, .cls = problem->batch.class_mask_class_stride});
  memcpy(view->array[TARE_ARRAY_ROW_INDEX].stride, index, sizeof index);
}

/** Strides of a fused head's logits, as if all of them were in memory, in row order. */
static tare_status set_unseen_logits(const tare_problem *problem, tare_view *view, int index, tare_error *error) {
  for (int name = TARE_ARRAY_LOGITS; name <= TARE_ARRAY_GRADIENT; name++)
    if (view->array[name].data)
      return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                       "batch->levels[%d].%s is %p; it must be NULL, because a fused head forms the logits itself",
                       index, array_names[name], view->array[name].data);
  const tare_array *rows = &view->array[TARE_ARRAY_ROW_INDEX];
  for (int name = TARE_ARRAY_LOGITS; name <= TARE_ARRAY_GRADIENT; name++) {
    for (int axis = 0; axis < TARE_AXES; axis++)
      view->array[name].stride[axis] = rows->stride[axis] * problem->batch.classes;
    view->array[name].cls = 1;
  }
  return TARE_STATUS_OK;
}

/** Checks that a level with rows has the arrays it needs. */
static tare_status check_presence(const tare_problem *problem, const tare_view *view, int index, int needs,
                                  tare_error *error) {
  const int labels_alone = !(needs & TARE_NEED_LOGITS);
  if (!labels_alone && !(needs & TARE_NEED_LINEAR) && !view->array[TARE_ARRAY_LOGITS].data)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "batch->levels[%d].logits is NULL", index);
  if (!labels_alone && problem->loss.kind == TARE_LOSS_GHM_R && !view->array[TARE_ARRAY_TARGETS].data)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "batch->levels[%d].targets is NULL; ghm-r needs targets, since it compares predictions with them",
                     index);
  const int has_scores = view->array[TARE_ARRAY_SCORES].data != NULL;
  const int needs_label = labels_alone || !(view->array[TARE_ARRAY_TARGETS].data || tare_labels_are_flags(problem));
  if (!view->array[TARE_ARRAY_LABELS].data && needs_label)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "batch->levels[%d].labels is NULL%s", index,
                     labels_alone ? "" : ", and so is targets; give one of them");
  if (!labels_alone && (view->array[TARE_ARRAY_TARGETS].data != NULL) != problem->soft)
    return tare_fail(
        error, TARE_STATUS_INVALID_ARGUMENT,
        "batch->levels[%d].targets is %s, unlike the levels before it; either all levels have targets or none has",
        index, problem->soft ? "NULL" : "given");
  if (!labels_alone && tare_bin_numbers(problem) && has_scores != problem->has_scores)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "batch->levels[%d].scores is %s, unlike the levels before it; with %s either all levels have "
                     "scores or none has",
                     index, has_scores ? "given" : "NULL", tare_loss_name(problem->loss.kind));
  return TARE_STATUS_OK;
}

static tare_status add_level(tare_problem *problem, int index, int needs, tare_error *error) {
  tare_level level;
  tare_view *view = &problem->view[index];
  memset(view, 0, sizeof *view);
  tare_status status = read_level(&problem->batch, index, &level, error);
  if (status) return status;
  status = check_level_size(&problem->batch, index, &level, &view->rows, error);
  if (status) return status;
  problem->scalars[index] = (tare_level_scalars){level.loss, level.loss_weight, level.divisor, level.divisor_pointer};
  view->first_row = problem->rows;
  problem->rows += view->rows;
  if (problem->rows > ((int64_t)1 << 58) / problem->batch.classes)
    return tare_fail(
        error, TARE_STATUS_INVALID_ARGUMENT,
        "batch->levels have %lld rows up to level [%d], with %lld classes; rows x classes must be at most 2^58",
        (long long)problem->rows, index, (long long)problem->batch.classes);
  if (!view->rows) return TARE_STATUS_OK;
  fill_view(problem, view, &level);
  if (needs & TARE_NEED_LOGITS) {
    if (problem->rows == view->rows) problem->soft = view->array[TARE_ARRAY_TARGETS].data != NULL;
    if (problem->rows == view->rows || !tare_bin_numbers(problem))
      problem->has_scores |= view->array[TARE_ARRAY_SCORES].data != NULL;
  } else {
    for (int i = 0; i < TARE_ARRAY_ROW_INDEX; i++)
      if (i != TARE_ARRAY_LABELS) view->array[i] = (tare_array){0}; /* neither read nor checked */
  }
  if (needs & TARE_NEED_LINEAR) status = set_unseen_logits(problem, view, index, error);
  if (!status) status = check_presence(problem, view, index, needs, error);
  for (int name = 0; name < TARE_ARRAY_ROW_INDEX && !status; name++)
    status = check_array(problem, view, index, name, error);
  return status;
}

static tare_status read_batch(tare_problem *problem, const tare_batch *batch, tare_error *error) {
  tare_batch_init(&problem->batch);
  const tare_status status = tare_read_struct(&problem->batch, batch, &tare_batch_layout, error);
  return status ? status : tare_check_batch_scalars(&problem->batch, error);
}

/** The array that decides the order of the row axes. */
static int key_array(const tare_view *view, int needs) {
  if (needs & TARE_NEED_LINEAR) return TARE_ARRAY_ROW_INDEX;
  return view->array[TARE_ARRAY_LOGITS].data ? TARE_ARRAY_LOGITS : TARE_ARRAY_LABELS;
}

static tare_status check_linear_batch(const tare_batch *batch, tare_error *error) {
  if (batch->level_count != 1)
    return tare_fail(error, TARE_STATUS_UNSUPPORTED,
                     "batch->level_count is %d; a fused head takes exactly one level of flat rows", batch->level_count);
  if (batch->dtype != TARE_DTYPE_F32)
    return tare_fail(
        error, TARE_STATUS_UNSUPPORTED,
        "batch->dtype is %d; it must be TARE_DTYPE_F32 (0), the logits' type in a fused head; linear->dtype is the "
        "type of features and weights",
        batch->dtype);
  return TARE_STATUS_OK;
}

static tare_status check_one_axis(const tare_view *view, tare_error *error) {
  const int masks = view->array[TARE_ARRAY_CLASS_MASK].data != NULL;
  for (int axis = 0; axis + 1 < TARE_AXES; axis++)
    if (view->rows && view->dim[axis] != 1)
      return tare_fail(
          error, TARE_STATUS_UNSUPPORTED,
          "batch->levels[0]%s has an array whose rows have no common stride; a fused head needs flat rows, "
          "as tare_level_init_rows describes them%s",
          masks ? " or the class mask" : "",
          masks ? "; a class mask has an image stride of 0 there, or each image one row" : "");
  return TARE_STATUS_OK;
}

tare_status tare_problem_set_batch(tare_problem *problem, const tare_batch *batch, int needs, tare_error *error) {
  tare_status status = read_batch(problem, batch, error);
  if (!status && needs & TARE_NEED_LINEAR) status = check_linear_batch(&problem->batch, error);
  if (status) return status;
  problem->level_count = problem->batch.level_count;
  for (int i = 0; i < problem->level_count && !status; i++) status = add_level(problem, i, needs, error);
  if (status) return status;
  for (int i = 0; i < problem->level_count; i++)
    if (problem->view[i].rows) tare_view_arrange(&problem->view[i], key_array(&problem->view[i], needs));
  if (needs & TARE_NEED_LINEAR) status = check_one_axis(&problem->view[0], error);
  return status ? status : check_overlaps(problem, error);
}
