/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "threads.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "processors.h"
#include "tare.h"

/** Work that is being shared. It is in the caller's frame: nobody touches it after the caller has left. */
typedef struct sharing {
  tare_piece_function *work;
  void *argument;
  tare_ranges ranges; /* of the pieces */
  pthread_t caller;
  int64_t taken;           /* pieces, by the caller, in so much time of a processor */
  double seconds;          /* of a processor */
  _Atomic int32_t working; /* threads of the pool that have joined and not left */
  int32_t places;          /* threads that may still join; under the pool's lock */
  struct sharing *next;
} sharing;

static struct pool {
  pthread_mutex_t lock;
  pthread_cond_t offered, left; /* there are places; a thread has left a sharing */
  sharing *first;               /* sharings that have places */
  int32_t threads, asleep;
  int was_forked; /* and has its parent's contexts, but none of their threads */
} pool = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL, 0, 0, 0};

/* Forks. A child has none of its parent's other threads: its pool is empty. */

static void before_fork(void) { pthread_mutex_lock(&pool.lock); }
static void after_fork_in_parent(void) { pthread_mutex_unlock(&pool.lock); }
static void after_fork_in_child(void) {
  pool = (struct pool){PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL, 0, 0, 1};
}
static pthread_once_t fork_handlers_once = PTHREAD_ONCE_INIT;
static void install_fork_handlers(void) { pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child); }

/* Numbers of threads. */

int32_t tare_threads_for(int32_t threads, int64_t pieces) {
  if (pieces < 2) return 1;
  return pieces < threads ? (int32_t)pieces : threads;
}

/** The first number of OMP_NUM_THREADS, which may be a list; 0 if there is none. */
static long threads_of_environment(void) {
  const char *text = getenv("OMP_NUM_THREADS");
  char *end = NULL;
  const long threads = text ? strtol(text, &end, 10) : 0;
  return text && end != text && threads > 0 ? threads : 0;
}

int32_t tare_default_threads(void) {
  const long wanted = threads_of_environment(), threads = wanted ? wanted : tare_processors();
  return threads > TARE_MAX_THREADS ? TARE_MAX_THREADS : (int32_t)threads;
}

/* The pool. */

static _Atomic int32_t nodes = 1; /* of the machine */

