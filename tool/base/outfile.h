/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Output files that appear whole or not at all: written beside their place under a temporary name, renamed at the very
 * end, removed if anything fails before that, a signal included.
 *
 * Refused are: what exists and is no regular file; a link that points to nothing; a file that cannot be written; one
 * that is read, or that standard output or error goes to; two outputs in one place, whatever their paths. A link to a
 * file stays a link: the file it points to is replaced, and keeps its permissions.
 */
#ifndef TARE_TOOL_OUTFILE_H
#define TARE_TOOL_OUTFILE_H

#include <stdio.h>
#include <sys/stat.h>

/** Says that the file of `role` ("--logits") is read, so that no output may take its place. Before outfile_open. */
void outfile_protect(const char *role, const struct stat *input);

/** Opens a temporary file in the folder of `path`. NULL after complaining. `option` ("--grad-out") is for the error
 *  line. The file belongs to this module: do not close it. */
FILE *outfile_open(const char *option, const char *path);

/** Complains that writing the file of `option` failed. Returns TOOL_FAILED. */
int outfile_failed(const char *option, const char *path);

/** Sees to it that every file is on the disk, and closes it. Returns TOOL_OK, or TOOL_FAILED after complaining. */
int outfile_complete(void);

/** Gives every completed file its name. Returns TOOL_OK, or TOOL_FAILED after complaining and removing what is left. */
int outfile_commit(void);

/** Removes every file that has no name yet. Harmless if there is none. */
void outfile_discard(void);

/** The same for a signal handler: removes the files and leaves the memory. */
void outfile_unlink(void);

#endif
