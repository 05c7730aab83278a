/* SPDX-License-Identifier: Apache-2.0 */
#include "past_caches.h"

#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#ifdef __SSE2__
#include <emmintrin.h>

enum { LINE = 64 };

/** Bytes before the first whole line. */
static size_t head_of(const void *to, size_t bytes) {
  const size_t head = (size_t)(-(uintptr_t)to % LINE);
  return head < bytes ? head : bytes;
}

void tare_store_past_caches(void *to, const void *from, size_t bytes) {
  size_t at = head_of(to, bytes);
  memcpy(to, from, at);
  for (; at + LINE <= bytes; at += LINE) {
    const __m128i *line = (const void *)((const char *)from + at);
    __m128i *out = (void *)((char *)to + at);
    for (int i = 0; i < 4; i++) _mm_stream_si128(out + i, _mm_loadu_si128(line + i));
  }
  memcpy((char *)to + at, (const char *)from + at, bytes - at);
}

void tare_zero_past_caches(void *to, size_t bytes) {
  size_t at = head_of(to, bytes);
  memset(to, 0, at);
  for (; at + LINE <= bytes; at += LINE) {
    __m128i *out = (void *)((char *)to + at);
    for (int i = 0; i < 4; i++) _mm_stream_si128(out + i, _mm_setzero_si128());
  }
  memset((char *)to + at, 0, bytes - at);
}

void tare_end_past_caches(void) { _mm_sfence(); }

enum { STORES_PAST_CACHES = 1 };
#else
void tare_store_past_caches(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); }
void tare_zero_past_caches(void *to, size_t bytes) { memset(to, 0, bytes); }
void tare_end_past_caches(void) {}

enum { STORES_PAST_CACHES = 0 };
#endif

_Atomic int64_t tare_last_cache;

void tare_find_last_cache(void) {
  enum { USUAL = 32 << 20 };
  long found = 0;
#ifdef _SC_LEVEL3_CACHE_SIZE
  if (!atomic_load(&tare_last_cache)) found = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
  if (!atomic_load(&tare_last_cache)) atomic_store(&tare_last_cache, found > 0 ? found : USUAL);
}

/* The last cache may be one of several, each of some cores: as much again as cores usually have, 4 MB a thread. */
int32_t tare_exceeds_caches(double bytes, int32_t threads) {
  enum { OF_THREAD = 4 << 20 };
  return STORES_PAST_CACHES && bytes > (double)atomic_load(&tare_last_cache) + (double)threads * (double)OF_THREAD;
}
