/* SPDX-License-Identifier: Apache-2.0 */
/* Vectors that are copied to shared memory some iterations before they are used. */
#ifndef TARE_CUDA_VECTOR_QUEUE_CUH
#define TARE_CUDA_VECTOR_QUEUE_CUH

#include "row_losses.cuh"

namespace tare {
namespace sigmoid {

constexpr int queue_slots = (most_copies_ahead + 1) * block_threads; /* of all threads of a block */
constexpr int slots_for_losses = most_elements_with_losses / 4;      /* that are room for the losses of a tile */
constexpr int slots_for_both = queue_slots > slots_for_losses ? queue_slots : slots_for_losses;

#ifdef TARE_EMULATED
inline float any_float() { return 0.0f; }
inline float load_4_bytes(shared_place at) { return *reinterpret_cast<const float *>(at); }
inline void store_4_bytes(shared_place at, float x) { *reinterpret_cast<float *>(at) = x; }
inline void store_8_bytes(shared_place at, uint2 bits) { *reinterpret_cast<uint2 *>(at) = bits; }
#else
/** What nobody looks at, without an instruction. */
__device__ __forceinline__ float any_float() {
  float x;
  asm("" : "=f"(x));
  return x;
}
__device__ __forceinline__ float load_4_bytes(shared_place at) {
  float x;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(x) : "r"(at) : "memory");
  return x;
}
__device__ __forceinline__ void store_4_bytes(shared_place at, float x) {
  asm volatile("st.shared.f32 [%0], %1;" ::"r"(at), "f"(x) : "memory");
}
__device__ __forceinline__ void store_8_bytes(shared_place at, uint2 bits) {
  asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(at), "r"(bits.x), "r"(bits.y) : "memory");
}
#endif

/** A thread's vectors, one in each of its turns, on their way into shared memory some turns before they are looked at:
 *  of loads that are waited for where they stand, too little is in flight to keep memory busy. A turn begins the copy
 *  of the vector `copies_ahead` turns later; those of the first turns begin before. */
template <cache hint, typename T>
struct vector_queue {
  static constexpr uint32_t slot_bytes = block_threads * sizeof(vector<T>);

  shared_place first, last, now, before; /* slots of this thread: the turn's own, and the one that has become free */

  template <int slots>
  __device__ __forceinline__ explicit vector_queue(vector<T> (&room)[slots])
      : first(place_in_shared(room + thread_rank())),
        last(first + copies_ahead * slot_bytes),
        now(first),
        before(last) {}
  __device__ __forceinline__ void copy(shared_place to, const T *from, bool is_there) {
    if (is_there) start_copy<hint>(to, from);
    close_copies();
  }
  /** Before the first turn, for each of the first `copies_ahead`. */
  __device__ __forceinline__ void begin(int turn, const T *from, bool is_there) {
    copy(first + uint32_t(turn) * slot_bytes, from, is_there);
  }
  /** At the beginning of a turn: copies the vector of the turn that comes `copies_ahead` later. */
  __device__ __forceinline__ void begin_turn(const T *from_ahead, bool is_there) {
    copy(before, from_ahead, is_there);
    wait_for_copies_ahead();
  }
  /** The turn's vector, if it was there. */
  __device__ __forceinline__ vector<T> vector_of_turn() const { return load_vector_at<T>(now); }
  __device__ __forceinline__ void end_turn() {
    before = now;
    now = now == last ? first : now + slot_bytes;
  }
};

}  // namespace sigmoid

}  // namespace tare

#endif
