/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The nearest name: the one with the fewest slips, which are letters left out, added, replaced, or swapped with their
 * neighbour (the distance of Damerau and Levenshtein).
 */
#include "nearest.h"

#include <stdio.h>
#include <string.h>

enum { LONGEST = 63 };

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

static size_t slips_between(const char *a, size_t a_length, const char *b, size_t b_length) {
  size_t rows[3][LONGEST + 1] = {{0}}; /* distances of the last three beginnings of a to all beginnings of b */
  for (size_t j = 0; j <= b_length; j++) rows[0][j] = j;
  for (size_t i = 1; i <= a_length; i++) {
    size_t *row = rows[i % 3];
    const size_t *before = rows[(i + 2) % 3], *swapped = rows[(i + 1) % 3];
    row[0] = i;
    for (size_t j = 1; j <= b_length; j++) {
      row[j] = least(least(before[j], row[j - 1]) + 1, before[j - 1] + (a[i - 1] != b[j - 1]));
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = least(row[j], swapped[j - 2] + 1);
    }
  }
  return rows[a_length % 3][b_length];
}

/* Among names with as many slips, one with the same first letter is nearer. */
void nearest_consider(struct nearest *nearest, const char *name) {
  const size_t word_length = strlen(nearest->word), length = strlen(name);
  if (word_length > LONGEST || length > LONGEST || word_length < 2) return;
  size_t slips = slips_between(nearest->word, word_length, name, length);
  if (word_length >= 3 && strstr(name, nearest->word)) slips = 1; /* "focal" is a part of "sigmoid-focal" */
  const size_t distance = 2 * slips + (nearest->word[0] != name[0]);
  if (slips > 1 + word_length / 4 || (nearest->name && distance >= nearest->distance)) return;
  nearest->name = name;
  nearest->distance = distance;
}

const char *nearest_hint(const struct nearest *nearest, const char *prefix) {
  static char text[LONGEST + 64];
  text[0] = 0;
  if (nearest->name) snprintf(text, sizeof text, "; did you mean %s%s?", prefix, nearest->name);
  return text;
}
