/* SPDX-License-Identifier: Apache-2.0 */
/* Ordering and merging of a level's row axes. */
#ifndef TARE_CORE_VIEW_H
#define TARE_CORE_VIEW_H

#include "problem.h"

/** Reorders and merges the row axes of `view` in place; the set of rows and their addresses stay the same. */
void tare_view_arrange(tare_view *view);

#endif
