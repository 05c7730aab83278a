/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Number types. Half types by arithmetic on doubles: scaling by a power of two is exact, nearbyint() rounds to nearest
 * even, and a carry out of the mantissa falls into the exponent, where it belongs.
 */
#define _GNU_SOURCE
#include "convert.h"

#include <math.h>
#include <string.h>

size_t dtype_size(int32_t dtype) {
  switch (dtype) {
    case TARE_DTYPE_F16:
    case TARE_DTYPE_BF16:
      return 2;
    case TARE_DTYPE_F64:
      return 8;
    default:
      return 4;
  }
}

const char *dtype_name(int32_t dtype) {
  switch (dtype) {
    case TARE_DTYPE_F16:
      return "f16";
    case TARE_DTYPE_BF16:
      return "bf16";
    case TARE_DTYPE_F64:
      return "f64";
    default:
      return "f32";
  }
}

/* A format with `mantissa` stored bits, the smallest normal number 2^least and the largest exponent -least+1. */
static uint16_t narrow(double value, int mantissa, int least) {
  uint16_t sign = signbit(value) ? 0x8000 : 0;
  uint16_t infinity = (uint16_t)((2 - 2 * least + 1) << mantissa);
  if (isnan(value)) return (uint16_t)(sign | infinity | 1u << (mantissa - 1));
  double size = fabs(value);
  if (size == 0) return sign;
  int exponent = isinf(size) ? 2 - least : ilogb(size);
  if (exponent > 1 - least) return sign | infinity;
  if (exponent < least) exponent = least - 1; /* subnormals share the smallest normal number's step */
  int unit = exponent < least ? least : exponent;
  int steps = (int)nearbyint(ldexp(size, mantissa - unit));
  int hidden = exponent < least ? 0 : 1 << mantissa;
  return (uint16_t)(sign | (((exponent - least + 1) << mantissa) + steps - hidden));
}

uint16_t f16_from_double(double value) { return narrow(value, 10, -14); }
uint16_t bf16_from_double(double value) { return narrow(value, 7, -126); }

double f16_to_double(uint16_t bits) {
  int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  double size = exponent == 31  ? (mantissa ? (double)NAN : (double)INFINITY)
                : exponent == 0 ? ldexp(mantissa, -24)
                                : ldexp(mantissa + 1024, exponent - 25);
  return bits & 0x8000 ? -size : size;
}

double bf16_to_double(uint16_t bits) {
  uint32_t wide = (uint32_t)bits << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}

double number_at(int32_t dtype, const void *array, int64_t index) {
  switch (dtype) {
    case TARE_DTYPE_F16:
      return f16_to_double(((const uint16_t *)array)[index]);
    case TARE_DTYPE_BF16:
      return bf16_to_double(((const uint16_t *)array)[index]);
    case TARE_DTYPE_F64:
      return ((const double *)array)[index];
    default:
      return ((const float *)array)[index];
  }
}

void number_put(int32_t dtype, void *array, int64_t index, double value) {
  switch (dtype) {
    case TARE_DTYPE_F16:
      ((uint16_t *)array)[index] = f16_from_double(value);
      break;
    case TARE_DTYPE_BF16:
      ((uint16_t *)array)[index] = bf16_from_double(value);
      break;
    case TARE_DTYPE_F64:
      ((double *)array)[index] = value;
      break;
    default:
      ((float *)array)[index] = (float)value;
      break;
  }
}

int64_t label_at(int32_t dtype, const void *array, int64_t index) {
  return dtype == TARE_LABEL_DTYPE_I64 ? ((const int64_t *)array)[index] : ((const int32_t *)array)[index];
}
