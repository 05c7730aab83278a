/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Another program, run with a text on its standard input and a limit of time. What it says is kept in memory, so that
 * it writes no file itself.
 */
#ifndef TARE_TOOL_CHILD_H
#define TARE_TOOL_CHILD_H

#include <stddef.h>

enum child_end {
  CHILD_SUCCEEDED,
  CHILD_FAILED,    /**< an exit status that is not 0, or a signal */
  CHILD_MISSING,   /**< no such program */
  CHILD_NOT_RUN,   /**< the system did not let us; errno says why */
  CHILD_TOO_LATE,  /**< killed after the time it was given, with the children it made */
  CHILD_TOO_LARGE, /**< killed after more output than it was given room for */
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
