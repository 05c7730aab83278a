/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything that threads share in the library, from several threads at once, under ThreadSanitizer: the making of
 * contexts, texts of errors, the BLAS that is loaded once, the threads of a fused head, the program's own threads,
 * names, and a fork in between.
 * Every thread has a context of its own and must get the numbers that one thread alone gets.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tare.h"
#include "tests/support/region.h"

enum { THREADS = 4, ROUNDS = 6, ROWS = 700, CLASSES = 9, DIMENSIONS = 16, WORKSPACE = 1 << 20, LOSSES = 7 };

#define MUST(condition)                                                       \
  do {                                                                        \
    if (!(condition)) {                                                       \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      abort();                                                                \
    }                                                                         \
  } while (0)

static float logits[ROWS * CLASSES], targets[ROWS * CLASSES], features[ROWS * DIMENSIONS],
    weights[CLASSES * DIMENSIONS];
static int32_t labels[ROWS];
static bool has_blas;
static pthread_barrier_t start;

static void fill(void) {
  for (int i = 0; i < ROWS * CLASSES; i++) logits[i] = (float)(i * 37 % 101 - 60) / 8, targets[i] = (float)(i % 7) / 4;
  for (int i = 0; i < ROWS * DIMENSIONS; i++) features[i] = (float)(i * 29 % 33 - 16) / 8;
  for (int i = 0; i < CLASSES * DIMENSIONS; i++) weights[i] = (float)(i * 31 % 17 - 8) / 16;
  for (int i = 0; i < ROWS; i++) labels[i] = i * 7 % (CLASSES + 2) - 2;
}

/* ---- What one thread does ---------------------------------------------------------------------------------------- */

typedef struct answers {
  double losses[LOSSES], head[LOSSES];
  int64_t counted;
} answers;

static tare_context *make_context(int threads) {
  tare_context_options options;
  tare_context *context = NULL;
  tare_context_options_init(&options);
  options.device = TARE_DEVICE_CPU;
  options.threads = threads;
  MUST(tare_context_create(&context, &options) == TARE_STATUS_OK);
  return context;
}

static void make_batch(tare_batch *batch, tare_level *level, int32_t kind) {
  tare_batch_init(batch);
  tare_level_init_rows(level, ROWS, CLASSES);
  level->labels = labels;
  if (kind == TARE_LOSS_GHM_R) level->targets = targets;
  batch->levels = level;
  batch->level_count = 1;
  batch->classes = CLASSES;
}

static double evaluate(tare_context *context, int32_t kind, float *gradient, int64_t *counted) {
  tare_loss_spec loss;
  tare_batch batch;
  tare_level level;
  tare_output output;
  tare_counts counts;
  double sum = 0;
  tare_loss_spec_init(&loss, (tare_loss_kind)kind);
  make_batch(&batch, &level, kind);
  level.logits = logits;
  level.gradient = gradient;
  tare_output_init(&output);
  output.loss = &sum;
  output.loss_dtype = TARE_DTYPE_F64;
  output.counts = &counts;
  MUST(tare_evaluate(context, &loss, &batch, &output, NULL) == TARE_STATUS_OK);
  *counted += counts.counted;
  return sum;
}

static double evaluate_head(tare_context *context, int32_t kind, float *gradient) {
  tare_loss_spec loss;
  tare_batch batch;
  tare_level level;
  tare_output output;
  tare_linear linear;
  double sum = 0;
  tare_loss_spec_init(&loss, (tare_loss_kind)kind);
  make_batch(&batch, &level, kind);
  tare_output_init(&output);
  output.loss = &sum;
  output.loss_dtype = TARE_DTYPE_F64;
  tare_linear_init(&linear, DIMENSIONS);
  linear.features = features;
  linear.weights = weights;
  linear.features_gradient = gradient;
  const tare_status status = tare_linear_evaluate(context, &loss, &batch, &linear, &output, NULL);
  MUST(status == TARE_STATUS_OK || (status == TARE_STATUS_NO_BLAS && !has_blas));
  return sum;
}

/* A text belongs to its context, or to its thread. */
static void check_texts(tare_context *context, int number) {
  char mine[64];
  tare_context_options options;
  tare_context *none = NULL;
  tare_context_options_init(&options);
  options.threads = 2000 + number;
  snprintf(mine, sizeof mine, "threads is %d;", options.threads);
  MUST(tare_context_create(&none, &options) == TARE_STATUS_INVALID_ARGUMENT && none == NULL);
  MUST(tare_evaluate(context, NULL, NULL, NULL, NULL) == TARE_STATUS_INVALID_ARGUMENT);
  MUST(strstr(tare_error_text(context), "NULL") != NULL);
  MUST(strstr(tare_error_text(NULL), mine) != NULL);
}

