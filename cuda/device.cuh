/* SPDX-License-Identifier: Apache-2.0 */
/* What a kernel of ours stands on, in both worlds: compiled by nvcc for a GPU, and by a host compiler for the emulator
 * (emulator), which brings twins of CUDA's own names. A kernel owes the emulator this much:
 *
 *   shared memory     TARE_SHARED and TARE_SHARED_DYNAMIC, never __shared__
 *   grid barrier      tare::grid_barrier in a cooperative launch, no cooperative_groups
 *   warps             all 32 lanes in every shuffle and vote, and no return before one; whole warps in a block
 *   block barrier     reached by all threads at the same line, with no thread gone
 *   half types        stored and converted, never computed with
 *   PTX               none outside this file, where each has its twin
 *   launching         cudaLaunchKernelEx with a typed kernel, or TARE_KERNEL for a table of addresses
 *
 * CUDA's __syncthreads, __shfl_*_sync, __ballot_sync, __any_sync, __all_sync, atomics of integers, __threadfence,
 * __umulhi, __umul64hi, __ldg, __ldcs, __stcs, fmaf, bit casts and the like are used by their own names.
 */
#ifndef TARE_CUDA_DEVICE_CUH
#define TARE_CUDA_DEVICE_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#if !defined(__CUDACC__) && !defined(TARE_EMULATED)
#error "for nvcc, or behind emulator/emulator.h"
#endif

namespace tare {

constexpr uint32_t full_mask = 0xffffffffu;
constexpr unsigned warp_size = 32;

template <typename T>
using type_itself = T; /* so that an array type can stand in front of a name */

}  // namespace tare

/* ---- Shared memory -----------------------------------------------------------------------------------------------
 * TARE_SHARED(float[32], partial); declares one variable for the block, TARE_SHARED_DYNAMIC(float, bins); a pointer to
 * the bytes asked for at launch. Neither is initialised. TARE_KERNEL(k) is a kernel's address for cudaFuncSetAttribute,
 * cudaOccupancy... and cudaLaunchKernelExC. */
