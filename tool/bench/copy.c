/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A plain copy by threads that wait between two barriers, as a loss's threads wait between two calls.
 */
#define _GNU_SOURCE
#include "copy.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "tool/base/problem.h"
#include "tool/base/stopwatch.h"

struct worker {
  struct copier *copier;
  int32_t number;
  pthread_t thread;
};

struct copier {
  int32_t threads; /* thread 0 is the caller */
  pthread_barrier_t start, end;
  bool over;
  char *to;
  const char *from;
  size_t bytes;
  struct worker workers[];
};

static void copy_part(const struct copier *copier, int32_t number) {
  size_t part = (copier->bytes / (size_t)copier->threads + 63) / 64 * 64;
  size_t first = part * (size_t)number;
  if (first >= copier->bytes) return;
  size_t length = number + 1 == copier->threads || copier->bytes - first < part ? copier->bytes - first : part;
  memcpy(copier->to + first, copier->from + first, length);
}

static void *work(void *argument) {
  struct worker *worker = argument;
  struct copier *copier = worker->copier;
  for (;;) {
    pthread_barrier_wait(&copier->start);
    if (copier->over) return NULL;
    copy_part(copier, worker->number);
    pthread_barrier_wait(&copier->end);
  }
}

struct copier *copier_new(int32_t threads) {
  struct copier *copier = calloc(1, sizeof *copier + (size_t)threads * sizeof(struct worker));
  if (!copier) {
    complain("out of memory");
    return NULL;
  }
  copier->threads = threads;
  pthread_barrier_init(&copier->start, NULL, (unsigned)threads);
  pthread_barrier_init(&copier->end, NULL, (unsigned)threads);
  for (int32_t number = 1; number < threads; number++) {
    copier->workers[number] = (struct worker){.copier = copier, .number = number};
    if (pthread_create(&copier->workers[number].thread, NULL, work, &copier->workers[number]) != 0) {
      complain("cannot start %d threads; use fewer with --threads", threads);
      exit(TOOL_FAILED); /* the threads that did start wait for one that never comes */
    }
  }
  return copier;
}

void copier_free(struct copier *copier) {
  if (!copier) return;
  copier->over = true;
  pthread_barrier_wait(&copier->start);
  for (int32_t number = 1; number < copier->threads; number++) pthread_join(copier->workers[number].thread, NULL);
  pthread_barrier_destroy(&copier->start);
  pthread_barrier_destroy(&copier->end);
  free(copier);
}

double copier_run(struct copier *copier, void *to, const void *from, size_t bytes) {
  copier->to = to;
  copier->from = from;
  copier->bytes = bytes;
  double before = seconds_now();
  pthread_barrier_wait(&copier->start);
  copy_part(copier, 0);
  pthread_barrier_wait(&copier->end);
  return seconds_now() - before;
}