static void work(answers *a, int number, int threads) {
  static _Thread_local float gradient[ROWS * (CLASSES > DIMENSIONS ? CLASSES : DIMENSIONS)];
  tare_context *context = make_context(threads);
  void *room = aligned_alloc(64, WORKSPACE);
  memset(a, 0, sizeof *a);
  MUST(room != NULL && tare_context_set_workspace(context, room, WORKSPACE) == TARE_STATUS_OK);
  for (int i = 0; i < LOSSES; i++) {
    const int32_t kind = tare_loss_kind_at(i);
    MUST(tare_loss_kind_from_name(tare_loss_name(kind)) == kind && tare_build_description()[0] != '\0');
    a->losses[i] = evaluate(context, kind, gradient, &a->counted);
    a->head[i] = evaluate_head(context, kind, gradient);
    check_texts(context, number);
  }
  tare_context_destroy(context);
  free(room);
}

/* ---- Many -------------------------------------------------------------------------------------------------------- */

static answers alone;

static void *run(void *argument) {
  const int number = *(const int *)argument;
  pthread_barrier_wait(&start);
  for (int round = 0; round < ROUNDS; round++) {
    answers mine;
    work(&mine, number, 1 + (number + round) % 3);
    MUST(memcmp(mine.losses, alone.losses, sizeof mine.losses) == 0 && mine.counted == alone.counted);
    if (has_blas) MUST(memcmp(mine.head, alone.head, sizeof mine.head) == 0);
  }
  return NULL;
}

static void check_child(void) {
  const pid_t child = fork();
  MUST(child >= 0);
  if (child == 0) {
    answers mine;
    int64_t counted = 0;
    static float gradient[ROWS * CLASSES];
    tare_context *context = make_context(2);
    mine.losses[0] = evaluate(context, tare_loss_kind_at(0), gradient, &counted);
    tare_context_destroy(context);
    _exit(memcmp(mine.losses, alone.losses, sizeof(double)) != 0);
  }
  int status = 0;
  MUST(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* A region of the program's own. */
static void run_on_two(void (*region)(void *), void *argument, unsigned threads, unsigned flags) {
  MUST(threads > 1 && flags == 0);
  region_run(1, region, argument);
}

static void change_threads(void) {
  tare_use_threads(run_on_two);
  check_child();
}

/* The first use of a BLAS: by one thread here, so that the others have something to compare with. */
static bool find_blas(void) {
  static float gradient[ROWS * DIMENSIONS];
  static _Alignas(64) char room[WORKSPACE];
  tare_context *context = make_context(1);
  MUST(tare_context_set_workspace(context, room, WORKSPACE) == TARE_STATUS_OK);
  const bool found = evaluate_head(context, TARE_LOSS_SIGMOID_CE, gradient) != 0;
  tare_context_destroy(context);
  return found;
}

/* In a process of its own: the BLAS is loaded, and all else begins, in several threads at once. */
static void *begin(void *argument) {
  answers mine;
  pthread_barrier_wait(&start);
  work(&mine, *(const int *)argument, 2);
  return NULL;
}

static void run_all(void *(*what)(void *), void (*meanwhile)(void)) {
  pthread_t threads[THREADS];
  int numbers[THREADS];
  pthread_barrier_init(&start, NULL, THREADS + 1);
  for (int i = 0; i < THREADS; i++) {
    numbers[i] = i;
    MUST(pthread_create(&threads[i], NULL, what, &numbers[i]) == 0);
  }
  pthread_barrier_wait(&start);
  if (meanwhile != NULL) meanwhile();
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  pthread_barrier_destroy(&start);
}

int main(int argc, char **argv) {
  fill();
  if (argc > 1 && strcmp(argv[1], "begin") == 0) {
    run_all(begin, NULL);
  } else {
    has_blas = find_blas();
    work(&alone, 99, 1);
    run_all(run, check_child);
    run_all(run, change_threads);
  }
  printf("%d threads%s\n", THREADS, argc > 1 || has_blas ? "" : "; no BLAS, no fused heads");
  return 0;
}
