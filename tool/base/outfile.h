/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Output files that appear completely or not at all. They are written beside their place under a temporary name and
 * renamed at the very end. If anything fails before, also by a signal, they are removed.
 *
 * Refused are: a path that exists and is not a regular file; a link to a missing file; a file that cannot be written;
 * an input file; the file of standard output or error; two outputs in one place, also by different paths. A link to a
 * file stays a link. The file it points to is replaced and keeps its permissions.
 */
#ifndef TARE_TOOL_OUTFILE_H
#define TARE_TOOL_OUTFILE_H

#include <stdio.h>
#include <sys/stat.h>

/** Registers the input file of `role` ("--logits"), which no output may replace. Call it before outfile_open. */
void outfile_protect(const char *role, const struct stat *input);

/** Opens a temporary file in the folder of `path`. NULL after complaining. `option` ("--grad-out") is for the error
 *  line. The file belongs to this module: do not close it. */
FILE *outfile_open(const char *option, const char *path);

/** Reports that writing the file of `option` failed. Returns TOOL_FAILED. */
int outfile_failed(const char *option, const char *path);

/** Synchronizes every file with the disk and closes it. Returns TOOL_OK, or TOOL_FAILED after complaining. */
int outfile_complete(void);

/** Gives every completed file its name. Returns TOOL_OK, or TOOL_FAILED after complaining and removing what is left. */
int outfile_commit(void);

/** Removes every file that has no name yet. Harmless if there is none. */
void outfile_discard(void);

/** The same for a signal handler: it removes the files and does not free memory. */
void outfile_unlink(void);

#endif
