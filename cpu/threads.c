/* SPDX-License-Identifier: Apache-2.0 */
/* How pieces of work are shared among threads: OpenMP's, or threads that are made for a call. */
#include "threads.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#ifdef _OPENMP
#include <omp.h>
#endif

/* An OpenMP runtime's threads do not survive a fork. A child that waits for them waits for ever. A process that had one
 * thread when it forked had none to lose. */
static int had_threads, in_forked_child;
static void before_fork(void) {
  struct stat tasks; /* two links, and one more for each thread */
  had_threads = stat("/proc/self/task", &tasks) != 0 || tasks.st_nlink > 3;
}
static void after_fork_in_child(void) { in_forked_child |= had_threads; }
static pthread_once_t fork_handler_once = PTHREAD_ONCE_INIT;
static void install_fork_handler(void) { pthread_atfork(before_fork, NULL, after_fork_in_child); }

void tare_watch_forks(void) { pthread_once(&fork_handler_once, install_fork_handler); }

int32_t tare_threads_for(int32_t threads, int64_t pieces) {
  if (in_forked_child || pieces < 2) return 1;
  return pieces < threads ? (int32_t)pieces : threads;
}

int32_t tare_default_threads(void) {
#ifdef _OPENMP
  const int threads = omp_get_max_threads();
  return threads > TARE_MAX_THREADS ? TARE_MAX_THREADS : threads;
#else
  return 1;
#endif
}

static int32_t thread_number(void) {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

void tare_share_by_openmp(int32_t threads, int64_t pieces, tare_piece_function *work, void *argument) {
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic) num_threads(tare_threads_for(threads, pieces))
#else
  (void)threads;
#endif
  for (int64_t piece = 0; piece < pieces; piece++) work(argument, piece, thread_number());
}

typedef struct sharing {
  tare_piece_function *work;
  void *argument;
  int64_t pieces;
  _Atomic int64_t next_piece;
  _Atomic int32_t next_thread;
} sharing;

static void *take_pieces(void *shared) {
  sharing *s = shared;
  const int32_t thread = atomic_fetch_add(&s->next_thread, 1);
  for (int64_t piece; (piece = atomic_fetch_add(&s->next_piece, 1)) < s->pieces;) s->work(s->argument, piece, thread);
  return NULL;
}

void tare_share(int32_t threads, int64_t pieces, tare_piece_function *work, void *argument) {
  sharing s = {work, argument, pieces, 0, 0};
  pthread_t made[TARE_MAX_THREADS];
  const int32_t wanted = tare_threads_for(threads, pieces);
  int32_t count = 0;
  while (count + 1 < wanted && pthread_create(&made[count], NULL, take_pieces, &s) == 0) count++;
  take_pieces(&s);
  for (int32_t t = 0; t < count; t++) pthread_join(made[t], NULL);
}
