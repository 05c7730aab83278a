/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For targets of the tool's code: its error lines are counted and looked at, not printed; its files are in memory.
 */
#ifndef TARE_FUZZ_TOOL_H
#define TARE_FUZZ_TOOL_H

#include <stddef.h>
#include <stdint.h>

extern int lines_said; /**< by complain and misuse, since it was last set to 0 */

/** A file in memory that holds the bytes, and the path it can be opened by; -1 closed by the caller. */
int memory_file(const void *bytes, size_t size, char path[64]);

#endif
