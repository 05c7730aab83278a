/* SPDX-License-Identifier: Apache-2.0 */
/* Between elements of 16 bits and blocks of floats, with the vectors of an instruction set. */

/* `dtype` is a constant in these four. */

TARE_INLINE void widen(int32_t dtype, const uint16_t *from, float *to) {
  vector x[HALVES / LANES];
  if (dtype == TARE_DTYPE_F16)
    widen_f16(from, x);
  else
    widen_bf16(from, x);
  for (int k = 0; k < HALVES / LANES; k++) OPERATION(storeu)(to + LANES * k, x[k]);
}

TARE_INLINE void narrow(int32_t dtype, const float *from, uint16_t *to) {
  vector x[HALVES / LANES];
  for (int k = 0; k < HALVES / LANES; k++) x[k] = OPERATION(loadu)(from + LANES * k);
  const int has_nan = have_nan(x);
  if (dtype == TARE_DTYPE_F16 && has_nan)
    narrow_f16(1, to, x);
  else if (dtype == TARE_DTYPE_F16)
    narrow_f16(0, to, x);
  else if (has_nan)
    narrow_bf16(1, to, x);
  else
    narrow_bf16(0, to, x);
}

/** The last of many are converted with some before them. */
TARE_INLINE void widen_all(int32_t dtype, const uint16_t *from, int64_t n, float *to) {
  for (int64_t i = 0; i + HALVES <= n; i += HALVES) widen(dtype, from + i, to + i);
  if (n % HALVES) widen(dtype, from + n - HALVES, to + n - HALVES);
}

TARE_INLINE void narrow_all(int32_t dtype, const float *from, uint16_t *to, int64_t n) {
  for (int64_t i = 0; i + HALVES <= n; i += HALVES) narrow(dtype, from + i, to + i);
  if (n % HALVES) narrow(dtype, from + n - HALVES, to + n - HALVES);
}

/* One after another: those that are apart. */

static void load_apart(int32_t dtype, const uint16_t *from, int64_t stride, int64_t n, float *to) {
  if (dtype == TARE_DTYPE_F16)
    for (int64_t i = 0; i < n; i++) to[i] = _cvtsh_ss(from[i * stride]);
  else
    for (int64_t i = 0; i < n; i++) to[i] = tare_from_bf16(from[i * stride]);
}

TARE_INLINE uint16_t one_f16(float x) {
  const uint16_t of_nan = (uint16_t)(0x7e00u | (tare_float_bits(x) >> 16 & 0x8000u));
  return x == x ? (uint16_t)_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT) : of_nan;
}

static void store_apart(int32_t dtype, const float *from, uint16_t *to, int64_t stride, int64_t n) {
  if (dtype == TARE_DTYPE_F16)
    for (int64_t i = 0; i < n; i++) to[i * stride] = one_f16(from[i]);
  else
    for (int64_t i = 0; i < n; i++) to[i * stride] = tare_to_bf16(from[i]);
}

/* Those that follow one another, but fill no vectors. */

static void load_some(int32_t dtype, const uint16_t *from, int64_t n, float *to) {
#ifdef HAS_SOME_HALVES
  uint16_t room[HALVES];
  float wide[HALVES];
  get_some(room, from, n);
  if (dtype == TARE_DTYPE_F16)
    widen(TARE_DTYPE_F16, room, wide);
  else
    widen(TARE_DTYPE_BF16, room, wide);
  put_some_floats(to, wide, n);
#else
  load_apart(dtype, from, 1, n, to);
#endif
}

static void store_some(int32_t dtype, const float *from, uint16_t *to, int64_t n) {
#ifdef HAS_SOME_HALVES
  uint16_t room[HALVES];
  float wide[HALVES];
  get_some_floats(wide, from, n);
  if (dtype == TARE_DTYPE_F16)
    narrow(TARE_DTYPE_F16, wide, room);
  else
    narrow(TARE_DTYPE_BF16, wide, room);
  put_some(to, room, n);
#else
  store_apart(dtype, from, to, 1, n);
#endif
}

static void load_halves(int32_t dtype, const uint16_t *from, int64_t stride, int64_t n, float *to) {
  if (stride != 1)
    load_apart(dtype, from, stride, n, to);
  else if (n < HALVES)
    load_some(dtype, from, n, to);
  else if (dtype == TARE_DTYPE_F16)
    widen_all(TARE_DTYPE_F16, from, n, to);
  else
    widen_all(TARE_DTYPE_BF16, from, n, to);
}

static void store_halves(int32_t dtype, const float *from, uint16_t *to, int64_t stride, int64_t n) {
  if (stride != 1)
    store_apart(dtype, from, to, stride, n);
  else if (n < HALVES)
    store_some(dtype, from, to, n);
  else if (dtype == TARE_DTYPE_F16)
    narrow_all(TARE_DTYPE_F16, from, to, n);
  else
    narrow_all(TARE_DTYPE_BF16, from, to, n);
}

/* Rows of a few elements that follow one another, to and from blocks that hold class after class. */

enum { SHORT_ROW = 64, SHORT_ROWS = 16 * SHORT_ROW };

TARE_INLINE int are_short_rows(int32_t dtype, int64_t line_stride, int64_t stride, int64_t lines) {
  const int is_half = dtype == TARE_DTYPE_F16 || dtype == TARE_DTYPE_BF16;
  return is_half && line_stride == 1 && stride == lines && lines <= SHORT_ROW;
}

/** How many rows fit in the room, in whole squares. */
TARE_INLINE int64_t rows_at_once(int64_t first, int64_t rows, int64_t columns) {
  const int64_t fit = SHORT_ROWS / columns / 4 * 4;
  return rows - first < fit ? rows - first : fit;
}

static void load_short_rows(int32_t dtype, const uint16_t *from, int64_t rows, int64_t columns, float *to) {
  float room[SHORT_ROWS];
  for (int64_t first = 0, some; first < rows; first += some) {
    some = rows_at_once(first, rows, columns);
    load_halves(dtype, from + first * columns, 1, some * columns, room);
    transpose(room, columns, some, columns, to + first, rows);
  }
}

static void store_short_rows(int32_t dtype, const float *from, int64_t rows, int64_t columns, uint16_t *to) {
  float room[SHORT_ROWS];
  for (int64_t first = 0, some; first < rows; first += some) {
    some = rows_at_once(first, rows, columns);
    transpose(from + first, rows, columns, some, room, columns);
    store_halves(dtype, room, to + first * columns, 1, some * columns);
  }
}
