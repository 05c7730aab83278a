/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The picture: gnuplot runs as a child, without a shell and without the user's own settings. It gets its script and
 * gives its SVG through pipes, so that every byte of the file is written, and checked, here.
 */
#define _GNU_SOURCE
#include "plot.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"
#include "tool/base/child.h"
#include "tool/base/outfile.h"
#include "tool/base/problem.h"

/* A gnuplot string: single quotes, doubled inside, without characters that could end the line. */
static void put_quoted(FILE *script, const char *text) {
  fputc('\'', script);
  for (; *text; text++) {
    if ((unsigned char)*text < 0x20) continue;
    if (*text == '\'') fputc('\'', script);
    fputc(*text, script);
  }
  fputc('\'', script);
}

/* Columns: both edges of a bin, and its count if every score were 1. */
static void put_unscored(FILE *script, const struct histogram *histogram) {
  fputs("$unscored << END\n", script);
  for (int32_t bin = 0; bin < histogram->bins; bin++)
    fprintf(script, "%.9g %.9g %" PRId64 "\n", histogram->edges[bin], histogram->edges[bin + 1],
            histogram->unscored[bin]);
  fputs("END\n", script);
}

/* Columns: left edge, right edge, count, weight, mean gradient. Nothing is drawn where a bin is empty. */
static void put_data(FILE *script, const struct histogram *histogram) {
  fputs("$bins << END\n", script);
  for (int32_t bin = 0; bin < histogram->bins; bin++) {
    bool empty = histogram->counts[bin] == 0;
    fprintf(script, "%.9g %.9g ", histogram->edges[bin], histogram->edges[bin + 1]);
    if (empty)
      fputs("NaN NaN NaN\n", script);
    else
      fprintf(script, "%" PRId64 " %.9g %.9g\n", histogram->counts[bin], histogram->weights[bin],
              histogram->gradients[bin]);
  }
  fputs("END\n", script);
}

/* A logarithmic axis from whole decade to whole decade that holds the values in [low,high], but no more than ten. */
static void put_decades(FILE *script, double low, double high) {
  double bottom = fmax(floor(log10(low)), floor(log10(high)) - 9) - 1; /* the lowest decade is the key's */
  fprintf(script, "set yrange [%g:%g]\n", pow(10, bottom), pow(10, floor(log10(high)) + 1));
}

static void widen(double *low, double *high, double value) {
  if (!(value > 0) || !isfinite(value)) return;
  *low = fmin(*low, value);
  *high = fmax(*high, value);
}

static void put_counts(FILE *script, const struct histogram *histogram, const struct plot_text *text) {
  char title[512];
  snprintf(title, sizeof title, "Gradient norms of %s %s, %" PRId32 " bins", grouped(histogram->elements).of,
           text->element, histogram->bins);
  fputs("set origin 0,0\nset title ", script);
  put_quoted(script, title);
  fprintf(script,
          "\nset ylabel 'number of %s'\nset yrange [0.5:%s]\nset style fill solid 0.85\n"
          "plot $bins using (($1+$2)/2):3:($2-$1) with boxes fc rgb '#3b6ea8' lc rgb 'white' lw 0.5 %s",
          text->element, histogram->elements ? "*" : "10", histogram->unscored ? "title 'with scores'" : "notitle\n");
  if (histogram->unscored)
    fputs(
        ", \\\n  $unscored using 1:($3>0?$3:NaN):($2-$1):(0) with vectors nohead lw 2 lc rgb '#c8553d' "
        "title 'if every score were 1'\n",
        script);
}

static void put_weights(FILE *script, const struct histogram *histogram, const struct plot_text *text) {
  double low = 1, high = 1;
  for (int32_t bin = 0; bin < histogram->bins; bin++) {
    if (histogram->counts[bin] == 0) continue;
    widen(&low, &high, histogram->weights[bin]);
    widen(&low, &high, histogram->gradients[bin]);
    widen(&low, &high, (histogram->edges[bin] + histogram->edges[bin + 1]) / 2);
  }
  fputs("set title 'Weight and gradient by gradient norm'\nset ylabel 'weight; gradient norm'\n", script);
  put_decades(script, low, high);
  fputs("plot x with lines lw 1.5 dt 2 lc rgb '#777777' title ", script);
  put_quoted(script, text->plain);
  fputs(
      ", \\\n"
      "  $bins using 1:4:($2-$1):(0) with vectors nohead lw 3 lc rgb '#c8553d' title 'weight', \\\n"
      "  $bins using (($1+$2)/2):5 with linespoints lw 1.5 pt 7 ps 0.5 lc rgb '#2f7d4f' title 'gradient after "
      "weighting'\n",
      script);
}

