/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counts per class from a file, whole or real: .npy, or .csv whose last column counts.
 */
#ifndef TARE_TOOL_COUNTS_H
#define TARE_TOOL_COUNTS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct counts {
  int64_t classes;
  double *real;   /**< [classes], in the order of the file */
  int64_t *whole; /**< the same, where every count is an integer that fits; else NULL */
};

/** What the files must look like, for --help. */
#define COUNTS_HELP                                                                                                  \
  "The counts of --class-counts are finite, 0 or more, and not all 0; they may be fractions. A .npy holds them "     \
  "as i4, i8, f4 or f8 [classes]. A .csv has one line per class, commas between fields, and the count in the last: " \
  "1169, 1e3 and 12.5 are counts. Its first line may be a heading: then its last field begins with a letter and "    \
  "has no digit. A column of class ids (headed id, class_id, category_id, class, category, label or index; "         \
  "without such a heading the first column, if it starts with a number) must increase from line to line: the "       \
  "first line is class 0, the next is class 1. Nothing is sorted, cut or left out; anything else is an error."

/** Returns TOOL_OK, or TOOL_FAILED after complaining; then nothing is to be freed. */
int counts_read(const char *path, struct counts *counts);
void counts_free(struct counts *counts);

/** Class-balanced weights [classes]. TOOL_OK, or TOOL_FAILED after complaining. */
int counts_weigh(const char *path, const struct counts *counts, double beta, float *weights);

/** The text of an open .csv file into `counts`, by counts_read. */
int counts_read_csv(const char *path, FILE *file, struct counts *counts);

/** One more count; `whole` says that it is the integer `exact`. TOOL_OK, or TOOL_FAILED after complaining. */
int counts_append(const char *path, struct counts *counts, double value, bool whole, int64_t exact);

#endif
