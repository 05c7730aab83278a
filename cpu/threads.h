/* SPDX-License-Identifier: Apache-2.0 */
/* How pieces of work are shared among threads. */
#ifndef TARE_CPU_THREADS_H
#define TARE_CPU_THREADS_H

#include <stdint.h>

enum { TARE_MAX_THREADS = 1024 };

/** One piece of the work, on a thread that is numbered from 0. */
typedef void tare_piece_function(void *argument, int64_t piece, int32_t thread);

/** To be called before the first work: a forked child then works on one thread, where its parent's are gone. */
void tare_watch_forks(void);

/** The number of threads, at most `threads`, that share this number of pieces. */
int32_t tare_threads_for(int32_t threads, int64_t pieces);

/** The default number of threads of a context. */
int32_t tare_default_threads(void);

/** Calls `work` for every piece, on OpenMP's threads. Without OpenMP: on the caller's alone. */
void tare_share_by_openmp(int32_t threads, int64_t pieces, tare_piece_function *work, void *argument);

/** Calls `work` for every piece, on threads that are made for it and end with it. OpenMP's would spin for some
 *  milliseconds afterwards, on the cores that a BLAS's threads want next. */
void tare_share(int32_t threads, int64_t pieces, tare_piece_function *work, void *argument);

#endif
