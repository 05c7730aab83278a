/* SPDX-License-Identifier: Apache-2.0 */
/* Ordering and merging of a level's row axes, and the bytes of its arrays. */
#ifndef TARE_CORE_VIEW_H
#define TARE_CORE_VIEW_H

#include "core/check/overlap.h"
#include "problem.h"

/** Reorders and merges the row axes of `view` in place; the set of rows and their addresses stay the same. Elements of
 *  the array `key` (a tare_array_name) are nearest along the last axis. */
void tare_view_arrange(tare_view *view, int key);

/** The bytes of one of a view's arrays. */
tare_footprint tare_view_footprint(const tare_problem *problem, const tare_view *view, int name);

/** The name of an array's field in tare_level, for error texts. */
const char *tare_array_text(int name);

/** The field with its owner: "batch->levels[3].logits", or that of the batch. */
typedef struct tare_array_owner {
  char text[64];
} tare_array_owner;
tare_array_owner tare_array_path(int level, int name);

#endif
