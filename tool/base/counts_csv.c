/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counts from .csv. libcsv reads it, in strict mode, so that an unbalanced quote is an error and not data. It gets
 * one line at a time, so that every error names a line. Only one heading is skipped, which cannot be a number.
 */
#define _GNU_SOURCE
#include <csv.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "counts.h"
#include "parse.h"
#include "problem.h"

enum { LONGEST = 2048 }; /* more digits than any double needs */

struct field {
  size_t length; /* all of it, even where the text is cut */
  char text[LONGEST + 1];
};

struct csv_state {
  const char *path;
  struct counts *counts;
  int64_t line, blank_line, rows;     /* blank_line: the first, 0 if none */
  int64_t field, fields;              /* in this row so far; in every row */
  int64_t id_column;                  /* -1 while none is headed as one */
  bool has_ids, failed, numbers_only; /* numbers_only: of the first row */
  double last_id;
  struct field id, last;
};

static void refuse(struct csv_state *state, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void refuse(struct csv_state *state, const char *format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  complain("--class-counts %s: line %" PRId64 ": %s", state->path, state->line, text);
  state->failed = true;
}

/* Spaces around it are not part of it, quoted or not. A NUL must not end a number early. */
static void keep(struct field *field, const char *text, size_t length) {
  while (length && isspace((unsigned char)*text)) text++, length--;
  while (length && isspace((unsigned char)text[length - 1])) length--;
  field->length = length;
  size_t kept = length < LONGEST ? length : LONGEST;
  memcpy(field->text, text, kept);
  field->text[kept] = 0;
  for (size_t index = 0; index < kept; index++) {
    if (field->text[index] == 0) field->text[index] = '?';
  }
}

static bool is_one_of(const char *text, const char *const *names) {
  for (; *names; names++) {
    if (strcasecmp(text, *names) == 0) return true;
  }
  return false;
}

static void take_field(void *text, size_t length, void *user) {
  static const char *const id_names[] = {"id", "class_id", "category_id", "class", "category", "label", "index", NULL};
  struct csv_state *state = user;
  int64_t column = state->field++;
  keep(&state->last, text, length);
  if (column == (state->id_column < 0 ? 0 : state->id_column) && state->rows > 0) state->id = state->last;
  if (state->rows > 0) return;
  double value;
  if (column == 0) state->id = state->last;
  if (state->id_column < 0 && is_one_of(state->last.text, id_names)) state->id_column = column;
  state->numbers_only = state->numbers_only && text_number(state->last.text, &value) == NUMBER_FINE;
}

/* Text that is neither a number nor a missing number: it begins with a letter and has no digit. */
static bool is_heading(const struct field *field) {
  static const char *const missing[] = {"nan", "inf", "infinity", "na", "n/a", "null", "none", "nil", "missing", NULL};
  if (field->length > LONGEST || !isalpha((unsigned char)*field->text)) return false;
  return !strpbrk(field->text, "0123456789") && !is_one_of(field->text, missing);
}

static const char *cut(const struct field *field, char *text, size_t size) {
  snprintf(text, size, "'%.60s'%s", field->text, field->length > 60 ? " ..." : "");
  return text;
}

static void take_count(struct csv_state *state) {
  const struct field *field = &state->last;
  char shown[80];
  double value = 0;
  int64_t exact = 0;
  enum number found = field->length > LONGEST ? NUMBER_NONE : text_number(field->text, &value);
  if (found == NUMBER_FINE && value >= 0) {
    bool whole = text_to_int64(field->text, &exact);
    state->failed = counts_append(state->path, state->counts, value, whole, exact) != TOOL_OK;
    return;
  }
  const char *why = found == NUMBER_HUGE   ? ", too large for a double"
                    : found == NUMBER_TINY ? ", too small for a double; write 0 for no samples"
                                           : ", expected a finite count, 0 or more";
  refuse(state, "field %" PRId64 ": found %s%s%s", state->fields, cut(field, shown, sizeof shown), why,
         state->rows == 0 && found == NUMBER_NONE ? "; a heading begins with a letter and has no digit" : "");
}

/* Class 0 comes first. Ids must increase, or weights would belong to other classes. */
static void check_id(struct csv_state *state) {
  char shown[80];
  double id = 0;
  int64_t column = state->id_column < 0 ? 0 : state->id_column;
  bool number = state->id.length <= LONGEST && text_number(state->id.text, &id) == NUMBER_FINE;
  bool first = state->counts->classes == 0;
  if (column + 1 >= state->fields) return; /* that is the count itself */
  if (first) {
    state->has_ids = number;
  } else if (state->has_ids && !number) {
    refuse(state, "field %" PRId64 ": found %s, expected a class id, as in the lines before", column + 1,
           cut(&state->id, shown, sizeof shown));
  } else if (state->has_ids && !(id > state->last_id)) {
    refuse(state, "field %" PRId64 ": found class id %s after %.17g; sort the lines by id, each id once", column + 1,
           cut(&state->id, shown, sizeof shown), state->last_id);
  }
  state->last_id = id;
}

static void take_row(int end, void *user) {
  (void)end;
  struct csv_state *state = user;
  int64_t fields = state->field;
  state->field = 0;
  if (state->failed) return;
  if (fields == 0) { /* an error if a row follows */
    if (state->blank_line == 0) state->blank_line = state->line;
    return;
  }
  if (state->blank_line) {
    state->line = state->blank_line;
    refuse(state, "is empty, expected a count");
    return;
  }
  if (state->rows == 0) state->fields = fields;
  if (fields != state->fields) {
    refuse(state, "found %" PRId64 " fields, expected %" PRId64 " as in the lines before", fields, state->fields);
    return;
  }
  bool heading = state->rows == 0 && is_heading(&state->last);
  if (state->rows == 0 && !heading) state->id_column = -1;
  if (!heading) check_id(state);
  if (!heading && !state->failed) take_count(state);
  state->rows++;
}

/* -- lines -------------------------------------------------------------------------------------------------------- */

/* Passes a line of getline on. A carriage return alone ends a line too. The line feed after it does not end another. */
static bool feed(struct csv_parser *parser, struct csv_state *state, const char *text, size_t length) {
  while (length && !state->failed) {
    const char *end = memchr(text, '\r', length);
    size_t part = end ? (size_t)(end - text) + 1 : length;
    size_t ending = part < length && text[part] == '\n'; /* part of the same line end, and no blank line */
    state->line++;
    if (csv_parse(parser, text, part, take_field, take_row, state) != part) return false;
    if (ending && parser->quoted && csv_parse(parser, text + part, 1, take_field, take_row, state) != 1) return false;
    text += part + ending;
    length -= part + ending;
  }
  return true;
}

static int read_lines(FILE *file, struct csv_parser *parser, struct csv_state *state) {
  char *line = NULL;
  size_t room = 0;
  ssize_t length;
  bool parsed = true;
  while (parsed && !state->failed && (errno = 0, length = getline(&line, &room, file)) > 0) {
    const char *text = line;
    if (state->line == 0 && length >= 2 && (memcmp(text, "\xff\xfe", 2) == 0 || memcmp(text, "\xfe\xff", 2) == 0)) {
      state->line = 1;
      refuse(state, "the text is UTF-16, expected UTF-8");
      break;
    }
    if (state->line == 0 && length >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) text += 3; /* the byte order mark */
    parsed = feed(parser, state, text, (size_t)(line + length - text));
  }
  int reason = errno;
  free(line);
  if (parsed && !state->failed && reason == 0) parsed = csv_fini(parser, take_field, take_row, state) == 0;
  if (state->failed) return TOOL_FAILED;
  if (reason) return complain("--class-counts %s: cannot read: %s", state->path, strerror(reason));
  if (!parsed) refuse(state, "%s; expected plain .csv, or .npy", csv_strerror(csv_error(parser)));
  return state->failed ? TOOL_FAILED : TOOL_OK;
}

int counts_read_csv(const char *path, FILE *file, struct counts *counts) {
  struct csv_parser parser;
  struct csv_state *state = calloc(1, sizeof *state);
  int status = TOOL_FAILED;
  if (!state || csv_init(&parser, CSV_STRICT | CSV_STRICT_FINI | CSV_APPEND_NULL | CSV_REPALL_NL) != 0) {
    complain("--class-counts %s: out of memory", path);
  } else {
    *state = (struct csv_state){.path = path, .counts = counts, .id_column = -1, .numbers_only = true};
    status = read_lines(file, &parser, state);
    csv_free(&parser);
    if (status == TOOL_OK && state->rows == 1 && state->fields > 2 && state->numbers_only) {
      status = complain("--class-counts %s: found one line of %" PRId64 " numbers, expected one line for each class",
                        path, state->fields);
    }
  }
  free(state);
  return status;
}
