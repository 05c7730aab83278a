/* SPDX-License-Identifier: Apache-2.0 */
/* Between arrays of any type and stride and blocks of `real` in first-level cache. */

#define LOAD_LOOP(type, convert)                                               \
  do {                                                                         \
    const type *restrict from = (const type *)data + offset;                   \
    if (stride == 1)                                                           \
      for (int64_t i = 0; i < n; i++) to[i] = (real)convert(from[i]);          \
    else                                                                       \
      for (int64_t i = 0; i < n; i++) to[i] = (real)convert(from[i * stride]); \
  } while (0)

#define STORE_LOOP(type, convert)                                        \
  do {                                                                   \
    type *restrict to = (type *)data + offset;                           \
    if (stride == 1)                                                     \
      for (int64_t i = 0; i < n; i++) to[i] = convert(from[i]);          \
    else                                                                 \
      for (int64_t i = 0; i < n; i++) to[i * stride] = convert(from[i]); \
  } while (0)

#define AS_IS(x) (x)
#define AS_FLOAT(x) ((float)(x))
#define AS_DOUBLE(x) ((double)(x))
#define AS_F16(x) tare_to_f16((float)(x))
#define AS_BF16(x) tare_to_bf16((float)(x))

/* One machine code for all strides: a second, for those of 1, was chosen once a call as well. */
#if defined(__GNUC__) && !defined(__clang__)
#define ONCE static __attribute__((noinline, noclone))
#else
#define ONCE static __attribute__((noinline))
#endif

ONCE void load(int32_t dtype, const void *data, int64_t offset, int64_t stride, int64_t n, real *restrict to) {
  switch (dtype) {
#ifdef HAS_VECTORS
    case TARE_DTYPE_F16:
    case TARE_DTYPE_BF16:
      load_halves(dtype, (const uint16_t *)data + offset, stride, n, to);
      break;
#else
    case TARE_DTYPE_F16:
      LOAD_LOOP(uint16_t, tare_from_f16);
      break;
    case TARE_DTYPE_BF16:
      LOAD_LOOP(uint16_t, tare_from_bf16);
      break;
#endif
    case TARE_DTYPE_F64:
      LOAD_LOOP(double, AS_IS);
      break;
    default:
      LOAD_LOOP(float, AS_IS);
  }
}

ONCE void store(int32_t dtype, void *data, int64_t offset, int64_t stride, int64_t n, const real *restrict from) {
  switch (dtype) {
#ifdef HAS_VECTORS
    case TARE_DTYPE_F16:
    case TARE_DTYPE_BF16:
      store_halves(dtype, from, (uint16_t *)data + offset, stride, n);
      break;
#else
    case TARE_DTYPE_F16:
      STORE_LOOP(uint16_t, AS_F16);
      break;
    case TARE_DTYPE_BF16:
      STORE_LOOP(uint16_t, AS_BF16);
      break;
#endif
    case TARE_DTYPE_F64:
      STORE_LOOP(double, AS_DOUBLE);
      break;
    default:
      STORE_LOOP(float, AS_FLOAT);
  }
}

/** As store, contiguous and past the caches, by way of a room for as many where they are of another type. */
static void store_past_caches(int32_t dtype, void *data, int64_t offset, int64_t n, const real *from, void *room) {
  const size_t size = dtype == TARE_DTYPE_F64 ? 8 : dtype == TARE_DTYPE_F32 ? 4 : 2;
  if (dtype != REAL_DTYPE) store(dtype, room, 0, 1, n, from);
  tare_store_past_caches((char *)data + offset * (int64_t)size, dtype == REAL_DTYPE ? from : room, (size_t)n * size);
}

/** Packs `lines` runs of `length` elements into `to`. Many parameters: an array of two strides has six. */
static void load_lines(int32_t dtype, const void *data, int64_t offset, int64_t line_stride, int64_t stride,
                       int64_t lines, int64_t length, real *restrict to) {
  if (stride == 1 && (lines == 1 || line_stride == length)) {
    load(dtype, data, offset, 1, lines * length, to);
    return;
  }
  if (line_stride == 1 && dtype == REAL_DTYPE) {
    transpose((const real *)data + offset, stride, length, lines, to, length);
    return;
  }
#ifdef HAS_VECTORS
  if (are_short_rows(dtype, line_stride, stride, lines)) {
    load_short_rows(dtype, (const uint16_t *)data + offset, length, lines, to);
    return;
  }
#endif
  for (int64_t i = 0; i < lines; i++) load(dtype, data, offset + i * line_stride, stride, length, to + i * length);
}

/** The reverse. Many parameters: as there. */
static void store_lines(int32_t dtype, void *data, int64_t offset, int64_t line_stride, int64_t stride, int64_t lines,
                        int64_t length, const real *restrict from) {
  if (stride == 1 && (lines == 1 || line_stride == length)) {
    store(dtype, data, offset, 1, lines * length, from);
    return;
  }
  if (line_stride == 1 && dtype == REAL_DTYPE) {
    transpose(from, length, lines, length, (real *)data + offset, stride);
    return;
  }
#ifdef HAS_VECTORS
  if (are_short_rows(dtype, line_stride, stride, lines)) {
    store_short_rows(dtype, from, length, lines, (uint16_t *)data + offset);
    return;
  }
#endif
  for (int64_t i = 0; i < lines; i++) store(dtype, data, offset + i * line_stride, stride, length, from + i * length);
}

/** Finishes derivatives that were made with a factor of 1, where they need it. */
static void rescale(const tare_job *job, real *derivative, int64_t n) {
  for (int64_t i = 0; i < n && job->gradient.after; i++)
    derivative[i] = (real)rescaled(&job->gradient, job->problem->batch.dtype, (double)derivative[i]);
}

#undef ONCE
#undef LOAD_LOOP
#undef STORE_LOOP
#undef AS_IS
#undef AS_FLOAT
#undef AS_DOUBLE
#undef AS_F16
#undef AS_BF16
