/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Number formats: decoding, encoding and units in the last place. float and double lean on the compiler, the half
 * types on integer arithmetic.
 */
#include "formats.h"

#include <math.h>
#include <string.h>

struct layout {
  size_t size;
  int fraction, exponent; /* bits */
};

static struct layout layout_of(enum oracle_format format) {
  switch (format) {
    case ORACLE_F16: return (struct layout){.size = 2, .fraction = 10, .exponent = 5};
    case ORACLE_BF16: return (struct layout){.size = 2, .fraction = 7, .exponent = 8};
    case ORACLE_F32: return (struct layout){.size = 4, .fraction = 23, .exponent = 8};
    case ORACLE_F64: break;
  }
  return (struct layout){.size = 8, .fraction = 52, .exponent = 11};
}

/* The exponent of the smallest normal number. */
static int lowest_exponent(struct layout layout) {
  return 2 - (1 << (layout.exponent - 1));
}

size_t oracle_format_size(enum oracle_format format) {
  return layout_of(format).size;
}

static double decode_half(struct layout layout, uint16_t bits) {
  int field = (bits >> layout.fraction) & ((1 << layout.exponent) - 1);
  int fraction = bits & ((1 << layout.fraction) - 1);
  int lowest = lowest_exponent(layout) - layout.fraction;
  double magnitude;
  if (field == (1 << layout.exponent) - 1) magnitude = fraction ? NAN : INFINITY;
  else if (field == 0) magnitude = ldexp(fraction, lowest);
  else magnitude = ldexp(fraction + (1 << layout.fraction), lowest + field - 1);
  return bits >> 15 ? -magnitude : magnitude;
}

static uint16_t encode_half(struct layout layout, double value) {
  uint16_t sign = signbit(value) ? 0x8000 : 0;
  int infinity = ((1 << layout.exponent) - 1) << layout.fraction;
  if (isnan(value)) return (uint16_t)(sign | infinity | 1 << (layout.fraction - 1));
  double magnitude = fabs(value);
  int lowest = lowest_exponent(layout);
  int exponent = magnitude < ldexp(1, lowest) ? lowest : ilogb(fmin(magnitude, 1e300));
  if (exponent > -lowest + 1) return (uint16_t)(sign | infinity);
  int steps = (int)nearbyint(ldexp(magnitude, layout.fraction - exponent));
  int bits = ((exponent - lowest) << layout.fraction) + steps;
  return (uint16_t)(sign | (bits < infinity ? bits : infinity));
}

double oracle_load(enum oracle_format format, const void *array, size_t index) {
  if (format == ORACLE_F32) return ((const float *)array)[index];
  if (format == ORACLE_F64) return ((const double *)array)[index];
  return decode_half(layout_of(format), ((const uint16_t *)array)[index]);
}

void oracle_store(enum oracle_format format, void *array, size_t index, double value) {
  if (format == ORACLE_F32) ((float *)array)[index] = (float)value;
  else if (format == ORACLE_F64) ((double *)array)[index] = value;
  else ((uint16_t *)array)[index] = encode_half(layout_of(format), value);
}

/* 2^exponent for a normal result. */
static double power_of_two(int exponent) {
  uint64_t bits = (uint64_t)(exponent + 1023) << 52;
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

double oracle_ulp(enum oracle_format format, double value) {
  struct layout layout = layout_of(format);
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  int exponent = (int)(bits >> 52 & 0x7ff) - 1023;
  int lowest = lowest_exponent(layout);
  if (exponent < lowest) exponent = lowest;
  exponent -= layout.fraction;
  return exponent > -1023 ? power_of_two(exponent) : ldexp(1, exponent);
}
