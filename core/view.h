/* SPDX-License-Identifier: Apache-2.0 */
/* Ordering and merging of a level's row axes, and where its arrays lie. */
#ifndef TARE_CORE_VIEW_H
#define TARE_CORE_VIEW_H

#include "core/check/overlap.h"
#include "problem.h"

/** Reorders and merges the row axes of `view` in place; the set of rows and their addresses stay the same. The last axis
 *  is the one along which the array `key` (a tare_array_name) lies nearest. */
void tare_view_arrange(tare_view *view, int key);

/** The bytes of one of a view's arrays. */
tare_footprint tare_view_footprint(const tare_problem *problem, const tare_view *view, int name);

/** The field of tare_level that an array is, for error texts. */
const char *tare_array_text(int name);

#endif
