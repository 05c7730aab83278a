/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tare bench --csv`: a line for each loss, with everything that a later reader needs on it.
 */
#ifndef TARE_TOOL_CSV_H
#define TARE_TOOL_CSV_H

#include <jansson.h>

/** Prints the object of --json as CSV: a header line, then a line for each of its losses, in each step
 *  of a sweep. */
void csv_print(const json_t *object);

#endif