#ifdef TARE_EMULATED
#define TARE_SHARED(type, name)             \
  static const char name##_site = #name[0]; \
  tare::type_itself<type> &name = emulator::shared<tare::type_itself<type>>(&name##_site, #name)
#define TARE_SHARED_DYNAMIC(type, name) type *const name = static_cast<type *>(emulator::dynamic_shared())
#define TARE_KERNEL(...) emulator::note(__VA_ARGS__)
#else
#define TARE_SHARED(type, name) __shared__ tare::type_itself<type> name
#define TARE_SHARED_DYNAMIC(type, name)                                 \
  extern __shared__ __align__(128) unsigned char tare_dynamic_shared[]; \
  type *const name = reinterpret_cast<type *>(tare_dynamic_shared)
#define TARE_KERNEL(...) reinterpret_cast<const void *>(__VA_ARGS__)
#endif

namespace tare {

/* ---- Approximations in one instruction -----------------------------------------------------------------------------
 * NaN, infinities and zeros are alike in both worlds, and so is that subnormal arguments and results become zero.
 * Rounding is not: the device's 2^x is taken to be within 1.41 ulp, 1/x within 0.98 and the root within 1, and the twin
 * errs by as much, differently under each seed, but for powers of two, which are exact. log2 between 0.5 and 2 is
 * within 2^-22 absolutely on a device, which near 1 is many ulp; the twin is better. */

#ifdef TARE_EMULATED
inline float flush(float x) { return fabsf(x) < 1.17549435e-38f ? copysignf(0.0f, x) : x; }
inline float exp2_approx(float x) { return flush(emulator::within(exp2(double(flush(x))), x, 1.41)); }
inline float log2_approx(float x) { return log2f(flush(x)); }
inline float rcp_approx(float x) { return flush(emulator::within(1.0 / double(flush(x)), x, 0.98)); }
inline float sqrt_approx(float x) { return emulator::within(sqrt(double(flush(x))), x, 1.0); }
#else
__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float log2_approx(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float rcp_approx(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float sqrt_approx(float x) {
  float y;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
#endif

/* ---- A value kept in a register, where the compiler would form it anew in every turn of a loop ------------------- */

#ifdef TARE_EMULATED
template <typename T>
T in_register(T x) {
  return x;
}
#else
__device__ __forceinline__ int32_t in_register(int32_t x) {
  asm("" : "+r"(x));
  return x;
}
__device__ __forceinline__ float in_register(float x) {
  asm("" : "+f"(x));
  return x;
}
template <typename T>
__device__ __forceinline__ T *in_register(T *x) {
  asm("" : "+l"(x));
  return x;
}
#endif

/* ---- Element types: exact to float, rounded to nearest even from it ---------------------------------------------- */

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ __half from_float<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

/* ---- 16 bytes at a time ------------------------------------------------------------------------------------------
 * Pointers must be 16-byte aligned. `once` marks data that is not read again soon. `read_only` is for memory that
 * nobody writes during the kernel, so not for logits whose gradient may be written in place. */

template <typename T>
struct alignas(16) vector {
  static constexpr int size = 16 / int(sizeof(T));
  T at[size];
};

enum class cache { keep, once, read_only };

template <cache hint = cache::keep, typename T>
__device__ __forceinline__ vector<T> load_vector(const T *from) {
  const uint4 *const source = reinterpret_cast<const uint4 *>(from);
  const uint4 bits = hint == cache::once ? __ldcs(source) : hint == cache::read_only ? __ldg(source) : *source;
  vector<T> v;
  memcpy(static_cast<void *>(&v), &bits, sizeof v);
  return v;
}

template <cache hint = cache::keep, typename T>
__device__ __forceinline__ void store_vector(T *to, const vector<T> &v) {
  uint4 bits;
  memcpy(&bits, static_cast<const void *>(&v), sizeof v);
  if (hint == cache::once)
    __stcs(reinterpret_cast<uint4 *>(to), bits);
  else
    *reinterpret_cast<uint4 *>(to) = bits;
}

/** A vector as floats. Two bfloat16 are a word whose halves are the upper halves of floats: one instruction each. */
template <typename T>
__device__ __forceinline__ void widen(const vector<T> &v, float (&x)[vector<T>::size]) {
  for (int k = 0; k < vector<T>::size; k++) x[k] = to_float(v.at[k]);
}
__device__ __forceinline__ void widen(const vector<__nv_bfloat16> &v, float (&x)[vector<__nv_bfloat16>::size]) {
  uint32_t words[vector<__nv_bfloat16>::size / 2];
  memcpy(words, static_cast<const void *>(&v), sizeof v);
  for (int k = 0; k < vector<__nv_bfloat16>::size; k += 2) {
    x[k] = __uint_as_float(words[k / 2] << 16);
    x[k + 1] = __uint_as_float(words[k / 2] & 0xffff0000u);
  }
}

template <cache hint = cache::keep, typename T>
__device__ __forceinline__ void store_floats(T *to, const float (&x)[vector<T>::size]) {
  vector<T> v;
  for (int k = 0; k < vector<T>::size; k++) v.at[k] = from_float<T>(x[k]);
  store_vector<hint>(to, v);
}

/* ---- Places in shared memory, and copies that run ahead -----------------------------------------------------------
 * A place is an address of 32 bits. From a pointer the compiler forms 64 bits at each use.
 *
 * start_copy begins to bring 16 bytes to a place, close_copies ends a group of such copies, and wait_for_copies waits
 * until all of this thread's groups but the last `open` are there. What they bring is this thread's alone unless a
 * barrier follows. Before sm_80 a copy is done when it has begun, and there is no use in running ahead. */

#if defined(TARE_EMULATED) || !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
constexpr int most_copies_ahead = 3;
#else
constexpr int most_copies_ahead = 0;
#endif
#ifdef TARE_EMULATED
inline const int copies_ahead = emulator::copies_ahead(most_copies_ahead); /* both ways in one build */
#else
constexpr int copies_ahead = most_copies_ahead;
#endif

#ifdef TARE_EMULATED
using shared_place = unsigned char *;
inline shared_place place_in_shared(void *p) { return static_cast<unsigned char *>(p); }
inline uint2 load_8_bytes(shared_place at) { return *reinterpret_cast<const uint2 *>(at); }
inline uint4 load_16_bytes(shared_place at) { return *reinterpret_cast<const uint4 *>(at); }
#else
using shared_place = uint32_t;
__device__ __forceinline__ shared_place place_in_shared(void *p) {
  shared_place at = shared_place(__cvta_generic_to_shared(p));
  asm("" : "+r"(at)); /* in a register */
  return at;
}
__device__ __forceinline__ uint2 load_8_bytes(shared_place at) {
  uint2 bits;
  asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(bits.x), "=r"(bits.y) : "r"(at) : "memory");
  return bits;
}
__device__ __forceinline__ uint4 load_16_bytes(shared_place at) {
  uint4 bits;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(bits.x), "=r"(bits.y), "=r"(bits.z), "=r"(bits.w)
               : "r"(at)
               : "memory");
  return bits;
}
#endif

template <typename T>
__device__ __forceinline__ vector<T> load_vector_at(shared_place at) {
  const uint4 bits = load_16_bytes(at);
  vector<T> v;
  memcpy(static_cast<void *>(&v), &bits, sizeof v);
  return v;
}

#if defined(TARE_EMULATED)
template <cache hint>
inline void start_copy(shared_place to, const void *from) {
  emulator::start_copy(to, from);
}
inline void close_copies() { emulator::close_copies(); }
template <int open>
inline void wait_for_copies() {
  emulator::wait_for_copies(open);
}
inline void wait_for_copies_ahead() { emulator::wait_for_copies(unsigned(copies_ahead)); }
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
template <cache hint>
__device__ __forceinline__ void start_copy(shared_place to, const void *from) {
  const uint4 bits = *static_cast<const uint4 *>(from);
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(bits.x), "r"(bits.y), "r"(bits.z), "r"(bits.w)
               : "memory");
}
__device__ __forceinline__ void close_copies() {}
template <int open>
__device__ __forceinline__ void wait_for_copies() {}
#else
template <cache hint>
__device__ __forceinline__ void start_copy(shared_place to, const void *from) {
  if (hint == cache::once) {
    uint64_t policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "l"(policy)
                 : "memory");
  } else {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
  }
}
__device__ __forceinline__ void close_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int open>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(open) : "memory");
}
#endif
#ifndef TARE_EMULATED
/** Waits until all groups but the last `copies_ahead` are there. */
__device__ __forceinline__ void wait_for_copies_ahead() { wait_for_copies<copies_ahead>(); }
#endif

