/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The benchmark as a picture: a bar for each loss, and a line for the plain copy of the same bytes. GHM-R has another
 * batch; it is drawn only if it is alone.
 */
#define _GNU_SOURCE
#include "bench.h"
#include "tool/base/convert.h"
#include "tool/base/picture.h"
#include "tool/report.h"

static bool is_drawn(const struct bench *bench, int32_t index) {
  return bench->lane_count == 1 || bench->lanes[index].contender.loss.kind != TARE_LOSS_GHM_R;
}

static int bars_of(const struct bench *bench) {
  int bars = 0;
  for (int32_t index = 0; index < bench->lane_count; index++) bars += is_drawn(bench, index);
  return bars;
}

static int height_of(const struct bench *bench) { return 170 + 24 * bars_of(bench); }

/* Columns: place, median, 20th and 80th percentile, in ns an element. The first is on top. */
static void put_bars(FILE *script, struct bench *bench) {
  int place = bars_of(bench);
  fputs("$bars << END\n", script);
  for (int32_t index = 0; index < bench->lane_count; index++) {
    struct lane *lane = &bench->lanes[index];
    if (!is_drawn(bench, index)) continue;
    const double to_ns = 1e9 / ((double)bench->batch.rows * (double)lane->run.batch.classes);
    fprintf(script, "%d %.6g %.6g %.6g\n", place--, times_quantile(&lane->times, 0.5) * to_ns,
            times_quantile(&lane->times, 0.2) * to_ns, times_quantile(&lane->times, 0.8) * to_ns);
  }
  fputs("END\nset ytics (", script);
  place = bars_of(bench);
  for (int32_t index = 0; index < bench->lane_count; index++) {
    if (!is_drawn(bench, index)) continue;
    put_quoted(script, bench->lanes[index].contender.label);
    fprintf(script, place == 1 ? " 1" : " %d, ", place);
    place--;
  }
  fputs(")\n", script);
}

struct title {
  char of[512];
};

static struct title title_of(const struct bench *bench) {
  struct title title;
  snprintf(title.of, sizeof title.of, "Loss and gradient of %s × %s %s (%s, caches %s)", grouped(bench->batch.rows).of,
           grouped(bench->batch.classes).of, dtype_name(bench->batch.dtype), bench->options.distribution_text,
           bench_is_cold(bench) ? "cold" : "warm");
  return title;
}

static void put_title(FILE *script, struct bench *bench) {
  const tare_context_description *about = &bench->device.about;
  char title[512], threads[32] = "";
  if (!device_is_gpu(&bench->device))
    snprintf(threads, sizeof threads, ", %d thread%s", about->threads, about->threads == 1 ? "" : "s");
  fputs("set label 2 ", script);
  put_quoted(script, title_of(bench).of);
  fprintf(script, " at screen 0.5,%g center font ',16' noenhanced\nset label 1 ", 1 - 26.0 / height_of(bench));
  const struct noise noise = times_noise(&bench->copies);
  snprintf(title, sizeof title, "on %s, %s%s; %lld rounds%s", about->device_name, about->instruction_set, threads,
           (long long)bench->rounds,
           noise.known && !noise.trusted ? "; the machine was busy: do not trust the times" : "");
  put_quoted(script, title);
  fprintf(script, " at screen 0.5,%g center font ',13' noenhanced\n", 1 - 50.0 / height_of(bench));
}

static void put_script(FILE *script, void *contents) {
  struct bench *bench = contents;
  const double elements = (double)bench->batch.rows * (double)bench->batch.classes;
  const double copy = times_quantile(&bench->copies, 0.5) / elements * 1e9;
  put_title(script, bench);
  put_bars(script, bench);
  fprintf(script,
          "set border 3 lc rgb '#444444'\nset tics nomirror textcolor rgb '#222222'\nset ytics noenhanced\n"
          "set grid xtics lc rgb '#dddddd' lw 0.7\nset xrange [0:*]\nset yrange [0.3:%g]\n"
          "set xlabel 'ns per element: median, and 20th to 80th percentile'\nset style fill solid 1\n"
          "set lmargin 34\nset rmargin 4\nset tmargin 5\nset bmargin 5\n"
          "set key at screen 0.97,%g top right Left reverse samplen 2 font ',13'\n"
          "set arrow 1 from %.6g,graph 0 to %.6g,graph 1 nohead lw 2 dt '.' lc rgb 'black' front\n"
          "plot $bars using ($2/2):1:($2/2):(0.32) with boxxyerror fc rgb '" COLOUR_LOSS
          "' notitle, \\\n"
          "  $bars using 2:1:3:4 with xerrorbars pt -1 lw 1.5 lc rgb 'black' notitle, \\\n"
          "  NaN with lines lw 2 dt '.' lc rgb 'black' title 'a plain copy of the logits'\n",
          bars_of(bench) + 0.7, 1 - 62.0 / height_of(bench), copy, copy);
}

int bench_chart(FILE *file, struct bench *bench) {
  const struct title title = title_of(bench);
  return picture_draw(file, &(struct picture){bench->options.plot, title.of, 900, height_of(bench), put_script, bench});
}
