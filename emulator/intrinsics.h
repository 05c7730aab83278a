/* SPDX-License-Identifier: Apache-2.0 */
/* Twins of CUDA's intrinsics of arithmetic, bits and cached loads, under CUDA's own names. Exact, but for the fast
 * approximations, which here are better than the device's: __expf, __exp10f, __logf, __log2f, __fdividef, rsqrtf. */
#ifndef TARE_EMULATOR_INTRINSICS_H
#define TARE_EMULATOR_INTRINSICS_H

#include <math.h>
#include <stdint.h>

#include <cstring>
#include <limits>

#include "thread.h"

/* ---- Bits ---- */

namespace emulator {

template <typename To, typename From>
To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "a bit cast keeps the size");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

/* As cvt.rzi: NaN becomes 0, and numbers that do not fit become the nearest that do. */
template <typename To, typename From>
To saturate(From whole) {
  if (isnan(whole)) return 0;
  if (whole <= From(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
  if (whole >= From(std::numeric_limits<To>::max())) return std::numeric_limits<To>::max();
  return To(whole);
}

}  // namespace emulator

/* seed.cpp: a float within `ulps` of the exact value. The error depends on the argument and the seed.
 * Powers of two, zeros, infinities and NaN are exact. */
namespace emulator {
float within(double exact, float argument, double ulps);
}

inline int __float_as_int(float x) { return emulator::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return emulator::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return emulator::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return emulator::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return emulator::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return emulator::bit_cast<double>(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }

/* ---- Integers ---- */

inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline int __mulhi(int a, int b) { return int(int64_t(a) * b >> 32); }
__extension__ typedef unsigned __int128 tare_emulator_uint128;
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(tare_emulator_uint128(a) * b >> 64);
}

#define TARE_EMULATOR_MIN_MAX(T)                   \
  inline T min(T a, T b) { return b < a ? b : a; } \
  inline T max(T a, T b) { return a < b ? b : a; }
TARE_EMULATOR_MIN_MAX(int)
TARE_EMULATOR_MIN_MAX(unsigned)
TARE_EMULATOR_MIN_MAX(long)
TARE_EMULATOR_MIN_MAX(unsigned long)
TARE_EMULATOR_MIN_MAX(long long)
TARE_EMULATOR_MIN_MAX(unsigned long long)
#undef TARE_EMULATOR_MIN_MAX
/* If one is NaN, the result is the other. */
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

/* ---- Floating point: rounded to nearest, never contracted ---- */

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline float __saturatef(float x) { return isnan(x) ? 0.0f : fminf(fmaxf(x, 0.0f), 1.0f); }

inline int __float2int_rn(float x) { return emulator::saturate<int>(double(rintf(x))); }
inline int __float2int_rz(float x) { return emulator::saturate<int>(double(truncf(x))); }
inline int __float2int_rd(float x) { return emulator::saturate<int>(double(floorf(x))); }
inline int __float2int_ru(float x) { return emulator::saturate<int>(double(ceilf(x))); }
inline unsigned __float2uint_rn(float x) { return emulator::saturate<unsigned>(double(rintf(x))); }
inline unsigned __float2uint_rz(float x) { return emulator::saturate<unsigned>(double(truncf(x))); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }
inline float __double2float_rn(double x) { return float(x); }

inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return exp10f(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }

/* ---- Loads and stores: hints mean nothing here, but alignment is checked as a GPU does ---- */

namespace emulator {

template <typename T>
T load(const T *from, const char *name) {
  if (reinterpret_cast<uintptr_t>(from) % sizeof(T) != 0)
    fail("%s of %zu bytes at %p", name, sizeof(T), static_cast<const void *>(from));
  T value;
  memcpy(static_cast<void *>(&value), from, sizeof value); /* whatever type it was stored as */
  return value;
}

template <typename T>
void store(T *to, const T &value, const char *name) {
  if (reinterpret_cast<uintptr_t>(to) % sizeof(T) != 0)
    fail("%s of %zu bytes at %p", name, sizeof(T), static_cast<void *>(to));
  memcpy(static_cast<void *>(to), &value, sizeof value);
}

}  // namespace emulator

template <typename T>
T __ldg(const T *from) {
  return emulator::load(from, "misaligned __ldg");
}
template <typename T>
T __ldcs(const T *from) {
  return emulator::load(from, "misaligned __ldcs");
}
template <typename T>
T __ldcg(const T *from) {
  return emulator::load(from, "misaligned __ldcg");
}
template <typename T>
void __stcs(T *to, T value) {
  emulator::store(to, value, "misaligned __stcs");
}
template <typename T>
void __stcg(T *to, T value) {
  emulator::store(to, value, "misaligned __stcg");
}

#endif
