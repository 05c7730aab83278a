/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals that end the tool: they take a running child and unfinished output files with them.
 */
#ifndef TARE_TOOL_SIGNALS_H
#define TARE_TOOL_SIGNALS_H

#include <signal.h>

/** At the very start. Writing to a closed pipe or beyond a limit of file size becomes an error of that write. */
void signals_watch(void);

/** Between the two, a signal waits: what it has to clean up is being changed. Whichever thread gets it. */
void signals_hold(void);
void signals_release(void);

/** The signals that are watched or ignored here, which a child must get as usual. */
void signals_of_child(sigset_t *usual);

#endif
