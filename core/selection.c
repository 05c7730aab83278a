/* SPDX-License-Identifier: Apache-2.0 */
#include "selection.h"

#include <math.h>
#include <string.h>

#define TARE_INLINE static inline
#include "losses/loss_key.h"

static uint64_t loss_bytes(const tare_problem *problem) { return problem->batch.dtype == TARE_DTYPE_F64 ? 8 : 4; }

static int takes_hard_rows(const tare_problem *problem) { return problem->batch.selection == TARE_SELECTION_HARD_ROWS; }

static uint64_t row_bytes(const tare_problem *problem) {
  return (loss_bytes(problem) + sizeof(int32_t)) * (uint64_t)problem->rows;
}

/** Where the counts of OHEM begin, behind what each row has. */
static uint64_t hard_start(const tare_problem *problem) { return (row_bytes(problem) + 7) / 8 * 8; }

uint64_t tare_selection_bytes(const tare_problem *problem) {
  if (!tare_selects(problem)) return 0;
  if (!takes_hard_rows(problem)) return row_bytes(problem);
  const uint64_t chunks = ((uint64_t)problem->rows + TARE_ROWS_OF_CHUNK - 1) / TARE_ROWS_OF_CHUNK;
  return hard_start(problem) + sizeof(tare_hard_rows) + chunks * sizeof(uint32_t);
}

tare_selection_room tare_selection_room_at(const tare_problem *problem, void *workspace) {
  char *const bytes = workspace;
  tare_selection_room room = {.loss = workspace};
  room.label = (int32_t *)(void *)(bytes + loss_bytes(problem) * (uint64_t)problem->rows);
  if (!takes_hard_rows(problem)) return room;
  room.hard = (tare_hard_rows *)(void *)(bytes + hard_start(problem));
  room.ties = (uint32_t *)(void *)(room.hard + 1);
  return room;
}

/** An array in row order, which a level's ROW_INDEX strides lead through. */
static void put_in_row_order(tare_view *view, int name, void *data, int64_t element) {
  tare_array *array = &view->array[name];
  *array = view->array[TARE_ARRAY_ROW_INDEX];
  array->data = (char *)data + view->first_row * element;
  array->cls = 0;
}

void tare_selection_to_measure(const tare_problem *problem, const tare_selection_room *room, tare_problem *measure) {
  *measure = *problem;
  tare_output_init(&measure->output);
  measure->batch.class_weights = NULL;
  measure->batch.background_weight = 1;
  measure->batch.negative_weights = measure->batch.background_negative_weights = NULL;
  /* The negatives that are mined have no positive weight, unless terms have. */
  if (takes_hard_rows(problem) || problem->weighs_terms) measure->batch.positive_weights = NULL;
  measure->weighs_terms = measure->weighs_apart = 0;
  for (int i = 0; i < problem->level_count; i++) {
    tare_view *view = &measure->view[i];
    const int absent[] = {TARE_ARRAY_GRADIENT, TARE_ARRAY_ELEMENT_LOSS, TARE_ARRAY_ROW_WEIGHTS,
                          TARE_ARRAY_ELEMENT_WEIGHTS};
    for (size_t k = 0; k < sizeof absent / sizeof *absent; k++) view->array[absent[k]].data = NULL;
    put_in_row_order(view, TARE_ARRAY_ROW_LOSS, room->loss, (int64_t)loss_bytes(problem));
  }
}

void tare_selection_to_evaluate(const tare_problem *problem, const tare_selection_room *room, tare_problem *selected) {
  *selected = *problem;
  selected->output.counts = NULL; /* they tell of the caller's labels */
  selected->batch.label_dtype = TARE_LABEL_DTYPE_I32;
  selected->batch.first_label = 0;
  selected->batch.background_label = tare_background_class(problem);
  selected->batch.ignore_label = TARE_NOT_SELECTED;
  for (int i = 0; i < problem->level_count; i++)
    put_in_row_order(&selected->view[i], TARE_ARRAY_LABELS, room->label, sizeof *room->label);
}

void tare_selection_images(const tare_problem *problem, tare_image_rows *of_level) {
  const int64_t images = tare_selection_image_count(problem);
  for (int i = 0; i < problem->level_count; i++) {
    const tare_view *view = &problem->view[i];
    of_level[i] = (tare_image_rows){.first = view->first_row, .step = view->rows / images};
  }
}

int64_t tare_selection_image_count(const tare_problem *problem) {
  return takes_hard_rows(problem) ? 1 : problem->batch.images;
}

/* ---- On the CPU ----------------------------------------------------------------------------------------------------
 * A radix selection, most significant digit first, reads the losses once for each of four digits and moves nothing. */

