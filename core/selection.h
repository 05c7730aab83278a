/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Selection of rows by their loss: hard negative mining, and OHEM. Measure: the row losses, without weights. Settle:
 * new labels, in which a row that is not selected is ignored. Evaluate: the loss with these labels. The kernels of a
 * loss know nothing of it.
 */
#ifndef TARE_CORE_SELECTION_H
#define TARE_CORE_SELECTION_H

#include "problem.h"

/** The label of a row that is not selected. */
enum { TARE_NOT_SELECTED = -2 };

/** What OHEM counts on a GPU. It starts as zeros. */
typedef struct tare_hard_rows {
  uint64_t counts[256];                    /* rows by one digit of their key; 0 between launches */
  uint64_t all_positives[TARE_MAX_LEVELS]; /* rows with a class, selected or not */
  int64_t ties;                            /* rows that are taken of those with `key` */
  uint32_t key;                            /* of the last row taken; digit by digit */
  uint32_t ticket;
} tare_hard_rows;

enum { TARE_ROWS_OF_CHUNK = 256 }; /* rows whose ties a block counts */

/** The workspace of a selection: both in row order, over all levels. The losses are doubles with f64 logits. */
typedef struct tare_selection_room {
  void *loss;
  int32_t *label;
  /* of OHEM */
  tare_hard_rows *hard;
  uint32_t *ties; /* of each chunk of rows */
} tare_selection_room;

/** The rows of one image in a level, in row order. */
typedef struct tare_image_rows {
  int64_t first, step; /* row `first + image * step` is the image's first row, which has `step` rows here */
} tare_image_rows;

static inline int tare_selects(const tare_problem *problem) {
  return problem->batch.selection != TARE_SELECTION_ALL && problem->rows > 0;
}

/** Bytes of the workspace; 0 where every row is taken. */
uint64_t tare_selection_bytes(const tare_problem *problem);

tare_selection_room tare_selection_room_at(const tare_problem *problem, void *workspace);

/** The problem whose row losses rank the rows: no output but these, and no weight of a row, a class or an element. */
void tare_selection_to_measure(const tare_problem *problem, const tare_selection_room *room, tare_problem *measure);

/** The problem with the room's labels. */
void tare_selection_to_evaluate(const tare_problem *problem, const tare_selection_room *room, tare_problem *selected);

/** The label of background rows in the room; TARE_NOT_SELECTED where they do not count. */
static inline int32_t tare_selection_background(const tare_problem *problem) { return tare_background_role(problem); }

/** Where the rows of an image lie, for each level. OHEM has one image, of all rows. */
void tare_selection_images(const tare_problem *problem, tare_image_rows *of_level);

/** The images whose rows are ranked together: the batch's, or one. */
int64_t tare_selection_image_count(const tare_problem *problem);

/** On the CPU: settles the labels of one image. */
void tare_selection_settle(const tare_problem *problem, const tare_selection_room *room, int64_t image);

#endif
