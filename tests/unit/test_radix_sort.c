/* SPDX-License-Identifier: Apache-2.0 */
/* The sort of words: in order, stable, without those of all ones, and the same on any number of threads. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/radix_sort.h"
#include "cpu/threads.h"
#include "support/random.h"

enum { MOST = 30000 };

typedef enum drawn { ANY, EQUAL, FEW, LEFT_OUT, NONE_LEFT, DRAWN } drawn;

static int32_t first_bit;

/* What words are sorted by; words of equal digits keep their order, which their last bits tell. */
static int by_digits(const void *a, const void *b) {
  const uint64_t x = *(const uint64_t *)a >> first_bit, y = *(const uint64_t *)b >> first_bit;
  if (x != y) return x < y ? -1 : 1;
  return *(const uint64_t *)a < *(const uint64_t *)b ? -1 : *(const uint64_t *)a > *(const uint64_t *)b;
}

static uint64_t draw(drawn how, int64_t i, random_source *source) {
  const uint64_t any = (uint64_t)(random_uniform(source) * 0x1p53) << 11;
  const uint64_t place = first_bit ? (uint64_t)i : 0, top = any >> first_bit << first_bit;
  if (how == NONE_LEFT || (how == LEFT_OUT && i % 3 == 1)) return TARE_NO_WORD;
  if (how == EQUAL) return UINT64_C(5) << 60 | place;
  if (how == FEW) return any >> 62 << 62 | place;
  return top | place;
}

static void check(int64_t n, int32_t bit, drawn how, int32_t threads) {
  static uint64_t word[MOST], spare[MOST], wanted[MOST];
  random_source source = random_from((uint64_t)n + how);
  int64_t kept = 0;
  first_bit = bit;
  for (int64_t i = 0; i < n; i++) {
    word[i] = draw(how, i, &source);
    if (word[i] != TARE_NO_WORD) wanted[kept++] = word[i];
  }
  qsort(wanted, (size_t)kept, sizeof *wanted, by_digits);
  tare_digit_table *tables = malloc((size_t)tare_sort_tables(threads) * sizeof *tables);
  tare_sort sort = {threads, bit, n, word, spare, tables};
  tare_sort_words(&sort);
  free(tables);
  cr_assert_eq(sort.n, kept);
  cr_assert((sort.word == word && sort.spare == spare) || (sort.word == spare && sort.spare == word));
  cr_assert_eq(memcmp(sort.word, wanted, (size_t)kept * sizeof *wanted), 0, "%lld words by bits from %d on, drawn %d",
               (long long)n, bit, (int)how);
}

Test(radix_sort, words_are_in_order) {
  static const int64_t sizes[] = {0, 1, 100, 16383, 16384, MOST};
  static const int32_t bits[] = {0, 32, 33, 45, 48};
  static const int32_t threads[] = {1, 2, 7};
  tare_start_threads(7);
  for (size_t t = 0; t < sizeof threads / sizeof *threads; t++)
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
      for (size_t b = 0; b < sizeof bits / sizeof *bits; b++)
        for (drawn how = ANY; how < DRAWN; how++) check(sizes[s], bits[b], how, threads[t]);
}
