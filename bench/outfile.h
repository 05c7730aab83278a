/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Output files that appear whole or not at all: written beside their place under a temporary name, renamed at the very
 * end, removed if anything fails before that, a signal included.
 */
#ifndef TARE_TOOL_OUTFILE_H
#define TARE_TOOL_OUTFILE_H

#include <stdio.h>

/** Opens a temporary file in the folder of `path`. NULL after complaining. `option` ("--grad-out") is for the error
 *  line. The file belongs to this module: do not close it. */
FILE *outfile_open(const char *option, const char *path);

/** Complains that writing the file of `option` failed. Returns TOOL_FAILED. */
int outfile_failed(const char *option, const char *path);

/** Gives every file its name. Returns TOOL_OK, or TOOL_FAILED after complaining and removing what is left. */
int outfile_commit(void);

/** Removes every file that has no name yet. Harmless if there is none. */
void outfile_discard(void);

#endif
