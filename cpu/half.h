/* SPDX-License-Identifier: Apache-2.0 */
/* f16 and bf16 to f32 and back, rounding to nearest even; in integers, so that every instruction set vectorises them
 * and no flush-to-zero mode of the caller's changes them. */
#ifndef TARE_CPU_HALF_H
#define TARE_CPU_HALF_H

#include <stdint.h>
#include <string.h>

#define TARE_ALWAYS_INLINE static inline __attribute__((always_inline))

TARE_ALWAYS_INLINE uint32_t tare_float_bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

TARE_ALWAYS_INLINE float tare_bits_float(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

TARE_ALWAYS_INLINE float tare_from_bf16(uint16_t h) { return tare_bits_float((uint32_t)h << 16); }

TARE_ALWAYS_INLINE uint16_t tare_to_bf16(float x) {
  const uint32_t u = tare_float_bits(x);
  const uint32_t rounded = (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
  const uint32_t nan = u >> 16 | 0x40u;
  return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

TARE_ALWAYS_INLINE float tare_from_f16(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, magnitude = h & 0x7fffu;
  const uint32_t normal = (magnitude << 13) + (112u << 23);
  const uint32_t special = magnitude << 13 | 0x7f800000u;
  const uint32_t subnormal = tare_float_bits(tare_bits_float((magnitude << 13) + (113u << 23)) - 0x1p-14f);
  const uint32_t bits = magnitude < 0x400u ? subnormal : magnitude >= 0x7c00u ? special : normal;
  return tare_bits_float(sign | bits);
}

TARE_ALWAYS_INLINE uint16_t tare_to_f16(float x) {
  const uint32_t u = tare_float_bits(x), sign = u >> 16 & 0x8000u, magnitude = u & 0x7fffffffu;
  const uint32_t normal = (magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  const uint32_t special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  /* adding 1/2 leaves the subnormal's bits, rounded, at the end of the sum */
  const uint32_t subnormal = tare_float_bits(tare_bits_float(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t bits = magnitude < (113u << 23) ? subnormal : magnitude >= 0x47800000u ? special : normal;
  return (uint16_t)(sign | bits);
}

#endif
