/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tool's answers: one JSON object, whose values are found by path ("histogram.counts.3"). Each function fails the
 * test where the answer is not what it asks for.
 */
#ifndef TARE_TESTS_ANSWER_H
#define TARE_TESTS_ANSWER_H

#include <stdbool.h>
#include <stddef.h>

typedef struct json_t answer_json; /* jansson's */

/** Reads a whole text that holds one object and nothing else. */
answer_json *answer_read(const char *text);

void answer_free(answer_json *object);

/** The number, the text, the size of the array at a path. */
double answer_number(const answer_json *object, const char *path);
const char *answer_text(const answer_json *object, const char *path);
size_t answer_count(const answer_json *object, const char *path);

/** Whether the value at a path is null. */
bool answer_is_null(const answer_json *object, const char *path);

/** The true or false at a path. */
bool answer_flag(const answer_json *object, const char *path);

#endif
