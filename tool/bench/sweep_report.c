/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a sweep found: a table of nanoseconds for an element, JSON, and lines in a picture. All of them read what the
 * steps left as JSON.
 */
#define _GNU_SOURCE
#include <math.h>
#include <string.h>

#include "sweep.h"
#include "tool/base/picture.h"
#include "tool/report.h"

json_t *sweep_json(const struct sweep *sweep) {
  json_t *object = json_object();
  json_object_update(object, sweep->setting);
  json_set(object, "benchmark", json_string("sweep"));
  json_set(object, "sweep", json_string(sweep_name(sweep)));
  json_set(object, "steps", json_incref(sweep->steps));
  json_set(object, "ended_before", sweep->ended_before ? json_integer((json_int_t)sweep->ended_before) : json_null());
  json_set(object, "reason_of_end", sweep->ended_before ? json_string(sweep->reason) : json_null());
  return object;
}

static double number_of(const json_t *object, const char *path) { return json_number_value(json_at(object, path)); }

static int64_t whole_of(const json_t *object, const char *name) {
  return (int64_t)json_integer_value(json_object_get(object, name));
}

static const char *text_of(const json_t *object, const char *name) {
  const char *text = json_string_value(json_object_get(object, name));
  return text ? text : "";
}

static double copy_ns(const json_t *step) {
  return number_of(step, "copy.median_ms") * 1e6 / ((double)whole_of(step, "rows") * (double)whole_of(step, "classes"));
}

static const json_t *loss_at(const json_t *step, size_t loss) {
  return json_array_get(json_object_get(step, "losses"), loss);
}

static double loss_ns(const json_t *step, size_t loss) { return number_of(loss_at(step, loss), "ns_per_element"); }

static size_t loss_count(const struct sweep *sweep) {
  return json_array_size(json_object_get(json_array_get(sweep->steps, 0), "losses"));
}

/* ---- The table --------------------------------------------------------------------------------------------------- */

/* "100,000 x 80": what does not change, or both if the rows follow the classes. */
struct title {
  char of[512];
};

static struct title title_of(const struct sweep *sweep, const char *times) {
  const struct bench_options *options = sweep->options;
  struct title title;
  char shape[128];
  if (options->sweep == SWEEP_ROWS)
    snprintf(shape, sizeof shape, "%s class%s", grouped(options->classes).of, options->classes == 1 ? "" : "es");
  else if (options->sweep == SWEEP_CLASSES)
    snprintf(shape, sizeof shape, "about 8 million elements");
  else
    snprintf(shape, sizeof shape, "%s %s %s", grouped(options->rows).of, times, grouped(options->classes).of);
  snprintf(title.of, sizeof title.of, "Loss and gradient by %s: %s %s (%s, %s, %s)", sweep_name(sweep), shape,
           text_of(sweep->setting, "dtype"), text_of(sweep->setting, "layout"),
           options->apart ? "gradient apart" : "in place", options->distribution_text);
  return title;
}

/* "on AMD EPYC, avx512, 2 threads" */
static struct title place_of(const struct sweep *sweep) {
  struct title place;
  char threads[32] = "";
  const long long count = (long long)whole_of(json_array_get(sweep->steps, 0), "threads");
  if (sweep->options->sweep != SWEEP_THREADS && strcmp(text_of(sweep->setting, "device"), "cpu") == 0)
    snprintf(threads, sizeof threads, ", %lld thread%s", count, count == 1 ? "" : "s");
  snprintf(place.of, sizeof place.of, "on %s, %s%s", text_of(sweep->setting, "device_name"),
           text_of(sweep->setting, "isa"), threads);
  return place;
}

static void print_block(const struct sweep *sweep, size_t first, size_t end) {
  char alignment[16] = "rrl";
  size_t index, columns = 3;
  for (index = first; index <= end; index++) alignment[columns++] = 'r';
  struct table table = {.alignment = alignment};
  const bool by_classes = sweep->options->sweep == SWEEP_CLASSES;
  const json_t *step, *one = json_array_get(sweep->steps, 0);
  table_cell(&table, "%s", sweep_name(sweep));
  table_cell(&table, "%s", by_classes ? "rows" : "rounds");
  table_cell(&table, "caches");
  table_cell(&table, "copy");
  for (index = first; index < end; index++) table_cell(&table, "%s", text_of(loss_at(one, index), "label"));
  json_array_foreach(sweep->steps, index, step) {
    table_cell(&table, "%s%s", json_is_true(json_at(step, "noise.trusted")) ? "" : "* ",
               grouped(whole_of(step, sweep_name(sweep))).of);
    table_cell(&table, "%s", grouped(whole_of(step, by_classes ? "rows" : "rounds")).of);
    table_cell(&table, "%s", text_of(step, "cache"));
    table_cell(&table, "%.3f", copy_ns(step));
    for (size_t loss = first; loss < end; loss++) table_cell(&table, "%.3f", loss_ns(step, loss));
  }
  table_print(&table, true);
  printf("\n");
}

