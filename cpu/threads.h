/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How pieces of work are shared among threads.
 *
 * One pool of threads serves all contexts of the process. A context makes what is missing; the threads sleep while
 * there is no work, and never end. The caller works too, and takes whatever piece is next; it waits only for threads
 * that have taken a piece. So a thread that the system does not run, as other programs keep the cores busy, holds up
 * nobody. docs/decisions/0026-a-pool-of-threads.md has the reasons.
 */
#ifndef TARE_CPU_THREADS_H
#define TARE_CPU_THREADS_H

#include <stdint.h>

enum { TARE_MAX_THREADS = 1024 };

/** One piece of the work, on a thread that is numbered from 0. */
typedef void tare_piece_function(void *argument, int64_t piece, int32_t thread);

/** To be called before work for so many threads, the caller among them. No call makes threads afterwards, but for the
 *  first in a forked child, which has none of its parent's. */
void tare_start_threads(int32_t threads);

/** The number of threads, at most `threads`, that share this number of pieces. */
int32_t tare_threads_for(int32_t threads, int64_t pieces);

/** The default number of threads of a context: that of OMP_NUM_THREADS, or tare_processors(). */
int32_t tare_default_threads(void);

/** Calls `work` for every piece, on the caller and on threads of the pool, each with another number below `threads`. If
 *  the system made no more threads, on fewer. */
void tare_share(int32_t threads, int64_t pieces, tare_piece_function *work, void *argument);

#endif
