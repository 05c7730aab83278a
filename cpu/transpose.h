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

/** to[c*to_row + r] = from[r*from_row + c] for four r and four c. With fewer c the others are read, but not written;
 *  with fewer r they are neither, and what the places of others get is overwritten by the next square. */
TARE_INLINE void transpose_square(const real *restrict from, int64_t from_row, int rows, int columns, real *restrict to,
                                  int64_t to_row) {
  const four a = load_four(from), b = load_four(from + from_row);
  const four c = rows > 2 ? load_four(from + 2 * from_row) : a, d = rows > 3 ? load_four(from + 3 * from_row) : b;
  const four ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const four cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  store_four(to, __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5));
  store_four(to + to_row, __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7));
  if (columns > 2) store_four(to + 2 * to_row, __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5));
  if (columns > 3) store_four(to + 3 * to_row, __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7));
}

/** In squares; the last ones overlap those before. Returns how many rows and columns are done. */
TARE_INLINE int transpose_squares(const real *restrict from, int64_t from_row, int64_t rows, int64_t columns,
                                  real *restrict to, int64_t to_row) {
  if (rows < 4 || columns < 4) return 0;
  for (int64_t r = 0; r < rows; r += 4)
    for (int64_t c = 0; c < columns; c += 4) {
      const int64_t row = r + 4 <= rows ? r : rows - 4, column = c + 4 <= columns ? c : columns - 4;
      transpose_square(from + row * from_row + column, from_row, 4, 4, to + column * to_row + row, to_row);
    }
  return 1;
}

/** Lines of two or three: squares reach into the next line, so the last lines are left. Returns how many are done. */
TARE_INLINE int64_t transpose_short_rows(const real *restrict from, int64_t rows, int columns, real *restrict to,
                                         int64_t to_row) {
  int64_t r = 0;
  for (; r + 5 <= rows; r += 4) transpose_square(from + r * columns, columns, 4, columns, to + r, to_row);
  return r;
}

TARE_INLINE int64_t transpose_to_short(const real *restrict from, int64_t from_row, int rows, int64_t columns,
                                       real *restrict to) {
  int64_t c = 0;
  for (; c + 5 <= columns; c += 4) transpose_square(from + c, from_row, rows, 4, to + c * rows, rows);
  return c;
}

#endif

/** A matrix of reals whose rows are contiguous: to[c*to_row + r] = from[r*from_row + c]. */
static void transpose(const real *restrict from, int64_t from_row, int64_t rows, int64_t columns, real *restrict to,
                      int64_t to_row) {
  int64_t row = 0, column = 0;
#if HAS_SQUARES
  if (transpose_squares(from, from_row, rows, columns, to, to_row)) return;
  if ((columns == 2 || columns == 3) && from_row == columns)
    row = transpose_short_rows(from, rows, (int)columns, to, to_row);
  else if ((rows == 2 || rows == 3) && to_row == rows)
    column = transpose_to_short(from, from_row, (int)rows, columns, to);
#endif
  for (int64_t c = column; c < columns; c++)
    for (int64_t r = row; r < rows; r++) to[c * to_row + r] = from[r * from_row + c];
}
