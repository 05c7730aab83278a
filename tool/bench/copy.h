/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A plain copy by several threads: the yardstick of a loss that reads its logits and writes their gradient.
 */
#ifndef TARE_TOOL_COPY_H
#define TARE_TOOL_COPY_H

#include <stddef.h>
#include <stdint.h>

struct copier;

/** NULL after complaining. */
struct copier *copier_new(int32_t threads);
void copier_free(struct copier *copier);

/** Copies with every thread taking one contiguous part, and returns the seconds from start to the last byte. */
double copier_run(struct copier *copier, void *to, const void *from, size_t bytes);

#endif
