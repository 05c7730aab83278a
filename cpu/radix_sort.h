/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A radix sort of 64-bit words on several threads, least digit first, in the caller's memory.
 *
 * The words are cut into ranges. Each range counts its digits. So it is known where the words of each digit and range
 * go, and the ranges move theirs at the same time. The sort is stable, so neither threads nor ranges change the result.
 */
#ifndef TARE_CPU_RADIX_SORT_H
#define TARE_CPU_RADIX_SORT_H

#include <stdint.h>

enum { TARE_DIGIT_BITS = 11, TARE_DIGITS = 1 << TARE_DIGIT_BITS };

#define TARE_NO_WORD UINT64_MAX /* is left out: of an element without a weight */

/** Counts of digits, then where the next word of a digit goes. */
typedef struct tare_digit_table {
  uint64_t of[TARE_DIGITS];
} tare_digit_table;

typedef struct tare_sort {
  int32_t threads, first_bit; /* it sorts by the bits from there to the last one */
  int64_t n;                  /* how many words are given; then how many are sorted */
  uint64_t *word, *spare;     /* [n] each; then `word` has the sorted ones. The two may change places */
  tare_digit_table *tables;   /* [tare_sort_tables(threads)], room */
} tare_sort;

int32_t tare_sort_tables(int32_t threads);

void tare_sort_words(tare_sort *sort);

#endif