/* Columns: mean g of a bin, and two losses there; the third is a straight line. */
static void put_curves(FILE *script, const struct curves *curves) {
  double low = 1, high = 1, mean = curves->mean > 0 ? curves->mean : 1;
  fputs("$curves << END\n", script);
  for (int32_t bin = 0; bin < curves->bins; bin++) {
    double norm = curves->norms[bin], focal = curves->focal[bin], harmonised = curves->harmonised[bin];
    if (isnan(norm + focal + harmonised)) {
      fputs("NaN NaN NaN\n", script);
      continue;
    }
    fprintf(script, "%.9g %.9g %.9g\n", norm, focal, harmonised);
    widen(&low, &high, norm / mean);
    widen(&low, &high, focal);
    widen(&low, &high, harmonised);
  }
  fputs(
      "END\nset title 'Gradient of one logit after reformulation'\n"
      "set ylabel 'gradient norm / its mean over the batch'\n",
      script);
  put_decades(script, low, fmax(high, 1 / mean));
  fprintf(script, "plot x/%.9g with lines lw 2 dt 2 lc rgb '#777777' title 'cross-entropy', \\\n", mean);
  fputs(
      "  $curves using 1:2 with linespoints lw 1.5 pt 5 ps 0.4 lc rgb '#2f7d4f' title 'focal, γ = 2, no α', \\\n"
      "  $curves using 1:3 with linespoints lw 2 pt 7 ps 0.5 lc rgb '#c8553d' title 'GHM-C'\n",
      script);
}

static void put_script(FILE *script, const struct histogram *histogram, const struct curves *curves,
                       const struct plot_text *text) {
  char title[512];
  fputs(
      "set encoding utf8\n"
      "set terminal svg size 1120,470 enhanced font 'Helvetica,Arial,sans-serif,14' background rgb 'white'\n"
      "set multiplot\n"
      "set border 3 lc rgb '#444444'\nset tics nomirror textcolor rgb '#222222'\n"
      "set grid ytics lc rgb '#dddddd' lw 0.7\n"
      "set xrange [0:1]\nset xtics 0.1\nset xlabel 'gradient norm g (0: right, 1: wrong)'\n"
      "set logscale y\nset format y '10^{%T}'\nset size 0.5,0.93\nset lmargin 10\nset rmargin 2\nset bmargin 4\nset "
      "tmargin 3\n",
      script);
  put_data(script, histogram);
  if (histogram->unscored) put_unscored(script, histogram);
  snprintf(title, sizeof title, "%s on %s", text->loss, text->source);
  fputs("set label 1 ", script);
  put_quoted(script, title);
  fputs(" at screen 0.5,0.955 center font ',17' noenhanced\n", script);
  put_counts(script, histogram, text);
  fputs(
      "unset label 1\nset origin 0.5,0\nset samples 400\n"
      "set key bottom right vertical Left reverse samplen 2 font ',13' noautotitle\n",
      script);
  if (curves)
    put_curves(script, curves);
  else
    put_weights(script, histogram, text);
  fputs("unset multiplot\n", script);
}

/* Longer than any picture takes, even on a busy machine. */
enum { MOST_SECONDS = 20, MOST_BYTES = 64 << 20 };

/* gnuplot exits with status 0 even if it could not write. A picture is complete only if it has the last tag. */
static bool is_whole(const struct child_answer *answer) {
  static const char end[] = "</svg>";
  size_t length = answer->length;
  while (length && isspace((unsigned char)answer->text[length - 1])) length--;
  return length >= sizeof end - 1 && memcmp(answer->text + length - (sizeof end - 1), end, sizeof end - 1) == 0 &&
         strstr(answer->text, "<svg") != NULL;
}

static int say_why(enum child_end end, const struct child_answer *answer, const char *path) {
  switch (end) {
    case CHILD_MISSING:
      return complain("--plot %s: gnuplot is not installed; on Debian: apt-get install gnuplot-nox", path);
    case CHILD_NOT_RUN:
      return complain("--plot %s: cannot run gnuplot: %s", path, strerror(errno));
    case CHILD_TOO_LATE:
      return complain("--plot %s: gnuplot did not finish within %d seconds, and was killed", path, MOST_SECONDS);
    case CHILD_TOO_LARGE:
      return complain("--plot %s: gnuplot drew more than %d MiB, and was killed", path, MOST_BYTES >> 20);
    case CHILD_FAILED:
      return complain("--plot %s: gnuplot failed: %s", path, *answer->reason ? answer->reason : "it gave no reason");
    default:
      return complain("--plot %s: gnuplot's picture is not complete%s%s", path, *answer->reason ? ": " : "",
                      answer->reason);
  }
}

static int draw(FILE *file, const char *path, const char *script, size_t length) {
  char *arguments[] = {"gnuplot", "--default-settings", "-", NULL};
  struct child_answer answer;
  enum child_end end = child_run(arguments, script, length, MOST_SECONDS, MOST_BYTES, &answer);
  int status = TOOL_OK;
  if (end != CHILD_SUCCEEDED || !is_whole(&answer))
    status = say_why(end, &answer, path);
  else if (fwrite(answer.text, 1, answer.length, file) != answer.length)
    status = outfile_failed("--plot", path);
  free(answer.text);
  return status;
}

int plot_svg(FILE *file, const char *path, const struct histogram *histogram, const struct curves *curves,
             const struct plot_text *text) {
  char *script = NULL;
  size_t length = 0;
  FILE *stream = open_memstream(&script, &length);
  if (!stream) return complain("--plot %s: out of memory", path);
  put_script(stream, histogram, curves, text);
  int failed = ferror(stream);
  if (fclose(stream) != 0 || failed || !script) {
    free(script);
    return complain("--plot %s: out of memory", path);
  }
  int status = draw(file, path, script, length);
  free(script);
  return status;
}
