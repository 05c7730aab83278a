/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shows what the tool is doing: a line on standard error, if that is a terminal, when a step takes longer than a
 * second. The line is renewed every second.
 */
#ifndef TARE_TOOL_PROGRESS_H
#define TARE_TOOL_PROGRESS_H

#include <stdint.h>

/** Begins a step (and ends the one before). `step` must stay valid until the next call. */
void progress_begin(const char *step);

/** Says how much of the step is done, `done` of `total` parts. The line then begins with a percentage. */
void progress_at(int64_t done, int64_t total);

/** From here on a percentage is that of a longer work: each step is in its part `part` of `parts`, counted from 0. */
void progress_part(int64_t part, int64_t parts);

/** Ends the step and removes its line from the terminal. Harmless if there is none. */
void progress_end(void);

#endif
