/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two panels: how many elements have which gradient norm, and what the loss makes of it.
 */
#define _GNU_SOURCE
#include "plot.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>

#include "parameters.h"
#include "report.h"
#include "tool/base/picture.h"

/* Columns: both edges of a bin, and its count if every score were 1. */
static void put_unscored(FILE *script, const struct histogram *histogram) {
  fputs("$unscored << END\n", script);
  for (int32_t bin = 0; bin < histogram->bins; bin++)
    fprintf(script, "%.9g %.9g %" PRId64 "\n", histogram->edges[bin], histogram->edges[bin + 1],
            histogram->unscored[bin]);
  fputs("END\n", script);
}

/* Columns: left edge, right edge, background, objects, weight, mean gradient. Nothing is drawn where there is none. */
static void put_data(FILE *script, const struct histogram *histogram) {
  fputs("$bins << END\n", script);
  for (int32_t bin = 0; bin < histogram->bins; bin++) {
    const int64_t count = histogram->counts[bin];
    int64_t objects = histogram->objects ? histogram->objects[bin] : 0;
    if (objects > count) objects = count; /* an object at an edge, which the library counts in the next bin */
    fprintf(script, "%.9g %.9g ", histogram->edges[bin], histogram->edges[bin + 1]);
    fprintf(script, count > objects ? "%" PRId64 " " : "NaN ", count - objects);
    fprintf(script, objects ? "%" PRId64 " " : "NaN ", objects);
    if (count)
      fprintf(script, "%.9g %.9g\n", histogram->weights[bin], histogram->gradients[bin]);
    else
      fputs("NaN NaN\n", script);
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

/* Objects are a narrower bar in front of the background's: both can be read on a logarithmic axis. */
static void put_counts(FILE *script, const struct plot *plot) {
  const struct histogram *histogram = plot->histogram;
  char title[512];
  snprintf(title, sizeof title, "Gradient norms of %s %s, %" PRId32 " bins", grouped(histogram->elements).of,
           plot->element, histogram->bins);
  fputs("set origin 0,0\nset title ", script);
  put_quoted(script, title);
  fprintf(script,
          "\nset ylabel 'number of %s'\nset yrange [0.5:%s]\nset style fill solid 1\n"
          "set key top right vertical Left reverse samplen 1.5 font ',13'\n"
          "plot $bins using (($1+$2)/2):3:(0.92*($2-$1)) with boxes fc rgb '" COLOUR_BACKGROUND "' %s",
          plot->element, histogram->elements ? "*" : "10", histogram->objects ? "title 'background'" : "notitle");
  if (histogram->objects)
    fputs(", \\\n  $bins using (($1+$2)/2):4:(0.46*($2-$1)) with boxes fc rgb '" COLOUR_OBJECTS "' title 'objects'",
          script);
  if (histogram->unscored)
    fputs(
        ", \\\n  $unscored using 1:($3>0?$3:NaN):($2-$1):(0) with vectors nohead lw 2 lc rgb 'black' "
        "title 'all, if every score were 1'",
        script);
  fputs("\n", script);
}

static void put_weights(FILE *script, const struct plot *plot) {
  const struct histogram *histogram = plot->histogram;
  double low = 1, high = 1;
  for (int32_t bin = 0; bin < histogram->bins; bin++) {
    if (histogram->counts[bin] == 0) continue;
    widen(&low, &high, histogram->weights[bin]);
    widen(&low, &high, histogram->gradients[bin]);
    widen(&low, &high, (histogram->edges[bin] + histogram->edges[bin + 1]) / 2);
  }
  fputs("set title 'Weight and gradient by gradient norm'\nset ylabel 'weight; gradient norm'\n", script);
  put_decades(script, low, high);
  fputs("plot x with lines lw 1.5 dt 2 lc rgb '" COLOUR_UNWEIGHTED "' title ", script);
  put_quoted(script, plot->plain);
  fprintf(script,
          ", \\\n"
          "  $bins using 1:5:($2-$1):(0) with vectors nohead lw 3 lc rgb '" COLOUR_WEIGHT
          "' title 'weight', \\\n"
          "  $bins using (($1+$2)/2):6 with linespoints lw 1.5 pt 7 ps 0.5 lc rgb '" COLOUR_LOSS
          "' title '%s: weight times g'\n",
          tare_loss_name(plot->loss->kind));
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
      "END\nset title 'Gradient of one logit with each loss'\n"
      "set ylabel 'gradient / its mean over the batch'\n",
      script);
  put_decades(script, low, fmax(high, 1 / mean));
  fprintf(script, "plot x/%.9g with lines lw 2 dt 2 lc rgb '" COLOUR_UNWEIGHTED "' title 'cross-entropy', \\\n", mean);
  fputs("  $curves using 1:2 with linespoints lw 1.5 pt 5 ps 0.4 lc rgb '" COLOUR_FOCAL
        "' title 'focal, γ = 2, no α', \\\n"
        "  $curves using 1:3 with linespoints lw 2 pt 7 ps 0.5 lc rgb '" COLOUR_LOSS "' title 'GHM-C'\n",
        script);
}

/* "sigmoid-focal (alpha 0.25, gamma 2) on logits.npy", and below it what came out. */
static void put_heading(FILE *script, const struct plot *plot) {
  fprintf(script, "set label 1 '%s", tare_loss_name(plot->loss->kind));
  parameters_print(script, plot->loss);
  fputs(" on ", script);
  put_inside_quotes(script, plot->source);
  fputs("' at screen 0.5,0.965 center font ',16' noenhanced\nset label 2 ", script);
  put_quoted(script, plot->result);
  fputs(" at screen 0.5,0.918 center font ',13' noenhanced\n", script);
}

static void put_script(FILE *script, void *contents) {
  const struct plot *plot = contents;
  fputs(
      "set multiplot\n"
      "set border 3 lc rgb '#444444'\nset tics nomirror textcolor rgb '#222222'\n"
      "set grid ytics lc rgb '#dddddd' lw 0.7\n"
      "set xrange [0:1]\nset xtics 0.1\nset xlabel 'gradient norm g (0: right, 1: wrong)'\n"
      "set logscale y\nset format y '10^{%T}'\nset size 0.5,0.9\nset lmargin 10\nset rmargin 2\nset bmargin 4\nset "
      "tmargin 3\n",
      script);
  put_data(script, plot->histogram);
  if (plot->histogram->unscored) put_unscored(script, plot->histogram);
  put_heading(script, plot);
  put_counts(script, plot);
  fputs(
      "unset label 1\nunset label 2\nset origin 0.5,0\nset samples 400\n"
      "set key bottom right vertical Left reverse samplen 2 font ',13' noautotitle\n",
      script);
  if (plot->curves)
    put_curves(script, plot->curves);
  else
    put_weights(script, plot);
  fputs("unset multiplot\n", script);
}

int plot_draw(FILE *file, const char *path, struct plot *plot) {
  char title[512];
  snprintf(title, sizeof title, "%s on %s", tare_loss_name(plot->loss->kind), plot->source);
  return picture_draw(file, &(struct picture){path, title, 1120, 500, put_script, plot});
}
