/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dense targets, looked at before anything of their tile is computed: the gradient may take the logits' place.
 *
 * In nearly all tiles every target is in [0,1]. The bits tell that with an instruction a vector: those of the numbers
 * from 0 on are in the numbers' order, and those of all others, NaN among them, are larger.
 */

static uint16_t largest_of_16_bits(const uint16_t *restrict from, int64_t n) {
  uint16_t largest = 0;
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < n; i++) largest = from[i] > largest ? from[i] : largest; /* hot: targets of 16 bits (any) */
  return largest;
}

/** Four stretches side by side, so that the loop itself costs less than they do. */
static uint32_t largest_of_32_bits(const float *restrict from, int64_t n) {
  const int64_t quarter = n / 4;
  const float *restrict a = from, *restrict b = a + quarter, *restrict c = b + quarter, *restrict d = c + quarter;
  uint32_t largest = 0;
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < quarter; i++) { /* hot: targets of 32 bits (any) */
    const uint32_t bits_a = tare_float_bits(a[i]), bits_b = tare_float_bits(b[i]);
    const uint32_t bits_c = tare_float_bits(c[i]), bits_d = tare_float_bits(d[i]);
    const uint32_t left = bits_a > bits_b ? bits_a : bits_b, right = bits_c > bits_d ? bits_c : bits_d;
    const uint32_t both = left > right ? left : right;
    largest = both > largest ? both : largest;
  }
  for (int64_t i = 4 * quarter; i < n; i++) {
    const uint32_t bits = tare_float_bits(from[i]);
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

TARE_ALWAYS_INLINE int64_t double_bits(double x) {
  int64_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

/** Whether one is above `most`; AVX2 has no maximum of 64 bits. */
static int any_above_64_bits(const double *restrict from, int64_t n, int64_t most) {
  int64_t any = 0;
#pragma omp simd reduction(| : any)
  for (int64_t i = 0; i < n; i++) { /* hot: targets of 64 bits (any) */
    const int64_t bits = double_bits(from[i]);
    any |= bits | (most - (bits & INT64_MAX));
  }
  return any < 0;
}

/** Whether n contiguous targets are all in [0, most]. `most` is given by its bits. */
static int are_within(int32_t dtype, const void *targets, int64_t offset, int64_t n, uint64_t most) {
  switch (dtype) {
    case TARE_DTYPE_F64:
      return !any_above_64_bits((const double *)targets + offset, n, (int64_t)most);
    case TARE_DTYPE_F32:
      return largest_of_32_bits((const float *)targets + offset, n) <= most;
    default:
      return largest_of_16_bits((const uint16_t *)targets + offset, n) <= most;
  }
}

/** The bits of 1, or of the largest number that a softmax loss takes, in a type of targets. */
static uint64_t bits_of_most(const tare_problem *problem) {
  const int is_double = problem->batch.dtype == TARE_DTYPE_F64, has_limit = problem->family != TARE_LOSS_FAMILY_SOFTMAX;
  switch (problem->batch.target_dtype) {
    case TARE_DTYPE_F64:
      return (uint64_t)double_bits(has_limit ? 1.0 : is_double ? DBL_MAX : (double)FLT_MAX);
    case TARE_DTYPE_F32:
      return has_limit ? 0x3f800000u : 0x7f7fffffu;
    case TARE_DTYPE_F16:
      return has_limit ? 0x3c00u : 0x7bffu;
    default:
      return has_limit ? 0x3f80u : 0x7f7fu;
  }
}

/** Whether all targets of a tile are surely what the formulas take. Where they lie in no lines, none are looked at. */
static int targets_are_plain(const tare_problem *problem, const tare_tile *tile) {
  const tare_array *targets = &tile->view->array[TARE_ARRAY_TARGETS];
  const int64_t row = targets->stride[TARE_AXES - 1], classes = problem->batch.classes, rows = tile->rows;
  const int32_t dtype = problem->batch.target_dtype;
  const int along_classes = targets->cls == 1 || classes == 1, joined = along_classes && (row == classes || rows == 1);
  const int64_t lines = joined ? 1 : along_classes ? rows : classes;
  const int64_t length = joined ? rows * classes : along_classes ? classes : rows;
  const uint64_t most = bits_of_most(problem);
  if (!along_classes && row != 1 && rows > 1) return 0;
  for (int64_t i = 0; i < lines; i++)
    if (!are_within(dtype, targets->data, tile->offset[TARE_ARRAY_TARGETS] + i * (along_classes ? row : targets->cls),
                    length, most))
      return 0;
  return 1;
}

/** Takes note of a row's first target that no formula takes. */
static void tare_note_target(tare_target_scan *scan, const tare_tile *tile, int32_t row, int64_t cls, double value) {
  const int64_t step = tile->view->array[TARE_ARRAY_ROW_INDEX].stride[TARE_AXES - 1];
  const int64_t number = tile->view->first_row + tile->offset[TARE_ARRAY_ROW_INDEX] + row * step;
  scan->rows++;
  if (number >= scan->first_row) return;
  scan->first_row = number;
  scan->cls = cls;
  scan->value = value;
}