typedef struct image_walk {
  tare_image_rows of_level[TARE_MAX_LEVELS];
  int32_t levels, background;
  int32_t ranks_all; /* every row that counts; else the background rows */
  int64_t image;
  const void *loss;
  int32_t loss_is_double;
  int32_t *label;
} image_walk;

/** Returns the label that the row has from now on. */
typedef int32_t row_function(void *state, float loss, int32_t label);

static float loss_at(const image_walk *walk, int64_t row) {
  return walk->loss_is_double ? (float)((const double *)walk->loss)[row] : ((const float *)walk->loss)[row];
}

static int is_ranked(const image_walk *walk, int32_t label) {
  return walk->ranks_all ? label != TARE_NOT_SELECTED : label == walk->background;
}

/** Calls `act` for the image's rows that are ranked, in row order. */
static void for_each_ranked(const image_walk *walk, row_function *act, void *state) {
  for (int32_t level = 0; level < walk->levels; level++) {
    const int64_t first = walk->of_level[level].first + walk->image * walk->of_level[level].step;
    for (int64_t row = first; row < first + walk->of_level[level].step; row++)
      if (is_ranked(walk, walk->label[row])) walk->label[row] = act(state, loss_at(walk, row), walk->label[row]);
  }
}

static int64_t count_positives(const image_walk *walk) {
  int64_t positives = 0;
  for (int32_t level = 0; level < walk->levels; level++) {
    const int64_t first = walk->of_level[level].first + walk->image * walk->of_level[level].step;
    for (int64_t row = first; row < first + walk->of_level[level].step; row++)
      positives += walk->label[row] >= 0 && walk->label[row] != walk->background;
  }
  return positives;
}

static int32_t count_row(void *state, float loss, int32_t label) {
  (void)loss;
  ++*(int64_t *)state;
  return label;
}

typedef struct digit_counts {
  uint32_t prefix;
  int shift;
  int64_t count[TARE_DIGITS];
} digit_counts;

static int32_t count_digit(void *state, float loss, int32_t label) {
  digit_counts *counts = state;
  const uint32_t key = tare_key_of_loss(loss);
  if (tare_key_has_prefix(key, counts->prefix, counts->shift)) counts->count[(key >> counts->shift) % TARE_DIGITS]++;
  return label;
}

/** The key of the last row taken, and how many of that key are. */
typedef struct threshold {
  uint32_t key;
  int64_t ties;
} threshold;

static threshold find_threshold(const image_walk *walk, int64_t taken) {
  threshold found = {.key = 0, .ties = taken};
  for (int shift = 32 - TARE_DIGIT_BITS; shift >= 0; shift -= TARE_DIGIT_BITS) {
    digit_counts counts = {.prefix = found.key, .shift = shift};
    for_each_ranked(walk, count_digit, &counts);
    uint32_t digit = TARE_DIGITS - 1;
    for (; counts.count[digit] < found.ties; digit--) found.ties -= counts.count[digit];
    found.key |= digit << shift;
  }
  return found;
}

static int32_t drop_below(void *state, float loss, int32_t label) {
  threshold *lowest = state;
  const uint32_t key = tare_key_of_loss(loss);
  if (key < lowest->key || (key == lowest->key && lowest->ties == 0)) return TARE_NOT_SELECTED;
  if (key == lowest->key) lowest->ties--;
  return label;
}

static int32_t drop(void *state, float loss, int32_t label) {
  (void)state, (void)loss, (void)label;
  return TARE_NOT_SELECTED;
}

void tare_selection_settle(const tare_problem *problem, const tare_selection_room *room, int64_t image) {
  image_walk walk = {.levels = problem->level_count,
                     .background = tare_selection_background(problem),
                     .ranks_all = takes_hard_rows(problem),
                     .image = image,
                     .loss = room->loss,
                     .loss_is_double = loss_bytes(problem) == sizeof(double),
                     .label = room->label};
  tare_selection_images(problem, walk.of_level);
  int64_t ranked = 0;
  for_each_ranked(&walk, count_row, &ranked);
  const tare_batch *b = &problem->batch;
  const int64_t taken = walk.ranks_all ? tare_rows_taken(b->selection_count, b->selection_fraction, (double)ranked)
                                       : tare_negatives_taken(b->selection_ratio, b->selection_minimum,
                                                              (double)count_positives(&walk), (double)ranked);
  if (taken == ranked) return;
  if (taken == 0) {
    for_each_ranked(&walk, drop, NULL);
    return;
  }
  threshold lowest = find_threshold(&walk, taken);
  for_each_ranked(&walk, drop_below, &lowest);
}
