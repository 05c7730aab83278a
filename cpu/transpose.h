/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between rows that are contiguous in memory and blocks that hold class after class.
 *
 * A strided loop moves one element at a time, and waits for each store. Squares of four by four take four loads, eight
 * shuffles and four stores for sixteen elements. Doubles keep the loop: the baseline has no vector of four.
 */

#if TARE_REAL_BITS == 32 && defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define HAS_SQUARES 1
#endif
#endif
#ifndef HAS_SQUARES
#define HAS_SQUARES 0
#endif

#if HAS_SQUARES

typedef real four __attribute__((vector_size(16)));

TARE_INLINE four load_four(const real *from) {
  four x;
  memcpy(&x, from, sizeof x);
  return x;
}

TARE_INLINE void store_four(real *to, four x) { memcpy(to, &x, sizeof x); }

/** to[c*to_row + r] = from[r*from_row + c] for four r and four c. */
TARE_INLINE void transpose_square(const real *restrict from, int64_t from_row, real *restrict to, int64_t to_row) {
  const four a = load_four(from), b = load_four(from + from_row), c = load_four(from + 2 * from_row),
             d = load_four(from + 3 * from_row);
  const four ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const four cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  store_four(to, __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5));
  store_four(to + to_row, __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7));
  store_four(to + 2 * to_row, __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5));
  store_four(to + 3 * to_row, __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7));
}

#endif

/** A matrix of reals whose rows are contiguous: to[c*to_row + r] = from[r*from_row + c]. */
static void transpose(const real *restrict from, int64_t from_row, int64_t rows, int64_t columns, real *restrict to,
                      int64_t to_row) {
  int64_t whole_rows = 0, whole_columns = 0;
#if HAS_SQUARES
  whole_rows = rows / 4 * 4;
  whole_columns = columns / 4 * 4;
  for (int64_t r = 0; r < whole_rows; r += 4)
    for (int64_t c = 0; c < whole_columns; c += 4)
      transpose_square(from + r * from_row + c, from_row, to + c * to_row + r, to_row);
#endif
  for (int64_t c = 0; c < columns; c++)
    for (int64_t r = c < whole_columns ? whole_rows : 0; r < rows; r++) to[c * to_row + r] = from[r * from_row + c];
}
