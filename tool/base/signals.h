/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals that end the tool. They also end a running child and remove unfinished output files.
 */
#ifndef TARE_TOOL_SIGNALS_H
#define TARE_TOOL_SIGNALS_H

#include <signal.h>

/** At the very start. Writing to a closed pipe or beyond a limit of file size becomes an error of that write. */
void signals_watch(void);

/** Between the two calls a signal waits, on any thread, because its clean-up data is being changed. */
void signals_hold(void);
void signals_release(void);

/** The signals that are watched or ignored here. A child must get their default action. */
void signals_of_child(sigset_t *usual);

#endif
