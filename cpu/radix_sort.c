/* SPDX-License-Identifier: Apache-2.0 */
#include "radix_sort.h"

#include <string.h>

#include "threads.h"

enum { MOST_PASSES = 6, MOST_RANGES = 64, LEAST_OF_RANGE = 8192, LINE = 64 };

/** More ranges than threads: one that is not run for a while leaves its range to others. */
int32_t tare_sort_tables(int32_t threads) {
  const int32_t ranges = 2 * threads < MOST_RANGES ? 2 * threads : MOST_RANGES;
  return ranges < MOST_PASSES ? MOST_PASSES : ranges;
}

static int32_t ranges_of(const tare_sort *sort) {
  const int64_t most = sort->n / LEAST_OF_RANGE, tables = tare_sort_tables(sort->threads);
  if (sort->threads == 1 || most < 2) return 1;
  return (int32_t)(most < tables ? most : tables);
}

/** A pass by one digit. The first one leaves words out. */
typedef struct digit_pass {
  const uint64_t *from;
  uint64_t *to;
  int64_t n;
  int32_t ranges, shift, leaves_out;
  uint64_t mask;
  tare_digit_table *tables; /* of each range */
} digit_pass;

static int64_t start_of(const digit_pass *pass, int64_t range) {
  return pass->n / pass->ranges * range + pass->n % pass->ranges * range / pass->ranges;
}

static void count_range(void *argument, int64_t range, int32_t thread) {
  const digit_pass *pass = argument;
  uint64_t *count = pass->tables[range].of;
  (void)thread;
  memset(count, 0, sizeof pass->tables->of);
  const int64_t end = start_of(pass, range + 1);
  for (int64_t i = start_of(pass, range); i < end; i++)
    if (pass->from[i] != TARE_NO_WORD) count[pass->from[i] >> pass->shift & pass->mask]++;
}

/** Each digit's words fill one line of memory after another. The line after the next is asked for early: the machine
 *  itself does not foresee so many streams. */
static inline __attribute__((always_inline)) void move_words(const digit_pass *pass, int64_t range, int leaves_out) {
  const uint64_t *from = pass->from, mask = pass->mask;
  uint64_t *next = pass->tables[range].of, *to = pass->to;
  const int32_t shift = pass->shift;
  const int64_t start = start_of(pass, range), end = start_of(pass, range + 1);
  for (int64_t i = start; i < end; i++) {
    if (leaves_out && from[i] == TARE_NO_WORD) continue;
    uint64_t *const at = to + next[from[i] >> shift & mask]++;
    *at = from[i];
    __builtin_prefetch((const char *)at + 2 * LINE, 1);
  }
}

static void move_range(void *argument, int64_t range, int32_t thread) {
  const digit_pass *pass = argument;
  (void)thread;
  if (pass->leaves_out)
    move_words(pass, range, 1);
  else
    move_words(pass, range, 0);
}

/** The digits of all passes, where there is one range: the later passes have the same words. */
static void count_passes(const tare_sort *sort, int32_t width, int32_t passes) {
  const uint64_t *word = sort->word, mask = (UINT64_C(1) << width) - 1;
  memset(sort->tables, 0, (size_t)passes * sizeof *sort->tables);
  for (int64_t i = 0; i < sort->n; i++) {
    if (word[i] == TARE_NO_WORD) continue;
    uint64_t rest = word[i] >> sort->first_bit;
    for (int32_t p = 0; p < passes; p++, rest >>= width) sort->tables[p].of[rest & mask]++;
  }
}

/** Counts become starts. Returns how many words there are; 0 where all have the same digit. */
static int64_t find_starts(const digit_pass *pass) {
  uint64_t start[TARE_DIGITS] = {0}, sum = 0, most = 0;
  const int32_t digits = (int32_t)pass->mask + 1;
  for (int32_t r = 0; r < pass->ranges; r++)
    for (int32_t d = 0; d < digits; d++) start[d] += pass->tables[r].of[d];
  for (int32_t d = 0; d < digits; d++) {
    const uint64_t count = start[d];
    most = count > most ? count : most;
    start[d] = sum;
    sum += count;
  }
  for (int32_t r = 0; r < pass->ranges; r++)
    for (int32_t d = 0; d < digits; d++) {
      const uint64_t count = pass->tables[r].of[d];
      pass->tables[r].of[d] = start[d];
      start[d] += count;
    }
  return most == sum && !pass->leaves_out ? 0 : (int64_t)sum;
}

void tare_sort_words(tare_sort *sort) {
  const int32_t bits = 64 - sort->first_bit, passes = (bits + TARE_DIGIT_BITS - 1) / TARE_DIGIT_BITS;
  const int32_t width = (bits + passes - 1) / passes, ranges = ranges_of(sort);
  if (ranges == 1) count_passes(sort, width, passes);
  for (int32_t p = 0; p < passes; p++) {
    uint64_t *const from = sort->word;
    digit_pass pass = {.from = from,
                       .to = sort->spare,
                       .n = sort->n,
                       .ranges = ranges,
                       .shift = sort->first_bit + p * width,
                       .leaves_out = p == 0,
                       .mask = (UINT64_C(1) << width) - 1,
                       .tables = ranges == 1 ? sort->tables + p : sort->tables};
    if (ranges > 1) tare_share(sort->threads, ranges, count_range, &pass);
    const int64_t n = find_starts(&pass);
    if (p == 0) sort->n = n;
    if (n == 0) continue; /* nothing would move */
    tare_share(sort->threads, ranges, move_range, &pass);
    sort->word = sort->spare;
    sort->spare = from;
  }
}
