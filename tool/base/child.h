/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs another program with a text on its standard input and a time limit. Its output is kept in memory, so it writes
 * no file.
 */
#ifndef TARE_TOOL_CHILD_H
#define TARE_TOOL_CHILD_H

#include <stddef.h>

enum child_end {
  CHILD_SUCCEEDED,
  CHILD_FAILED,    /**< an exit status that is not 0, or a signal */
  CHILD_MISSING,   /**< no such program */
  CHILD_NOT_RUN,   /**< the system refused; errno says why */
  CHILD_TOO_LATE,  /**< killed at the time limit, with its children */
  CHILD_TOO_LARGE, /**< killed because its output exceeded the limit */
};

struct child_answer {
  char *text; /**< its standard output, ended by a zero byte; free() it */
  size_t length;
  char reason[512]; /**< the last line of its standard error that holds words */
};

/** `arguments` ends with NULL; the first is the program, looked for in PATH. */
enum child_end child_run(char *const *arguments, const char *input, size_t input_length, double seconds,
                         size_t most_output, struct child_answer *answer);

/** Kills what child_run runs, with its children. Safe in a signal handler. */
void child_kill(void);

#endif
