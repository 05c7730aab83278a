/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A random problem: its sizes and the layouts of its arrays.
 */
#include <math.h>
#include <string.h>

#include "draw_parts.h"

enum { MOST_ELEMENTS = 3000 };

static int64_t draw_classes(random_source *s) {
  if (one_in(s, 12)) return 60 + random_below(s, 200);
  return one_in(s, 3) ? 1 + random_below(s, 3) : 1 + random_below(s, 40);
}

/* Few problems are empty, most are small, and some are one long level. */
static int32_t draw_levels(random_source *s, int64_t classes, int64_t *images, level_shape *levels) {
  const int64_t most = MOST_ELEMENTS / classes + 1;
  *images = one_in(s, 40) ? 0 : 1 + (one_in(s, 3) ? random_below(s, 3) : 0);
  if (one_in(s, 3)) {
    levels[0] = (level_shape){.height = 1, .width = random_below(s, most), .anchors = 1};
    return 1;
  }
  const int32_t count = (int32_t)(one_in(s, 20) ? TARE_MAX_LEVELS : 1 + random_below(s, 4));
  const int64_t side = (int64_t)sqrt((double)(most / (*images + 1) / count)) + 2;
  for (int32_t l = 0; l < count; l++) {
    levels[l] = (level_shape){
        .height = random_below(s, side), .width = 1 + random_below(s, side), .anchors = 1 + random_below(s, 3)};
  }
  return count;
}

static placement draw_placement(random_source *s, bool channels_first, bool is_output) {
  placement place = {.channels_first = channels_first, .phase = one_in(s, 3) ? random_below(s, 9) : 0};
  if (one_in(s, 5)) place.channels_first = !channels_first;
  for (int axis = 0; axis < AXES; axis++) {
    if (one_in(s, 8)) place.pad[axis] = 1 + random_below(s, 3);
    if (one_in(s, 12)) place.flip |= 1u << axis;
    if (!is_output && one_in(s, 15)) place.broadcast |= 1u << axis;
  }
  return place;
}

static bool is_output_array(int kind) {
  return kind == ARRAY_GRADIENT || kind == ARRAY_ROW_LOSS || kind == ARRAY_ELEMENT_LOSS;
}

static void draw_layout(problem *p, random_source *s) {
  const bool plain = one_in(s, 3), channels_first = one_in(s, 2);
  p->in_place = one_in(s, 3);
  p->image_major = one_in(s, 4);
  for (int kind = 0; kind < ARRAY_KINDS && !plain; kind++) {
    p->place[kind] = draw_placement(s, channels_first, is_output_array(kind) || (kind == ARRAY_LOGITS && p->in_place));
  }
  if (!p->image_major) return;
  for (int kind = 0; kind < ARRAY_KINDS; kind++) {
    if (is_row_array(kind)) p->place[kind] = (placement){0};
  }
}

/* Along an axis of stride 0 the numbers are those of its index 0: where, in row order, those of a place stand. */
static int64_t source_of_broadcast(const problem *p, const level_shape *shape, unsigned axes, int64_t classes,
                                   int64_t place) {
  const int64_t lengths[AXES] = {p->images, shape->height, shape->width, shape->anchors, classes};
  int64_t source = 0, stride = 1;
  for (int axis = AXES - 1; axis >= 0; axis--) {
    if (!(axes >> axis & 1u)) source += place % lengths[axis] * stride;
    place /= lengths[axis];
    stride *= lengths[axis];
  }
  return source;
}

/* All numbers here are 8 bytes wide. */
void repeat_along_axes(const problem *p, int kind, void *numbers, int64_t classes) {
  char *at = numbers;
  if (numbers == NULL || p->place[kind].broadcast == 0) return;
  for (int32_t l = 0; l < p->level_count; l++) {
    const level_shape *shape = &p->levels[l];
    const int64_t count = p->images * shape->height * shape->width * shape->anchors * classes;
    for (int64_t i = 0; i < count; i++) {
      memcpy(at + 8 * i, at + 8 * source_of_broadcast(p, shape, p->place[kind].broadcast, classes, i), 8);
    }
    at += 8 * count;
  }
}

void make_numbers_agree(problem *p) {
  repeat_along_axes(p, ARRAY_LOGITS, p->logits, p->classes);
  repeat_along_axes(p, ARRAY_LABELS, p->labels, 1);
  repeat_along_axes(p, ARRAY_TARGETS, p->targets, p->classes);
  repeat_along_axes(p, ARRAY_SCORES, p->scores, score_columns(p));
  repeat_along_axes(p, ARRAY_ROW_WEIGHTS, p->row_weights, 1);
  repeat_along_axes(p, ARRAY_ELEMENT_WEIGHTS, p->element_weights, p->classes);
}

problem *draw_shape(int32_t kind, random_source *s) {
  level_shape levels[TARE_MAX_LEVELS];
  int64_t images;
  const int64_t classes = kind == TARE_LOSS_GHM_R && one_in(s, 2) ? 4 : draw_classes(s);
  const int32_t count = draw_levels(s, classes, &images, levels);
  problem *p = problem_new_levels(kind, (int32_t)random_below(s, 4), images, classes, count, levels);
  draw_layout(p, s);
  return p;
}
