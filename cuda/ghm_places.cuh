/* SPDX-License-Identifier: Apache-2.0 */
/* What GHM needs beyond device.cuh: places in shared memory, and floats as bits. */
#ifndef TARE_CUDA_GHM_PLACES_CUH
#define TARE_CUDA_GHM_PLACES_CUH

#include "device.cuh"

namespace tare {

#ifdef TARE_EMULATED
inline shared_place held_place(shared_place at) { return at; }
inline float load_float(shared_place at) { return *reinterpret_cast<const float *>(at); }
inline void add_at(shared_place at, uint32_t value) { atomicAdd(reinterpret_cast<uint32_t *>(at), value); }
#else
/** A place from the lane itself, by all lanes: the compiler cannot form it anew at each use. */
__device__ __forceinline__ shared_place held_place(shared_place at) { return __shfl_sync(~0u, at, int(lane())); }
__device__ __forceinline__ float load_float(shared_place at) {
  float x;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(x) : "r"(at) : "memory");
  return x;
}
__device__ __forceinline__ void add_at(shared_place at, uint32_t value) {
  asm volatile("red.shared.add.u32 [%0], %1;" ::"r"(at), "r"(value) : "memory");
}
#endif

/** The bits of x*y+z. A GPU has one NaN for all results, of bits 0x7fffffff. */
__device__ __forceinline__ uint32_t bits_of_fma(float x, float y, float z) {
  const float sum = fmaf(x, y, z);
#ifdef TARE_EMULATED
  if (sum != sum) return 0x7fffffffu;
#endif
  return __float_as_uint(sum);
}

/** x, but 0 below 0 and `most` above it, which is positive; of NaN any of the two. As integers, floats above 0 have
 *  their order, and the others are below 0. */
__device__ __forceinline__ float positive_part(float x, float most) {
#ifdef TARE_EMULATED
  return __int_as_float(max(min(__float_as_int(x), __float_as_int(most)), 0));
#else
  return __int_as_float(__vimin_s32_relu(__float_as_int(x), __float_as_int(most))); /* one instruction from sm_90 on */
#endif
}

}  // namespace tare

#endif
