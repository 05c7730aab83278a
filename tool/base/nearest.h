/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The name that a mistyped word was probably meant to be.
 */
#ifndef TARE_TOOL_NEAREST_H
#define TARE_TOOL_NEAREST_H

#include <stddef.h>

/** Looks at one name after another and keeps the nearest. */
struct nearest {
  const char *word; /**< what was typed; set it, and the rest to 0 */
  const char *name; /**< the nearest name so far; NULL: none is near */
  size_t distance;
};

void nearest_consider(struct nearest *nearest, const char *name);

/** "; did you mean NAME?" after `prefix`, or an empty text. Valid until the next call. */
const char *nearest_hint(const struct nearest *nearest, const char *prefix);

#endif
