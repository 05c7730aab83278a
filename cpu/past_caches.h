/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stores past the caches, for gradients that no cache holds. An ordinary store reads its line from memory first. Where
 * it need not, a gradient with an array of its own takes two thirds of the traffic. On x86-64; elsewhere stores are
 * ordinary.
 */
#ifndef TARE_CPU_PAST_CACHES_H
#define TARE_CPU_PAST_CACHES_H

#include <stddef.h>
#include <stdint.h>

/** The last cache, in bytes; 0: not known yet. Tests make it small. */
extern _Atomic int64_t tare_last_cache;

/** Finds the last cache out, if it is not known. Not for a call: the question takes microseconds. */
void tare_find_last_cache(void);

/** Whether caches certainly do not hold so many bytes of a call. */
int32_t tare_exceeds_caches(double bytes, int32_t threads);

/** Copies; whole cache lines go past the caches. */
void tare_store_past_caches(void *to, const void *from, size_t bytes);

/** The same of zeros. */
void tare_zero_past_caches(void *to, size_t bytes);

/** To be called before another thread may read what was stored. */
void tare_end_past_caches(void);

#endif
