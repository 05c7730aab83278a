/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables, bars and JSON.
 */
#define _GNU_SOURCE
#include "report.h"

#include <errno.h>
#include <inttypes.h>
#include <langinfo.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool/base/problem.h"

struct text grouped(int64_t number) {
  char digits[24];
  int length = snprintf(digits, sizeof digits, "%" PRIu64, number < 0 ? 0 - (uint64_t)number : (uint64_t)number);
  struct text text;
  char *at = text.of;
  if (number < 0) *at++ = '-';
  for (int index = 0; index < length; index++) {
    *at++ = digits[index];
    if (index + 1 < length && (length - 1 - index) % 3 == 0) *at++ = ',';
  }
  *at = 0;
  return text;
}

/* -- memory ------------------------------------------------------------------------------------------------------- */

static bool incomplete, complained;

void report_incomplete(void) { incomplete = true; }

static int complain_once(const char *what) {
  if (!complained) complain("%s", what);
  complained = true;
  return TOOL_FAILED;
}

/* -- tables ------------------------------------------------------------------------------------------------------- */

void table_cell(struct table *table, const char *format, ...) {
  if (table->count == table->capacity) {
    size_t capacity = table->capacity ? 2 * table->capacity : 64;
    char **grown = realloc(table->cells, capacity * sizeof *grown);
    if (!grown) {
      report_incomplete();
      return;
    }
    table->cells = grown;
    table->capacity = capacity;
  }
  char *cell;
  va_list arguments;
  va_start(arguments, format);
  int length = vasprintf(&cell, format, arguments);
  va_end(arguments);
  if (length < 0) report_incomplete();
  table->cells[table->count++] = length < 0 ? NULL : cell;
}

/* Characters on the screen: bytes of UTF-8 that do not continue one. */
static int width_of(const char *text) {
  int width = 0;
  for (; *text; text++) width += ((unsigned char)*text & 0xc0) != 0x80;
  return width;
}

static const char *cell_at(const struct table *table, size_t index) {
  return index < table->count && table->cells[index] ? table->cells[index] : "";
}

static void print_row(const struct table *table, size_t row, const int *widths, size_t columns) {
  for (size_t column = 0; column < columns; column++) {
    const char *cell = cell_at(table, row * columns + column);
    int padding = widths[column] - width_of(cell);
    bool right = table->alignment[column] == 'r', last = column + 1 == columns;
    printf("  %*s%s%*s", right ? padding : 0, "", cell, right || last ? 0 : padding, "");
  }
  putchar('\n');
}

void table_print(struct table *table, bool ruled) {
  size_t columns = strlen(table->alignment), rows = (table->count + columns - 1) / columns;
  int widths[32] = {0}, total = -2;
  for (size_t column = 0; column < columns; column++) {
    for (size_t row = 0; row < rows; row++) {
      int width = width_of(cell_at(table, row * columns + column));
      if (width > widths[column]) widths[column] = width;
    }
    total += widths[column] + 2;
  }
  for (size_t row = 0; !incomplete && row < rows; row++) {
    print_row(table, row, widths, columns);
    if (row > 0 || !ruled) continue;
    printf("  ");
    for (int column = 0; column < total; column++) putchar('-');
    putchar('\n');
  }
  for (size_t index = 0; index < table->count; index++) free(table->cells[index]);
  free(table->cells);
  *table = (struct table){.alignment = table->alignment};
}

/* -- bars --------------------------------------------------------------------------------------------------------- */

enum { BAR_WIDTH = 40, MAX_LINES = 64 };

/* Eighths of a character where the terminal has them. */
static void bar_of(double length, bool fine, char *bar) {
  static const char *const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  int parts = (int)lround(length * (fine ? 8 : 1));
  int unit = fine ? 8 : 1;
  bar[0] = 0;
  for (int full = 0; full < parts / unit; full++) strcat(bar, fine ? "█" : "#");
  if (fine) strcat(bar, eighths[parts % 8]);
}

/* A line may show several bins, so that 1024 bins fit on a screen. */
struct line {
  int64_t count;
  double weight;
};

static struct line merge(const struct histogram *histogram, int32_t first, int32_t end) {
  struct line line = {0, 0};
  for (int32_t bin = first; bin < end && bin < histogram->bins; bin++) {
    line.count += histogram->counts[bin];
    line.weight += (double)histogram->counts[bin] * histogram->weights[bin];
  }
  if (line.count) line.weight /= (double)line.count;
  return line;
}