/* ---- Atomics of fixed-width integers: CUDA's own know `unsigned long long`, which uint64_t is not ---------------- */

__device__ __forceinline__ uint32_t atomic_add(uint32_t *at, uint32_t value) { return atomicAdd(at, value); }
__device__ __forceinline__ uint64_t atomic_add(uint64_t *at, uint64_t value) {
  return atomicAdd(reinterpret_cast<unsigned long long *>(at), static_cast<unsigned long long>(value));
}
__device__ __forceinline__ uint32_t atomic_max(uint32_t *at, uint32_t value) { return atomicMax(at, value); }
__device__ __forceinline__ uint64_t atomic_max(uint64_t *at, uint64_t value) {
  return atomicMax(reinterpret_cast<unsigned long long *>(at), static_cast<unsigned long long>(value));
}
__device__ __forceinline__ uint64_t atomic_min(uint64_t *at, uint64_t value) {
  return atomicMin(reinterpret_cast<unsigned long long *>(at), static_cast<unsigned long long>(value));
}
/* Counts 0, 1, ... last, 0, ...: a ticket that needs no reset. */
__device__ __forceinline__ uint32_t atomic_ticket(uint32_t *at, uint32_t last) { return atomicInc(at, last); }

/* ---- Threads, warps, blocks ------------------------------------------------------------------------------------- */

