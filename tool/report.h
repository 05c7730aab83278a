/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Output for people: aligned tables, numbers with thousands separators, a histogram as bars. And JSON for programs.
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

/** Notes that memory was missing for some output. From then on json_print and finish_output fail. */
void report_incomplete(void);

/** A JSON number; "NaN", "Infinity" or "-Infinity", which JSON has no number for, as text. */
json_t *json_number(double value);

/** A JSON string; of bytes that are no UTF-8, those above 127 become '?'. */
json_t *json_text(const char *text);

/** Adds a value, which is freed with the array or object. No memory for either is report_incomplete. */
void json_append(json_t *array, json_t *value);
void json_set(json_t *object, const char *key, json_t *value);

/** The value at a path of keys ("noise.trusted"); NULL: there is none. */
json_t *json_at(const json_t *object, const char *path);

/** {edges, counts, weights} */
json_t *json_histogram(const struct histogram *histogram);

/** Prints one line of JSON, whole or not at all, and frees the object. TOOL_OK, or TOOL_FAILED after complaining. */
int json_print(json_t *object);

/** TOOL_OK if all of standard output has been written, else TOOL_FAILED after complaining. */
int finish_output(void);

/** Closes standard output, at the very end; as finish_output, which says it only once. */
int close_output(void);

#endif
