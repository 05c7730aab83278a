/* SPDX-License-Identifier: Apache-2.0 */
/* Twins of CUDA's barriers, warp operations and atomics, under CUDA's own names. Exact. Each notes the line it is
 * called from. What is not here is not emulated and does not compile: add it when a kernel needs it. */
#ifndef TARE_EMULATOR_BUILTINS_H
#define TARE_EMULATOR_BUILTINS_H

#include <cstring>
#include <type_traits>

#include "thread.h"
#include "warp.h"

static constexpr int warpSize = 32;

/* ---- Barriers ---- */

inline void __syncthreads(emulator::place at = emulator::place::here()) {
  emulator::arrive_at_barrier(0, "__syncthreads", at);
}
inline int __syncthreads_count(int predicate, emulator::place at = emulator::place::here()) {
  return emulator::arrive_at_barrier(predicate != 0, "__syncthreads_count", at);
}
inline int __syncthreads_or(int predicate, emulator::place at = emulator::place::here()) {
  return emulator::arrive_at_barrier(predicate != 0, "__syncthreads_or", at) != 0;
}
inline int __syncthreads_and(int predicate, emulator::place at = emulator::place::here()) {
  return emulator::arrive_at_barrier(predicate == 0, "__syncthreads_and", at) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, emulator::place at = emulator::place::here()) {
  emulator::exchange(mask, 0, "__syncwarp", at);
}

/* Fences order nothing here; that others may get in between is what there is to see. */
inline void __threadfence() { emulator::maybe_yield(); }
inline void __threadfence_block() { emulator::maybe_yield(); }
inline void __threadfence_system() { emulator::maybe_yield(); }

/* Only for waiting until another thread does something, so others run first. */
inline void __nanosleep(unsigned, emulator::place at = emulator::place::here()) {
  emulator::wait_for_others("__nanosleep", at);
}

/* ---- Shuffles and votes ---- */

namespace emulator {

template <typename T>
uint64_t to_bits(T value) {
  static_assert(std::is_arithmetic<T>::value && sizeof(T) >= 4, "CUDA has no shuffle of this type");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  return bits;
}

/* `from` as a lane within the segment of `width` lanes; out of it gives the lane's own value, as on a GPU. */
template <typename T>
T shuffle(unsigned mask, T value, int from, bool inside, int width, const char *doing, place at) {
  if (width < 1 || width > 32 || (width & (width - 1)) != 0) fail("%s: a width of %d", doing, width);
  const int segment = int(self->lane) & ~(width - 1);
  const uint64_t *all = exchange(mask, to_bits(value), doing, at);
  if (!inside) return value;
  memcpy(&value, &all[segment + from], sizeof value);
  return value;
}

inline uint32_t ballot(unsigned mask, int predicate, const char *doing, place at) {
  const uint64_t *all = exchange(mask, predicate != 0, doing, at);
  uint32_t bits = 0;
  for (unsigned lane = 0; lane < warp_size; lane++) bits |= uint32_t(all[lane]) << lane;
  return bits;
}

}  // namespace emulator

template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, emulator::place at = emulator::place::here()) {
  return emulator::shuffle(mask, value, lane & (width - 1), true, width, "__shfl_sync", at);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, emulator::place at = emulator::place::here()) {
  const int from = int(emulator::self->lane & unsigned(width - 1)) ^ bits;
  return emulator::shuffle(mask, value, from, from < width, width, "__shfl_xor_sync", at);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, emulator::place at = emulator::place::here()) {
  const int from = int(emulator::self->lane & unsigned(width - 1)) + int(by);
  return emulator::shuffle(mask, value, from, from < width, width, "__shfl_down_sync", at);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, emulator::place at = emulator::place::here()) {
  const int from = int(emulator::self->lane & unsigned(width - 1)) - int(by);
  return emulator::shuffle(mask, value, from, from >= 0, width, "__shfl_up_sync", at);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, emulator::place at = emulator::place::here()) {
  return emulator::ballot(mask, predicate, "__ballot_sync", at);
}
inline int __any_sync(unsigned mask, int predicate, emulator::place at = emulator::place::here()) {
  return emulator::ballot(mask, predicate, "__any_sync", at) != 0;
}
inline int __all_sync(unsigned mask, int predicate, emulator::place at = emulator::place::here()) {
  return emulator::ballot(mask, predicate, "__all_sync", at) == 0xffffffffu;
}

/* ---- Atomics, of integers alone: sums of floats would depend on the order ---- */

namespace emulator {

template <typename T>
constexpr bool atomic_type =
    std::is_same<T, int>::value || std::is_same<T, unsigned>::value || std::is_same<T, unsigned long long>::value;

template <typename T, typename F>
T atomic(T *address, F change) {
  static_assert(atomic_type<T>, "CUDA has no such atomic; floating-point ones are not wanted");
  maybe_yield();
  const T old = *address;
  *address = change(old);
  return old;
}

/* Lets the value alone be converted, as CUDA's overloads do: atomicAdd(&an_unsigned, 1). */
template <typename T>
using as = typename std::common_type<T>::type;

}  // namespace emulator

template <typename T>
T atomicAdd(T *address, emulator::as<T> value) {
  using U = std::make_unsigned_t<T>;
  return emulator::atomic(address, [=](T old) { return T(U(old) + U(value)); });
}
template <typename T>
T atomicMax(T *address, emulator::as<T> value) {
  return emulator::atomic(address, [=](T old) { return old < value ? value : old; });
}
template <typename T>
T atomicMin(T *address, emulator::as<T> value) {
  return emulator::atomic(address, [=](T old) { return value < old ? value : old; });
}
template <typename T>
T atomicOr(T *address, emulator::as<T> value) {
  return emulator::atomic(address, [=](T old) { return old | value; });
}
template <typename T>
T atomicAnd(T *address, emulator::as<T> value) {
  return emulator::atomic(address, [=](T old) { return old & value; });
}
template <typename T>
T atomicExch(T *address, emulator::as<T> value) {
  return emulator::atomic(address, [=](T) { return value; });
}
template <typename T>
T atomicCAS(T *address, emulator::as<T> expected, emulator::as<T> value) {
  return emulator::atomic(address, [=](T old) { return old == expected ? value : old; });
}
inline unsigned atomicInc(unsigned *address, unsigned limit) {
  return emulator::atomic(address, [=](unsigned old) { return old >= limit ? 0u : old + 1; });
}

#endif
