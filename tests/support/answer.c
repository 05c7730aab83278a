/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers by jansson, which is strict: no duplicates, no NaN, nothing behind the object.
 */
#define _GNU_SOURCE
#include "answer.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

answer_json *answer_read(const char *text) {
  json_error_t error;
  json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, &error);
  if (object == NULL) cr_assert_fail("not JSON at byte %d: %s: %s", error.position, error.text, text);
  cr_assert(json_is_object(object), "no object: %s", text);
  return object;
}

void answer_free(answer_json *object) { json_decref(object); }

static const json_t *find(const json_t *value, const char *path) {
  char words[128], *rest = NULL;
  cr_assert_lt(strlen(path), sizeof words);
  strcpy(words, path);
  for (const char *word = strtok_r(words, ".", &rest); word != NULL; word = strtok_r(NULL, ".", &rest)) {
    value = json_is_array(value) ? json_array_get(value, strtoul(word, NULL, 10)) : json_object_get(value, word);
  }
  cr_assert_not_null(value, "the answer has no '%s'", path);
  return value;
}

double answer_number(const answer_json *object, const char *path) {
  const json_t *value = find(object, path);
  cr_assert(json_is_number(value), "'%s' is no number", path);
  return json_number_value(value);
}

const char *answer_text(const answer_json *object, const char *path) {
  const json_t *value = find(object, path);
  cr_assert(json_is_string(value), "'%s' is no text", path);
  return json_string_value(value);
}

size_t answer_count(const answer_json *object, const char *path) {
  const json_t *value = find(object, path);
  cr_assert(json_is_array(value), "'%s' is no array", path);
  return json_array_size(value);
}

bool answer_is_null(const answer_json *object, const char *path) { return json_is_null(find(object, path)); }

bool answer_flag(const answer_json *object, const char *path) {
  const json_t *value = find(object, path);
  cr_assert(json_is_boolean(value), "'%s' is neither true nor false", path);
  return json_is_true(value);
}