__device__ __forceinline__ unsigned thread_rank() {
  return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}
__device__ __forceinline__ unsigned block_rank() {
  return blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
}
__device__ __forceinline__ unsigned lane() { return thread_rank() % warp_size; }

/* Sums over `width` lanes (a power of two). Each of them gets the sum. The order never changes. */
template <int width = 32, typename T>
__device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
  for (int step = width / 2; step > 0; step /= 2) x += __shfl_xor_sync(full_mask, x, step);
  return x;
}
template <int width = 32, typename T>
__device__ __forceinline__ T warp_max(T x) {
#pragma unroll
  for (int step = width / 2; step > 0; step /= 2) x = max(x, __shfl_xor_sync(full_mask, x, step));
  return x;
}

/* Of a block of `threads`, to thread 0 alone (others get a part), in an order that never changes. Two barriers, the
 * last at the end: what was read before may be written after, and it may be called again at once. */
template <int threads, typename T>
__device__ __forceinline__ T block_sum(T x) {
  static_assert(threads % 32 == 0 && threads <= 1024, "whole warps");
  constexpr int warps = threads / 32;
  TARE_SHARED(T[warps], partial);
  x = warp_sum(x);
  if (lane() == 0) partial[thread_rank() / warp_size] = x;
  __syncthreads();
  if (thread_rank() < warp_size) {
    x = lane() < warps ? partial[lane()] : T(0);
    x = warp_sum(x);
  }
  __syncthreads();
  return x;
}

/* ---- The last block ----------------------------------------------------------------------------------------------
 * True in the threads of the block that arrives last, which then sees all that the other blocks wrote before. `ticket`
 * is 0 at first and again afterwards. Two barriers. One thread stands for its block: a fence between a barrier and the
 * ticket covers what the whole block wrote, and 255 fewer of them wait for the block's stores. */
__device__ __forceinline__ bool last_block(uint32_t *ticket) {
  TARE_SHARED(bool, last);
  __syncthreads();
  if (thread_rank() == 0) {
    const uint32_t blocks = gridDim.x * gridDim.y * gridDim.z;
    __threadfence(); /* what the block wrote, before its ticket */
    last = atomic_ticket(ticket, blocks - 1) == blocks - 1;
    __threadfence(); /* the others' writes, after the ticket */
  }
  __syncthreads();
  return last;
}

/* ---- The grid's barrier ------------------------------------------------------------------------------------------
 * For cooperative launches, by all threads. The last block to arrive does `work` before any block goes on. The state is
 * 0 at first and serves every launch that follows, of any grid, as long as two do not run at a time: `arrived` comes
 * back to 0 by itself, `generation` only ever grows. */
struct grid_barrier_state {
  uint32_t arrived;
  uint32_t generation;
};

template <typename Work>
__device__ __forceinline__ void grid_barrier(grid_barrier_state *state, Work &&work) {
  volatile const uint32_t *const generation = &state->generation;
  const uint32_t mine = *generation; /* before arriving: the last to arrive raises it */
  if (last_block(&state->arrived)) {
    work();
    __syncthreads();
    if (thread_rank() == 0) {
      __threadfence(); /* what the block wrote, before the others go on */
      atomic_add(&state->generation, 1u);
    }
  } else {
    if (thread_rank() == 0) {
      while (*generation == mine) __nanosleep(32);
      __threadfence(); /* the others' writes, after their arrival */
    }
    __syncthreads();
  }
}

__device__ __forceinline__ void grid_barrier(grid_barrier_state *state) {
  grid_barrier(state, [] {});
}

}  // namespace tare

#endif
