/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RFC 8259 by recursive descent, without escapes beyond one character, which the tool's answers do not need.
 */
#include "json.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct reader {
  const char *start, *at;
  json_object *into;
} reader;

static void read_value(reader *r, const char *path);

static void fail(const reader *r, const char *expected) {
  cr_assert_fail("not JSON at byte %d, expected %s: %s", (int)(r->at - r->start), expected, r->start);
}

static char skip_space(reader *r) {
  r->at += strspn(r->at, " \t\r\n");
  return *r->at;
}

static void expect(reader *r, char wanted) {
  const char name[] = {wanted, '\0'};
  if (skip_space(r) != wanted) fail(r, name);
  r->at++;
}

/* Where another element follows: consumes a comma, or the closing bracket and says no. */
static int goes_on(reader *r, char close) {
  if (skip_space(r) == ',') {
    r->at++;
    return 1;
  }
  expect(r, close);
  return 0;
}

static void read_string(reader *r, char *into, size_t size) {
  size_t used = 0;
  expect(r, '"');
  for (; *r->at != '"'; r->at++) {
    if ((unsigned char)*r->at < 0x20) fail(r, "a character of a string");
    if (*r->at == '\\' && strchr("\"\\/bfnrt", *++r->at) == NULL) fail(r, "an escape");
    if (used + 1 < size) into[used++] = *r->at;
  }
  into[used] = '\0';
  r->at++;
}

static json_scalar *add_scalar(reader *r, const char *path) {
  json_object *o = r->into;
  o->scalars = realloc(o->scalars, (o->count + 1) * sizeof *o->scalars);
  json_scalar *scalar = &o->scalars[o->count++];
  *scalar = (json_scalar){.number = NAN};
  snprintf(scalar->path, sizeof scalar->path, "%s", path);
  return scalar;
}

static void read_object(reader *r, const char *path) {
  char name[32], inner[64];
  expect(r, '{');
  if (skip_space(r) == '}') {
    r->at++;
    return;
  }
  do {
    skip_space(r);
    read_string(r, name, sizeof name);
    expect(r, ':');
    snprintf(inner, sizeof inner, "%s%s%s", path, *path == '\0' ? "" : ".", name);
    read_value(r, inner);
  } while (goes_on(r, '}'));
}

static void read_array(reader *r, const char *path) {
  char inner[64];
  size_t index = 0;
  expect(r, '[');
  if (skip_space(r) == ']') {
    r->at++;
    return;
  }
  do {
    snprintf(inner, sizeof inner, "%s.%zu", path, index++);
    read_value(r, inner);
  } while (goes_on(r, ']'));
}

/* A number by JSON's grammar, which strtod's is not: no leading +, no bare point, no inf, no nan. */
static void read_plain(reader *r, const char *path) {
  json_scalar *scalar = add_scalar(r, path);
  const size_t length = strspn(r->at, "+-.0123456789aeflnrstu");
  char *end = NULL;
  if (length == 0 || length >= sizeof scalar->text) fail(r, "a value");
  memcpy(scalar->text, r->at, length);
  r->at += length;
  if (strcmp(scalar->text, "true") == 0 || strcmp(scalar->text, "false") == 0 || strcmp(scalar->text, "null") == 0) {
    return;
  }
  if (strspn(scalar->text + (scalar->text[0] == '-'), "0123456789") == 0 || strpbrk(scalar->text, "aflnrstu") != NULL) {
    fail(r, "a number before this");
  }
  scalar->number = strtod(scalar->text, &end);
  if (*end != '\0') fail(r, "a number before this");
}

static void read_value(reader *r, const char *path) {
  switch (skip_space(r)) {
    case '{':
      read_object(r, path);
      break;
    case '[':
      read_array(r, path);
      break;
    case '"': {
      json_scalar *scalar = add_scalar(r, path);
      read_string(r, scalar->text, sizeof scalar->text);
      break;
    }
    default:
      read_plain(r, path);
  }
}

json_object json_read(const char *text) {
  json_object object = {NULL, 0};
  reader r = {.start = text, .at = text, .into = &object};
  if (skip_space(&r) != '{') fail(&r, "an object");
  read_object(&r, "");
  if (skip_space(&r) != '\0') fail(&r, "the end");
  return object;
}

void json_free(json_object *object) {
  free(object->scalars);
  object->scalars = NULL;
  object->count = 0;
}

static const json_scalar *find(const json_object *object, const char *path) {
  for (size_t i = 0; i < object->count; i++) {
    if (strcmp(object->scalars[i].path, path) == 0) return &object->scalars[i];
  }
  cr_assert_fail("the answer has no '%s'", path);
  return NULL;
}

double json_number(const json_object *object, const char *path) {
  const json_scalar *scalar = find(object, path);
  cr_assert(!isnan(scalar->number), "'%s' is no number: %s", path, scalar->text);
  return scalar->number;
}

const char *json_text(const json_object *object, const char *path) { return find(object, path)->text; }

size_t json_count(const json_object *object, const char *path) {
  const size_t length = strlen(path);
  size_t count = 0;
  for (size_t i = 0; i < object->count; i++) {
    const char *own = object->scalars[i].path;
    count += strncmp(own, path, length) == 0 && own[length] == '.' && strchr(own + length + 1, '.') == NULL;
  }
  return count;
}
