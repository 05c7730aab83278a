/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two floats that are added and multiplied at once. From sm_100 on one instruction does both (fma.rn.f32x2), with the
 * bits of two. The kernels are bound by the number of instructions there: see docs/cuda.md. Before sm_100 two floats
 * would only cost registers, so packs_floats is false.
 */
#ifndef TARE_CUDA_TWO_CUH
#define TARE_CUDA_TWO_CUH

#include "device.cuh"

namespace tare {

#if defined(TARE_EMULATED)
inline const bool packs_floats = emulator::packs_floats(); /* both ways in one build */
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
#define TARE_PACKS_FLOATS
constexpr bool packs_floats = true;
#else
constexpr bool packs_floats = false;
#endif

struct two {
  float x, y;

  __device__ __forceinline__ two(float first, float second) : x(first), y(second) {}
  __device__ __forceinline__ explicit two(float both) : x(both), y(both) {}
#ifdef TARE_PACKS_FLOATS
  __device__ __forceinline__ explicit two(float2 v) : x(v.x), y(v.y) {}
  __device__ __forceinline__ float2 packed() const { return {x, y}; }
#endif
};

#ifdef TARE_PACKS_FLOATS
__device__ __forceinline__ two fmaf(two a, two b, two c) { return two(__ffma2_rn(a.packed(), b.packed(), c.packed())); }
__device__ __forceinline__ two operator*(two a, two b) { return two(__fmul2_rn(a.packed(), b.packed())); }
__device__ __forceinline__ two operator+(two a, two b) { return two(__fadd2_rn(a.packed(), b.packed())); }
#else
__device__ __forceinline__ two fmaf(two a, two b, two c) { return {::fmaf(a.x, b.x, c.x), ::fmaf(a.y, b.y, c.y)}; }
__device__ __forceinline__ two operator*(two a, two b) { return {a.x * b.x, a.y * b.y}; }
__device__ __forceinline__ two operator+(two a, two b) { return {a.x + b.x, a.y + b.y}; }
#endif
__device__ __forceinline__ two operator-(two a) { return {-a.x, -a.y}; }
__device__ __forceinline__ two operator-(two a, two b) { return a + -b; }
__device__ __forceinline__ two rcp_approx(two a) { return {rcp_approx(a.x), rcp_approx(a.y)}; }
__device__ __forceinline__ two exp2_approx(two a) { return {exp2_approx(a.x), exp2_approx(a.y)}; }

using ::fmaf; /* beside that of two */

}  // namespace tare

#endif
