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

/* A logarithmic axis that holds everything drawn, from whole decade to whole decade. */
static void put_range(FILE *script, const struct histogram *histogram) {
  double low = 1, high = 1;
  for (int32_t bin = 0; bin < histogram->bins; bin++) {
    if (histogram->counts[bin] == 0) continue;
    double middle = (histogram->edges[bin] + histogram->edges[bin + 1]) / 2;
    double drawn[] = {histogram->weights[bin], histogram->gradients[bin], middle};
    for (int index = 0; index < 3; index++) {
      if (!(drawn[index] > 0) || !isfinite(drawn[index])) continue;
      low = fmin(low, drawn[index]);
      high = fmax(high, drawn[index]);
    }
  }
  double bottom = fmax(floor(log10(low)), floor(log10(high)) - 9) - 1; /* the lowest decade is the key's */
  fprintf(script, "set yrange [%g:%g]\n", pow(10, bottom), pow(10, floor(log10(high)) + 1));
}

static void put_script(FILE *script, const struct histogram *histogram, const struct plot_text *text) {
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
  snprintf(title, sizeof title, "Gradient norms of %s %s, %" PRId32 " bins", grouped(histogram->elements).of,
           text->element, histogram->bins);
  fputs("set origin 0,0\nset title ", script);
  put_quoted(script, title);
  fprintf(script,
          "\nset ylabel 'number of %s'\nset yrange [0.5:*]\nset style fill solid 0.85\n"
          "plot $bins using (($1+$2)/2):3:($2-$1) with boxes fc rgb '#3b6ea8' lc rgb 'white' lw 0.5 notitle\n",
          text->element);
  fputs(
      "unset label 1\nset origin 0.5,0\nset title 'Weight and gradient by gradient norm'\nset ylabel 'weight; gradient "
      "norm'\n",
      script);
  put_range(script, histogram);
  fputs(
      "set key bottom right vertical Left reverse samplen 2 font ',13' noautotitle\n"
      "set samples 400\n"
      "plot x with lines lw 1.5 dt 2 lc rgb '#777777' title ",
      script);
  put_quoted(script, text->plain);
  fputs(
      ", \\\n"
      "  $bins using 1:4:($2-$1):(0) with vectors nohead lw 3 lc rgb '#c8553d' title 'weight', \\\n"
      "  $bins using (($1+$2)/2):5 with linespoints lw 1.5 pt 7 ps 0.5 lc rgb '#2f7d4f' title 'gradient after "
      "weighting'\n"
      "unset multiplot\n",
      script);
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

int plot_svg(FILE *file, const char *path, const struct histogram *histogram, const struct plot_text *text) {
  FILE *script = tmpfile(), *errors = tmpfile();
  int status = TOOL_FAILED;
  if (!script || !errors) {
    complain("--plot %s: no temporary file: %s", path, strerror(errno));
    goto done;
  }
  put_script(script, histogram, text);
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
