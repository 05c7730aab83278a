/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conversions between double and the formats of the library, by the definition of the formats: a sign, a significand
 * of `digits` bits, a least exponent. Slow and plain on purpose; nothing here comes from the library.
 */
#include "numbers.h"

#include <math.h>
#include <string.h>

/* A value is round(|v| / 2^e) * 2^e with e such that the quotient has `digits` bits, but never below `least`. */
typedef struct half_format {
  int digits, exponent_bits, least;
} half_format;

static const half_format f16_format = {.digits = 11, .exponent_bits = 5, .least = -24};
static const half_format bf16_format = {.digits = 8, .exponent_bits = 8, .least = -133};

static uint16_t encode(half_format format, double value) {
  const int fraction_bits = format.digits - 1;
  const uint32_t sign = signbit(value) ? 0x8000u : 0u;
  const uint32_t infinity = ((1u << format.exponent_bits) - 1) << fraction_bits;
  if (isnan(value)) return (uint16_t)(sign | infinity | (1u << (fraction_bits - 1)));
  if (isinf(value)) return (uint16_t)(sign | infinity);
  int exponent = 0;
  frexp(value, &exponent);
  int step = exponent - format.digits;
  if (step < format.least || value == 0) step = format.least;
  const uint32_t quotient = (uint32_t)nearbyint(ldexp(fabs(value), -step));
  /* A quotient of `digits` bits carries the hidden bit into the exponent field, and one of digits+1 bits (rounded up
   * to a power of two) the next one: plain addition does both, and overflows into infinity. */
  const uint32_t bits = ((uint32_t)(step - format.least) << fraction_bits) + quotient;
  return (uint16_t)(sign | (bits < infinity ? bits : infinity));
}

static double decode(half_format format, uint16_t bits) {
  const int fraction_bits = format.digits - 1;
  const int field = (bits & 0x7fff) >> fraction_bits;
  const int fraction = bits & ((1 << fraction_bits) - 1);
  const double sign = bits & 0x8000 ? -1.0 : 1.0;
  if (field == (1 << format.exponent_bits) - 1) return fraction == 0 ? sign * INFINITY : NAN;
  if (field == 0) return sign * ldexp(fraction, format.least);
  return sign * ldexp(fraction + (1 << fraction_bits), format.least + field - 1);
}

size_t dtype_size(int32_t dtype) {
  static const size_t sizes[] = {4, 2, 2, 8};
  return sizes[dtype];
}

const char *dtype_name(int32_t dtype) {
  static const char *const names[] = {"f32", "f16", "bf16", "f64"};
  return names[dtype];
}

double dtype_roundoff(int32_t dtype) {
  static const double roundoff[] = {0x1p-24, 0x1p-11, 0x1p-8, 0x1p-53};
  return roundoff[dtype];
}

double dtype_smallest(int32_t dtype) {
  static const double smallest[] = {0x1p-149, 0x1p-24, 0x1p-133, 0x1p-1074};
  return smallest[dtype];
}

void store_element(void *array, size_t index, int32_t dtype, double value) {
  char *at = (char *)array + index * dtype_size(dtype);
  const float single = (float)value;
  uint16_t half;
  switch (dtype) {
    case TARE_DTYPE_F64:
      memcpy(at, &value, sizeof value);
      break;
    case TARE_DTYPE_F32:
      memcpy(at, &single, sizeof single);
      break;
    default:
      half = encode(dtype == TARE_DTYPE_F16 ? f16_format : bf16_format, value);
      memcpy(at, &half, sizeof half);
  }
}

double load_element(const void *array, size_t index, int32_t dtype) {
  const char *at = (const char *)array + index * dtype_size(dtype);
  double value;
  float single;
  uint16_t half;
  switch (dtype) {
    case TARE_DTYPE_F64:
      memcpy(&value, at, sizeof value);
      return value;
    case TARE_DTYPE_F32:
      memcpy(&single, at, sizeof single);
      return (double)single;
    default:
      memcpy(&half, at, sizeof half);
      return decode(dtype == TARE_DTYPE_F16 ? f16_format : bf16_format, half);
  }
}

double round_to_dtype(int32_t dtype, double value) {
  double place;
  store_element(&place, 0, dtype, value);
  return load_element(&place, 0, dtype);
}
