/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Anchors of a made-up head: up to 9 a position, on maps as square as they can be.
 */
#define _GNU_SOURCE
#include "layouts.h"

#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "tool/base/convert.h"
#include "tool/base/problem.h"

static int64_t divisor_up_to(int64_t number, int64_t limit) {
  for (int64_t divisor = limit; divisor > 1; divisor--)
    if (number % divisor == 0) return divisor;
  return 1;
}

static int64_t root_of(int64_t number) {
  int64_t root = 0;
  while ((root + 1) * (root + 1) <= number) root++;
  return root;
}

static void shape(tare_level *level, int32_t layout, int64_t anchors, int64_t classes, int64_t height, int64_t width) {
  if (layout == LAYOUT_NHWC)
    tare_level_init_nhwc(level, anchors, classes, height, width);
  else
    tare_level_init_nchw(level, anchors, classes, height, width);
}

static int64_t level_rows(const tare_level *level) { return level->height * level->width * level->anchors; }

/* Each map has about a quarter of the positions of the one before; the first takes what squares leave over. */
static void shape_head(struct head *head, int32_t layout, int64_t rows, int64_t classes) {
  int64_t anchors = divisor_up_to(rows, rows < 9 ? rows : 9), positions = rows / anchors, left = positions;
  head->level_count = layout == LAYOUT_LEVELS ? RUN_LEVELS : 1;
  for (int32_t index = head->level_count - 1; index > 0; index--) {
    int64_t side = root_of(positions * 3 / 4 >> 2 * index);
    shape(&head->levels[index], layout, anchors, classes, side, side);
    left -= side * side;
  }
  int64_t root = root_of(left), height = divisor_up_to(left, root);
  shape(&head->levels[0], layout, anchors, classes, height, left / height);
}

/* From rows to the level's order. A few rows at a time, so that what is written stays in the cache. */
static void arrange_level(const tare_level *level, int64_t classes, size_t size, const char *from, char *to) {
  enum { BLOCK = 128 };
  const tare_strides *strides = &level->logits_strides;
  int64_t rows = level_rows(level), places[BLOCK];
  for (int64_t first = 0; first < rows; first += BLOCK) {
    int64_t count = rows - first < BLOCK ? rows - first : BLOCK;
    for (int64_t row = first; row < first + count; row++) {
      int64_t anchor = row % level->anchors, position = row / level->anchors;
      places[row - first] =
          position / level->width * strides->y + position % level->width * strides->x + anchor * strides->anchor;
    }
    for (int64_t class = 0; class < classes; class ++) {
      for (int64_t row = 0; row < count; row++) {
        memcpy(to + (size_t)(places[row] + class * strides->cls) * size,
               from + (size_t)((first + row) * classes + class) * size, size);
      }
    }
  }
}

int head_arrange(struct head *head, int32_t layout, struct sample *sample) {
  size_t size = dtype_size(sample->dtype);
  if (layout == LAYOUT_ROWS) {
    head->level_count = 1;
    tare_level_init_rows(&head->levels[0], sample->rows, sample->classes);
    return TOOL_OK;
  }
  shape_head(head, layout, sample->rows, sample->classes);
  char *arranged = malloc(size * (size_t)(sample->rows * sample->classes));
  if (!arranged) return complain("out of memory");
  size_t at = 0;
  for (int32_t index = 0; index < head->level_count; index++) {
    arrange_level(&head->levels[index], sample->classes, size, (char *)sample->logits + at, arranged + at);
    at += (size_t)(level_rows(&head->levels[index]) * sample->classes) * size;
  }
  free(sample->logits);
  sample->logits = arranged;
  return TOOL_OK;
}

void head_place(const struct head *head, struct run *run) {
  size_t size = dtype_size(run->batch.dtype), label_size = run->batch.label_dtype == TARE_LABEL_DTYPE_I64 ? 8 : 4;
  size_t first = 0, classes = (size_t)run->batch.classes;
  char *gradient = run->gradient ? run->gradient : run->logits;
  for (int32_t index = 0; index < head->level_count; index++) {
    tare_level *level = &run->levels[index];
    *level = head->levels[index];
    level->logits = (char *)run->logits + first * classes * size;
    level->gradient = gradient + first * classes * size;
    level->labels = (char *)run->labels + first * label_size;
    first += (size_t)level_rows(level);
  }
  run->batch.level_count = head->level_count;
}
