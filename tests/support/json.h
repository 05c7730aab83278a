/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A strict reader of one JSON object, for the tool's answers: the text must be valid, and its scalars are found by path
 * ("histogram.counts.3").
 */
#ifndef TARE_TESTS_JSON_H
#define TARE_TESTS_JSON_H

#include <stddef.h>

typedef struct json_scalar {
  char path[64];
  char text[256]; /* a string without its quotes, or the number or word as it stands */
  double number;  /* NaN for what is none */
} json_scalar;

typedef struct json_object {
  json_scalar *scalars;
  size_t count;
} json_object;

/** Reads a whole text that holds one object; fails the test where it is not JSON. */
json_object json_read(const char *text);

void json_free(json_object *object);

/** The number at a path; fails the test if there is none. */
double json_number(const json_object *object, const char *path);

/** The text at a path; fails the test if there is none. */
const char *json_text(const json_object *object, const char *path);

/** How many elements the array at a path has. */
size_t json_count(const json_object *object, const char *path);

#endif
