/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What people read: aligned tables, numbers with thousands separators, and a histogram as bars; and JSON for machines.
 */
#ifndef TARE_TOOL_REPORT_H
#define TARE_TOOL_REPORT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "histogram.h"

struct text {
  char of[40];
};
struct text grouped(int64_t number); /**< "115,200" */

/** A table grows cell by cell, row after row. */
struct table {
  const char *alignment; /**< one 'l' or 'r' a column; its length is the number of columns */
  char **cells;
  size_t count, capacity;
};
void table_cell(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
/** Prints and empties it. `ruled`: the first row is a heading, with a line below it. */
void table_print(struct table *table, bool ruled);

/** Bars of the logarithm of the counts, with the weights beside them. */
void print_bars(const struct histogram *histogram);

/** A JSON number; "NaN", "Infinity" or "-Infinity", which JSON has no number for, as text. */
json_t *json_number(double value);

/** {edges, counts, weights} */
json_t *json_histogram(const struct histogram *histogram);

/** Prints one line of JSON and frees the object. TOOL_OK, or TOOL_FAILED after complaining. */
int json_print(json_t *object);

/** TOOL_OK if all of standard output has been written, else TOOL_FAILED after complaining. */
int finish_output(void);

#endif