static bool all_trusted(const struct sweep *sweep) {
  const json_t *step;
  size_t index;
  json_array_foreach(sweep->steps, index, step) {
    if (!json_is_true(json_at(step, "noise.trusted"))) return false;
  }
  return true;
}

void sweep_print(void *contents) {
  enum { LOSSES = 5 }; /* in one table, so that its lines are not too long */
  const struct sweep *sweep = contents;
  const size_t losses = loss_count(sweep);
  printf("%s\n%s; nanoseconds for an element, medians.\n\n", title_of(sweep, "x").of, place_of(sweep).of);
  for (size_t first = 0; first < losses; first += LOSSES)
    print_block(sweep, first, first + LOSSES < losses ? first + LOSSES : losses);
  printf("copy: a plain copy of the logits. ghm-r has [rows, 4].\n");
  if (!all_trusted(sweep))
    printf(
        "*: the copies vary a lot from round to round: other work keeps this machine busy. Do not trust these "
        "times.\n");
  if (sweep->ended_before) printf("The sweep ends here: %s.\n", sweep->reason);
}

/* ---- The picture ------------------------------------------------------------------------------------------------- */

/* Columns: the size, the copy, and each loss. Both axes are logarithmic, so their ranges must be above 0. */
static void put_data(FILE *script, const struct sweep *sweep) {
  double low = INFINITY, high = 0;
  const size_t losses = loss_count(sweep);
  const json_t *step;
  size_t index;
  fputs("$steps << END\n", script);
  json_array_foreach(sweep->steps, index, step) {
    fprintf(script, "%lld %.6g", (long long)whole_of(step, sweep_name(sweep)), copy_ns(step));
    low = fmin(low, copy_ns(step));
    high = fmax(high, copy_ns(step));
    for (size_t loss = 0; loss < losses; loss++) {
      fprintf(script, " %.6g", loss_ns(step, loss));
      low = fmin(low, loss_ns(step, loss));
      high = fmax(high, loss_ns(step, loss));
    }
    fputc('\n', script);
  }
  fprintf(script, "END\nset yrange [%g:%g]\nset xtics (", low / 1.3, high * 1.3);
  json_array_foreach(sweep->steps, index, step) {
    const int64_t size = whole_of(step, sweep_name(sweep));
    fprintf(script, "%s'%s' %lld", index ? ", " : "", grouped(size).of, (long long)size);
  }
  const json_t *last = json_array_get(sweep->steps, json_array_size(sweep->steps) - 1);
  fprintf(script, ")\nset xrange [%g:%g]\n", (double)whole_of(json_array_get(sweep->steps, 0), sweep_name(sweep)) / 1.2,
          (double)whole_of(last, sweep_name(sweep)) * 1.2);
}

static void put_titles(FILE *script, const struct sweep *sweep) {
  fputs("set label 2 ", script);
  put_quoted(script, title_of(sweep, "×").of);
  fputs(" at screen 0.5,0.955 center font ',16' noenhanced\nset label 1 ", script);
  put_quoted(script, place_of(sweep).of);
  fputs(" at screen 0.5,0.91 center font ',13' noenhanced\n", script);
}

static void put_script(FILE *script, void *contents) {
  static const char *const colours[] = {COLOUR_LOSS, COLOUR_FOCAL, COLOUR_OBJECTS, COLOUR_BACKGROUND, COLOUR_WEIGHT};
  enum { COLOURS = sizeof colours / sizeof colours[0] };
  const struct sweep *sweep = contents;
  const json_t *one = json_array_get(sweep->steps, 0);
  put_titles(script, sweep);
  put_data(script, sweep);
  fprintf(script,
          "set border 3 lc rgb '#444444'\nset tics nomirror textcolor rgb '#222222'\n"
          "set grid ytics lc rgb '#dddddd' lw 0.7\nset logscale x 2\nset logscale y 2\nset format y '%%g'\n"
          "set xlabel '%s' offset 0,0.4\nset ylabel 'ns per element, median'\nset tmargin 5\nset rmargin 4\n"
          "set key outside bottom center horizontal Left reverse samplen 2 font ',13' noenhanced\n"
          "plot $steps using 1:2 with linespoints lw 2 dt 2 pt 7 ps 0.4 lc rgb '" COLOUR_UNWEIGHTED
          "' title 'a plain copy of the logits'",
          sweep_name(sweep));
  for (size_t loss = 0; loss < loss_count(sweep); loss++) {
    fprintf(script, ", \\\n  $steps using 1:%zu with linespoints lw 2 dt %zu pt 7 ps 0.5 lc rgb '%s' title ", loss + 3,
            loss / COLOURS + 1, colours[loss % COLOURS]);
    put_quoted(script, text_of(loss_at(one, loss), "label"));
  }
  fputc('\n', script);
}

int sweep_chart(FILE *file, struct sweep *sweep) {
  const struct title title = title_of(sweep, "×");
  const int height = 480 + 8 * (int)loss_count(sweep);
  return picture_draw(file, &(struct picture){sweep->options->plot, title.of, 900, height, put_script, sweep});
}
