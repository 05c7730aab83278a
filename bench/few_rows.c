/* SPDX-License-Identifier: Apache-2.0 */
/*
 * few_rows: what a call of few rows costs beside its elements. Loss and gradient of 50 x 8 logits in C, on contexts of
 * one thread and of two: the time of a call, that of 400 elements in a batch of 50,000 rows on one thread, and the
 * rest. ns, the least of 3,000 times 10 calls.
 *
 *     gcc -O2 -Iinclude bench/few_rows.c -o few_rows -Lbuild -ltare -Wl,-rpath,$PWD/build && ./few_rows
 */
#include <stdio.h>
#include <time.h>

#include "tare.h"

enum { CLASSES = 8, FEW = 50, MANY = 50000, CALLS = 10 };

typedef struct loss_case {
  const char *name;
  tare_loss_kind kind;
} loss_case;

static const loss_case cases[] = {{"sigmoid-ce", TARE_LOSS_SIGMOID_CE},
                                  {"sigmoid-focal", TARE_LOSS_SIGMOID_FOCAL},
                                  {"softmax-ce", TARE_LOSS_SOFTMAX_CE},
                                  {"ghm-c", TARE_LOSS_GHM_C}};

static float logits[MANY * CLASSES], gradient[MANY * CLASSES], loss;
static int32_t labels[MANY];

static double nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static tare_context *make_context(int threads) {
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = TARE_DEVICE_CPU;
  options.threads = threads;
  tare_context *context = NULL;
  if (tare_context_create(&context, &options) != TARE_STATUS_OK) fprintf(stderr, "%s\n", tare_error_text(NULL));
  return context;
}

/** Time of a call, or below 0 if it fails. */
static double time_call(tare_context *context, tare_loss_kind kind, int64_t rows, int rounds) {
  tare_loss_spec spec;
  tare_level level;
  tare_batch batch;
  tare_output output;
  tare_loss_spec_init(&spec, kind);
  tare_level_init_rows(&level, rows, CLASSES);
  tare_batch_init(&batch);
  tare_output_init(&output);
  level.logits = logits, level.gradient = gradient, level.labels = labels;
  batch.levels = &level, batch.level_count = 1, batch.classes = CLASSES;
  output.loss = &loss;
  double least = 1e30;
  for (int round = 0; round < rounds; round++) {
    const double start = nanoseconds();
    for (int k = 0; k < CALLS; k++)
      if (tare_evaluate(context, &spec, &batch, &output, NULL) != TARE_STATUS_OK) return -1;
    const double took = (nanoseconds() - start) / CALLS;
    least = took < least ? took : least;
  }
  return least;
}

int main(void) {
  tare_context *one = make_context(1), *two = make_context(2);
  if (!one || !two) return 1;
  for (int i = 0; i < MANY * CLASSES; i++) logits[i] = -4.6F + (float)(i % 97) / 40;
  printf("%-14s %8s %8s %8s %8s\n", "loss", "1 thread", "2", "elements", "the rest");
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    const int is_softmax = cases[k].kind == TARE_LOSS_SOFTMAX_CE;
    for (int i = 0; i < MANY; i++) labels[i] = is_softmax || i % 97 == 3 ? i % CLASSES : -1;
    const double few = time_call(one, cases[k].kind, FEW, 3000), on_two = time_call(two, cases[k].kind, FEW, 3000);
    const double elements = time_call(one, cases[k].kind, MANY, 5) * FEW / MANY;
    printf("%-14s %8.0f %8.0f %8.0f %8.0f\n", cases[k].name, few, on_two, elements, few - elements);
  }
  tare_context_destroy(one);
  tare_context_destroy(two);
  return 0;
}
