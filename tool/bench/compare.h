/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tare bench --compare OLD.json`: an earlier run beside this one. Both are JSON objects, as --json prints them.
 */
#ifndef TARE_TOOL_COMPARE_H
#define TARE_TOOL_COMPARE_H

#include <jansson.h>

/** Reads OLD.json. NULL after complaining: not there, damaged, or not from `tare bench --json`. */
json_t *comparison_read(const char *path);

/** Refuses an earlier run on another batch or device. `setting` is what this run is about to measure. TOOL_OK, or
 *  TOOL_FAILED after complaining. */
int comparison_check(const char *path, const json_t *old, const json_t *setting);

/** What differs, loss by loss. */
json_t *comparison_of(const char *path, const json_t *old, const json_t *now);

/** Prints it as tables, beside the facts of both runs. */
void comparison_print(const json_t *comparison, const json_t *now);

#endif
