/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the tool reports errors: one line on standard error, and an exit status.
 */
#ifndef TARE_TOOL_PROBLEM_H
#define TARE_TOOL_PROBLEM_H

enum { TOOL_OK = 0, TOOL_FAILED = 1, TOOL_MISUSED = 2 };

/** Names the verb that runs: lines begin with "tare eval: ". */
void problem_prefix(const char *prefix);
const char *problem_prefix_now(void);

/** Prints one line and returns TOOL_FAILED. Control characters, for example from a file, become '?'. */
int complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** The same for wrong usage. It adds a reference to --help. Returns TOOL_MISUSED. */
int misuse(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
