/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counts per class. CSV is read by libcsv, in strict mode, so that an unbalanced quote is an error and not data.
 */
#define _GNU_SOURCE
#include "counts.h"

#include <csv.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "npy.h"
#include "parse.h"
#include "problem.h"

static const char *const role = "--class-counts";

static int read_npy(const char *path, struct counts *counts) {
  struct npy array;
  int status = npy_read(role, path, NPY_INTEGERS, 1, &array);
  if (status != TOOL_OK) return status;
  counts->classes = array.count;
  counts->of = malloc(sizeof(int64_t) * (size_t)(array.count ? array.count : 1));
  if (!counts->of) status = complain("%s %s: out of memory", role, path);
  for (int64_t index = 0; status == TOOL_OK && index < array.count; index++) {
    counts->of[index] = array.type == NPY_I8 ? ((int64_t *)array.data)[index] : ((int32_t *)array.data)[index];
  }
  free(array.data);
  return status;
}

struct csv_state {
  const char *path;
  struct counts *counts;
  int64_t capacity, line;
  char last[64]; /* the last field of the row so far, cut */
  bool failed;
};

static void take_field(void *text, size_t length, void *user) {
  struct csv_state *state = user;
  size_t kept = length < sizeof state->last - 1 ? length : sizeof state->last - 1;
  memcpy(state->last, text, kept);
  state->last[kept] = 0;
  for (size_t index = 0; index < kept; index++) {
    if (state->last[index] == 0) state->last[index] = '?'; /* a NUL must not end a number early */
  }
}

static void append(struct csv_state *state, int64_t value) {
  struct counts *counts = state->counts;
  if (counts->classes == state->capacity) {
    int64_t larger = state->capacity ? 2 * state->capacity : 256;
    int64_t *grown = realloc(counts->of, sizeof(int64_t) * (size_t)larger);
    if (!grown) {
      complain("%s %s: out of memory", role, state->path);
      state->failed = true;
      return;
    }
    counts->of = grown;
    state->capacity = larger;
  }
  counts->of[counts->classes++] = value;
}

static void take_row(int end, void *user) {
  (void)end;
  struct csv_state *state = user;
  state->line++;
  if (state->failed) return;
  int64_t value = 0;
  bool number = text_to_int64(state->last, &value);
  if (number && value >= 0) {
    append(state, value);
  } else if (number || state->line > 1) { /* words in the first row are its heading */
    complain("%s %s: row %" PRId64 ": found '%s' in the last column, expected a whole number >= 0", role, state->path,
             state->line, state->last);
    state->failed = true;
  }
  state->last[0] = 0;
}

static int read_csv(const char *path, struct counts *counts) {
  FILE *file = fopen(path, "rbe");
  if (!file) return complain("%s %s: cannot open: %s", role, path, strerror(errno));
  struct csv_parser parser;
  struct csv_state state = {.path = path, .counts = counts};
  if (csv_init(&parser, CSV_STRICT | CSV_STRICT_FINI | CSV_APPEND_NULL) != 0) {
    fclose(file);
    return complain("%s %s: out of memory", role, path);
  }
  char block[4096];
  size_t length = 0;
  bool parsed = true;
  while (!state.failed && parsed && (length = fread(block, 1, sizeof block, file)) > 0) {
    parsed = csv_parse(&parser, block, length, take_field, take_row, &state) == length;
  }
  if (parsed && !state.failed) parsed = csv_fini(&parser, take_field, take_row, &state) == 0;
  int status = state.failed ? TOOL_FAILED : TOOL_OK;
  if (status == TOOL_OK && ferror(file)) status = complain("%s %s: cannot read: %s", role, path, strerror(errno));
  if (status == TOOL_OK && !parsed) {
    status = complain("%s %s: after row %" PRId64 ": %s; expected plain .csv, or .npy", role, path, state.line,
                      csv_strerror(csv_error(&parser)));
  }
  if (status == TOOL_OK && counts->classes == 0) {
    status = complain("%s %s: holds no counts; expected one row a class, its count in the last column", role, path);
  }
  csv_free(&parser);
  fclose(file);
  return status;
}

int counts_read(const char *path, struct counts *counts) {
  *counts = (struct counts){0};
  struct stat about;
  if (stat(path, &about) != 0) return complain("%s %s: cannot open: %s", role, path, strerror(errno));
  if (!S_ISREG(about.st_mode)) return complain("%s %s: not a regular file; expected .npy or .csv", role, path);
  size_t length = strlen(path);
  bool npy = length >= 4 && strcmp(path + length - 4, ".npy") == 0;
  int status = npy ? read_npy(path, counts) : read_csv(path, counts);
  if (status != TOOL_OK) {
    free(counts->of);
    counts->of = NULL;
  }
  return status;
}
