/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The picture: gnuplot runs as a child, without a shell and without the user's own settings; its script comes from a
 * temporary file on standard input, its SVG goes straight to the output file.
 */
#define _GNU_SOURCE
#include "plot.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <spawn.h>
#include <stdbool.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "problem.h"
#include "report.h"

extern char **environ;

/* A gnuplot string: single quotes, doubled inside; whatever could end the line is left out. */
static void put_quoted(FILE *script, const char *text) {
  fputc('\'', script);
  for (; *text; text++) {
    if ((unsigned char)*text < 0x20) continue;
    if (*text == '\'') fputc('\'', script);
    fputc(*text, script);
  }
  fputc('\'', script);
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
          "plot $bins using (($1+$2)/2):3:($2-$1) with boxes fc rgb '#3b6ea8' lc rgb 'white' lw 0.5 notitle\n",
          text->element, histogram->elements ? "*" : "10");
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

/* Runs gnuplot and returns its wait status, or -1 with errno set. */
static int run_gnuplot(int script, int svg, int errors) {
  posix_spawn_file_actions_t actions;
  if ((errno = posix_spawn_file_actions_init(&actions)) != 0) return -1;
  char *arguments[] = {"gnuplot", "--default-settings", "-", NULL};
  pid_t child;
  int failed = posix_spawn_file_actions_adddup2(&actions, script, STDIN_FILENO);
  if (!failed) failed = posix_spawn_file_actions_adddup2(&actions, svg, STDOUT_FILENO);
  if (!failed) failed = posix_spawn_file_actions_adddup2(&actions, errors, STDERR_FILENO);
  if (!failed) failed = posix_spawnp(&child, "gnuplot", &actions, NULL, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failed) {
    errno = failed;
    return -1;
  }
  int status;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return -1;
  }
  return status;
}

/* gnuplot shows where in the script it stumbled, then says why: the last line is the one to pass on. */
static int say_why(FILE *errors, const char *path) {
  char line[512], last[512] = "it gave no reason";
  rewind(errors);
  while (fgets(line, sizeof line, errors)) {
    line[strcspn(line, "\n")] = 0;
    if (line[strspn(line, " \t^")] != 0) memcpy(last, line, sizeof last);
  }
  return complain("--plot %s: gnuplot failed: %s", path, last);
}

int plot_svg(FILE *file, const char *path, const struct histogram *histogram, const struct curves *curves,
             const struct plot_text *text) {
  FILE *script = tmpfile(), *errors = tmpfile();
  int status = TOOL_FAILED;
  if (!script || !errors) {
    complain("--plot %s: no temporary file: %s", path, strerror(errno));
    goto done;
  }
  put_script(script, histogram, curves, text);
  if (fflush(script) != 0 || ferror(script) || lseek(fileno(script), 0, SEEK_SET) != 0) {
    complain("--plot %s: cannot write gnuplot's script: %s", path, strerror(errno));
    goto done;
  }
  int ended = run_gnuplot(fileno(script), fileno(file), fileno(errors));
  if (ended == -1) {
    complain(errno == ENOENT ? "--plot %s: gnuplot is not installed; on Debian: apt-get install gnuplot-nox"
                             : "--plot %s: cannot run gnuplot",
             path);
  } else if (!WIFEXITED(ended) || WEXITSTATUS(ended) != 0 || lseek(fileno(file), 0, SEEK_END) <= 0) {
    say_why(errors, path);
  } else {
    status = TOOL_OK;
  }
done:
  if (script) fclose(script);
  if (errors) fclose(errors);
  return status;
}