static double seconds_of(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/** Returns how many it took. A thread is numbered as its own range is, so it has the same scratch in each call. One
 *  thread too many takes none. */
static int64_t take_pieces(sharing *s) {
  int64_t taken = 0;
  const int32_t own = tare_own_range(&s->ranges, tare_current_place(atomic_load(&nodes)));
  int32_t range = own;
  for (int64_t piece; own >= 0 && (piece = tare_take_piece(&s->ranges, &range)) >= 0; taken++)
    s->work(s->argument, piece, own);
  return taken;
}

static void take_pieces_as_caller(sharing *s) {
  const double start = seconds_of(CLOCK_THREAD_CPUTIME_ID);
  s->taken = take_pieces(s);
  s->seconds = seconds_of(CLOCK_THREAD_CPUTIME_ID) - start;
}

/** Wakes up to two threads if there are places. Each that joins does the same, so that many are awake soon. */
static void wake_some(void) {
  if (pool.first && pool.asleep > 0) pthread_cond_signal(&pool.offered);
  if (pool.first && pool.asleep > 1) pthread_cond_signal(&pool.offered);
}

static void *serve(void *nothing) {
  pthread_mutex_lock(&pool.lock);
  for (;;) {
    sharing *s = pool.first;
    if (!s) {
      pool.asleep++;
      pthread_cond_wait(&pool.offered, &pool.lock);
      pool.asleep--;
      continue;
    }
    if (--s->places == 0) pool.first = s->next;
    atomic_fetch_add(&s->working, 1);
    wake_some();
    pthread_mutex_unlock(&pool.lock);
    take_pieces(s);
    pthread_mutex_lock(&pool.lock);
    if (atomic_fetch_sub(&s->working, 1) == 1) pthread_cond_broadcast(&pool.left);
  }
  return nothing; /* not reached */
}

/** Makes threads until there are `wanted`. They handle no signals, which are the program's. */
static void make_threads(int32_t wanted) {
  pthread_attr_t attributes;
  sigset_t all, before;
  if (pool.threads >= wanted || pthread_attr_init(&attributes) != 0) return;
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  for (pthread_t made; pool.threads < wanted && pthread_create(&made, &attributes, serve, NULL) == 0; pool.threads++) {
#ifdef __linux__
    pthread_setname_np(made, "tare");
#endif
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
}

void tare_start_threads(int32_t threads) {
  pthread_once(&fork_handlers_once, install_fork_handlers);
  atomic_store(&nodes, tare_node_count(""));
  pthread_mutex_lock(&pool.lock);
  make_threads(threads - 1);
  pthread_mutex_unlock(&pool.lock);
}

static void offer(sharing *s, int32_t places) {
  pthread_mutex_lock(&pool.lock);
  if (pool.was_forked) make_threads(places);
  s->places = places < pool.threads ? places : pool.threads;
  if (s->places) {
    sharing **end = &pool.first;
    while (*end) end = &(*end)->next;
    *end = s;
    wake_some();
  }
  pthread_mutex_unlock(&pool.lock);
}

static void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/** Lets nobody join any more, and waits for those that have: awake for some microseconds, which the last piece often
 *  takes, then asleep. */
static void withdraw(sharing *s) {
  pthread_mutex_lock(&pool.lock);
  for (sharing **at = &pool.first; *at; at = &(*at)->next)
    if (*at == s) {
      *at = s->next;
      break;
    }
  pthread_mutex_unlock(&pool.lock);
  for (int i = 0; i < 500 && atomic_load(&s->working); i++) pause_briefly();
  pthread_mutex_lock(&pool.lock);
  while (atomic_load(&s->working)) pthread_cond_wait(&pool.left, &pool.lock);
  pthread_mutex_unlock(&pool.lock);
}

/** On the caller and on threads of the pool. */
static void share_in_pool(sharing *s, int32_t others) {
  offer(s, others);
  take_pieces_as_caller(s);
  withdraw(s);
}

/* The program's own threads. */

static _Atomic(tare_parallel_function *) program_threads;

void tare_use_threads(tare_parallel_function *parallel) {
  pthread_once(&fork_handlers_once, install_fork_handlers);
  atomic_store(&program_threads, parallel);
}

static void join_region(void *argument) {
  sharing *s = argument;
  if (pthread_equal(s->caller, pthread_self()))
    take_pieces_as_caller(s);
  else
    take_pieces(s);
}

/** On a team of always the same size, because libgomp ends the threads that a smaller team leaves out, and makes them
 *  anew for the next larger one. */
static void share_in_region(sharing *s, int32_t threads, tare_parallel_function *parallel) {
  parallel(join_region, s, (unsigned)threads, 0);
  take_pieces(s); /* if the function has run nothing */
}

/* Whether it pays. A thread that has taken a piece and is not run holds up the call, and one that runs in the caller's
 * place does so too. Where a call takes longer than the processor would for all pieces on the caller alone, the next
 * calls for the same work share nothing: one, then 3, 7, ... 63 of them, until it pays again. */

typedef struct experience {
  _Atomic int32_t alone, last_alone; /* calls still to come, and how many there were */
} experience;

static experience *experience_with(tare_piece_function *work) {
  static experience all[16]; /* two kinds of work may share one */
  return &all[((uintptr_t)work >> 4) % (sizeof all / sizeof *all)];
}

static int pays(experience *e) {
  if (atomic_load(&e->alone) <= 0) return 1;
  atomic_fetch_sub(&e->alone, 1);
  return 0;
}

static void learn(experience *e, double took, double would_take) {
  if (took < 0.9 * would_take) atomic_store(&e->last_alone, 0);
  if (took < 1.2 * would_take) return;
  const int32_t last = atomic_load(&e->last_alone), next = last < 63 ? 2 * last + 1 : 63;
  atomic_store(&e->last_alone, next);
  atomic_store(&e->alone, next);
}

void tare_share(int32_t threads, int64_t pieces, tare_piece_function *work, void *argument) {
  const int32_t others = tare_threads_for(threads, pieces) - 1;
  experience *e = experience_with(work);
  if (!others || !pays(e)) {
    for (int64_t piece = 0; piece < pieces; piece++) work(argument, piece, 0);
    return;
  }
  sharing s; /* not cleared: ranges have room for many threads */
  s.work = work, s.argument = argument, s.caller = pthread_self();
  s.taken = 0, s.seconds = 0, s.places = 0, s.next = NULL;
  atomic_init(&s.working, 0);
  tare_ranges_make(&s.ranges, pieces, others + 1);
  tare_parallel_function *parallel = pool.was_forked ? NULL : atomic_load(&program_threads);
  const double start = seconds_of(CLOCK_MONOTONIC);
  if (parallel)
    share_in_region(&s, threads, parallel);
  else
    share_in_pool(&s, others);
  if (s.taken) learn(e, seconds_of(CLOCK_MONOTONIC) - start, s.seconds * (double)pieces / (double)s.taken);
}