void print_bars(const struct histogram *histogram) {
  setlocale(LC_CTYPE, "");
  bool fine = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
  int32_t step = (histogram->bins + MAX_LINES - 1) / MAX_LINES;
  double most = 1;
  for (int32_t bin = 0; bin < histogram->bins; bin += step) {
    most = fmax(most, (double)merge(histogram, bin, bin + step).count);
  }
  struct table table = {.alignment = "lrrl"};
  table_cell(&table, "gradient norm");
  table_cell(&table, "elements");
  table_cell(&table, "weight");
  table_cell(&table, "elements, log scale");
  for (int32_t bin = 0; bin < histogram->bins; bin += step) {
    struct line line = merge(histogram, bin, bin + step);
    int32_t end = bin + step < histogram->bins ? bin + step : histogram->bins;
    char bar[4 * BAR_WIDTH + 8];
    bar_of(line.count ? BAR_WIDTH * log1p((double)line.count) / log1p(most) : 0, fine, bar);
    table_cell(&table, "%.3f - %.3f", histogram->edges[bin], histogram->edges[end]);
    table_cell(&table, "%s", grouped(line.count).of);
    if (line.count == 0)
      table_cell(&table, "-");
    else if (line.weight >= 1000 && line.weight < 1e15)
      table_cell(&table, "%s", grouped(llround(line.weight)).of);
    else
      table_cell(&table, "%#.4g", line.weight);
    table_cell(&table, "%s", bar);
  }
  table_print(&table, true);
}

/* -- JSON --------------------------------------------------------------------------------------------------------- */

json_t *json_number(double value) {
  if (isfinite(value)) return json_real(value);
  return json_string(isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity");
}

/* jansson takes only UTF-8, and a file's name may have any bytes. */
json_t *json_text(const char *text) {
  json_t *string = json_string(text);
  char *ascii = string ? NULL : strdup(text);
  for (char *at = ascii; at && *at; at++) {
    if ((unsigned char)*at >= 0x80) *at = '?';
  }
  if (ascii) string = json_string(ascii);
  free(ascii);
  return string;
}

void json_append(json_t *array, json_t *value) {
  if (json_array_append_new(array, value) != 0) report_incomplete();
}

void json_set(json_t *object, const char *key, json_t *value) {
  if (json_object_set_new(object, key, value) != 0) report_incomplete();
}

json_t *json_at(const json_t *object, const char *path) {
  const char *dot = strchr(path, '.');
  if (!dot) return json_object_get(object, path);
  char key[64];
  snprintf(key, sizeof key, "%.*s", (int)(dot - path), path);
  return json_at(json_object_get(object, key), dot + 1);
}

json_t *json_histogram(const struct histogram *histogram) {
  json_t *edges = json_array(), *counts = json_array(), *weights = json_array();
  for (int32_t bin = 0; bin <= histogram->bins; bin++) json_append(edges, json_number(histogram->edges[bin]));
  for (int32_t bin = 0; bin < histogram->bins; bin++) {
    json_append(counts, json_integer(histogram->counts[bin]));
    json_append(weights, json_number(histogram->weights[bin]));
  }
  return json_pack("{s:o, s:o, s:o}", "edges", edges, "counts", counts, "weights", weights);
}

/* jansson continues after a key that it could not write. Such omissions are noticed here. */
static int put_json(const char *text, size_t length, void *stream) {
  if (fwrite(text, 1, length, stream) == length) return 0;
  report_incomplete();
  return -1;
}

int json_print(json_t *object) {
  char *text = NULL;
  size_t length = 0;
  FILE *stream = object && !incomplete ? open_memstream(&text, &length) : NULL;
  if (!stream || json_dump_callback(object, put_json, stream, 0) != 0 || fflush(stream) != 0) report_incomplete();
  if (stream && (fclose(stream) != 0 || !text)) report_incomplete();
  json_decref(object);
  if (!incomplete) printf("%s\n", text);
  free(text);
  return incomplete ? complain_once("out of memory") : TOOL_OK;
}

static int output_failed(void) {
  char text[256];
  snprintf(text, sizeof text, "cannot write to standard output: %s", strerror(errno));
  return complain_once(text);
}

int finish_output(void) {
  if (incomplete) return complain_once("out of memory");
  if (fflush(stdout) == 0 && !ferror(stdout)) return TOOL_OK;
  return output_failed();
}

/* Some file systems report a write error only when the file is closed. */
int close_output(void) {
  int failed = ferror(stdout);
  return fclose(stdout) == 0 && !failed ? TOOL_OK : output_failed();
}
