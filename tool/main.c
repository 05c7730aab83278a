/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tare`: the command-line tool. Finds the verb; everything else is the verb's.
 */
#define _GNU_SOURCE
#include <argp.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "report.h"
#include "tare.h"
#include "tool/base/nearest.h"
#include "tool/base/outfile.h"
#include "tool/base/problem.h"
#include "tool/base/progress.h"
#include "tool/base/signals.h"
#include "verbs.h"

static const struct verb {
  const char *name, *title; /* the title is argv[0] of the verb, and begins its error lines */
  int (*run)(int argc, char **argv);
  const char *what;
} verbs[] = {
    {"demo", "tare demo", verb_demo,
     "every loss on a synthetic batch of 100,000 anchors, and a histogram of gradient norms"},
    {"eval", "tare eval", verb_eval, "one loss and its gradient on your own arrays (.npy)"},
    {"mask", "tare mask", verb_mask, "dice, Tversky or focal loss of masks, on your own arrays (.npy)"},
    {"weights", "tare weights", verb_weights, "class-balanced weights from counts (.npy, .csv)"},
    {"bench", "tare bench", verb_bench, "the speed of the losses on this machine, compared with a plain copy"},
    {"info", "tare info", verb_info, "devices, instruction set, build, versions"},
};
enum { VERBS = sizeof verbs / sizeof verbs[0] };

static void print_usage(FILE *stream) {
  fprintf(stream, "tare: loss kernels for class-imbalanced dense detection, on the command line\n\n");
  for (int index = 0; index < VERBS; index++) fprintf(stream, "  tare %-8s %s\n", verbs[index].name, verbs[index].what);
  fprintf(stream, "\ntare VERB --help shows the options of a verb. tare --version shows the version.\n");
}

static void print_version(FILE *stream, struct argp_state *state) {
  (void)state;
  int32_t version = tare_version();
  fprintf(stream, "tare %d.%d.%d\n", version / 10000, version / 100 % 100, version % 100);
}

static int run_verb(const struct verb *verb, int argc, char **argv) {
  static char title[32];
  snprintf(title, sizeof title, "%s", verb->title);
  argv[0] = title;
  problem_prefix(verb->title);
  int status = verb->run(argc, argv);
  progress_end();
  outfile_discard();
  return status;
}

/* If a standard stream is closed, the next file to open would get its number, and the report would go into that
 * file. */
static void hold_standard_streams(void) {
  for (int descriptor = 0; descriptor <= 2; descriptor++) {
    if (fcntl(descriptor, F_GETFD) >= 0) continue;
    int held = open("/dev/null", descriptor == 2 ? O_WRONLY : O_RDONLY); /* so that printing fails */
    if (held != descriptor) _exit(TOOL_FAILED);
  }
}

/* For every exit, also after argp has printed help: no temporary file remains, and lost output is a failure. */
static void end(void) {
  progress_end();
  outfile_discard();
  if (close_output() != TOOL_OK) _exit(TOOL_FAILED);
}

int main(int argc, char **argv) {
  hold_standard_streams();
  signals_watch();
  atexit(end);
  argp_program_version_hook = print_version;
  const char *word = argc > 1 ? argv[1] : "--help";
  for (int index = 0; index < VERBS; index++) {
    if (strcmp(word, verbs[index].name) == 0) return run_verb(&verbs[index], argc - 1, argv + 1);
  }
  if (argc < 2) {
    print_usage(stderr);
    return TOOL_MISUSED;
  }
  if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0) {
    print_usage(stdout);
    return finish_output();
  }
  if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0) {
    print_version(stdout, NULL);
    return finish_output();
  }
  struct nearest nearest = {.word = word};
  for (int index = 0; index < VERBS; index++) nearest_consider(&nearest, verbs[index].name);
  return misuse("'%s' is not a verb%s", word, nearest_hint(&nearest, ""));
}
