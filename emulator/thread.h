/* SPDX-License-Identifier: Apache-2.0 */
/* What an emulated thread, warp and block consist of, and the launch that is running. One launch runs at a time, on
 * one host thread (the runtime's lock sees to it), so what is "current" is a plain global. */
#ifndef TARE_EMULATOR_THREAD_H
#define TARE_EMULATOR_THREAD_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

/* CUDA's own names: of the running thread, set whenever its fiber is entered. */
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace emulator {

constexpr unsigned warp_size = 32;

/* A line of the kernel. As a default argument it is the caller's line. */
struct place {
  const char *file;
  int line;
  static constexpr place here(const char *file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

/* A thread leaves its fiber only in these ways; `at` says where, `doing` with which operation. */
enum class state { ready, at_barrier, in_warp_operation, yielding, exited };

/* A stack and where its thread stopped. It runs thread_body() again and again, once for each block it serves. */
struct fiber {
  void *context = nullptr;
  char *stack_bottom = nullptr;
  size_t stack_size = 0;
  void *fake_stack = nullptr; /* AddressSanitizer's */
};

struct block;
struct warp;

/* See copies.h. */
struct pending_copy {
  void *to;
  const void *from;
  unsigned group;
};

struct thread {
  fiber stack;
  uint3 index = {};
  unsigned lane = 0;
  block *its_block = nullptr;
  warp *its_warp = nullptr;
  state now = state::ready;
  const char *doing = "";
  place at = {"", 0};
  std::vector<pending_copy> copies;
  unsigned copy_groups = 0;
};

/* Lanes as bit masks. Values are in two rows that alternate: a fast lane may write its value for the next operation
 * while a slow one still reads this one. It cannot be two operations ahead. */
struct warp {
  thread *lanes[warp_size] = {};
  uint32_t members = 0;
  uint32_t ready = 0;
  uint32_t arrived = 0;
  uint32_t exited = 0;
  unsigned turn = 0;
  uint64_t values[2][warp_size] = {};
};

struct shared_variable {
  const void *site; /* one per declaration (and template instance), see shared.h */
  const char *name;
  char *data;
  size_t size;
};

struct block {
  uint3 index = {};
  bool live = false;
  std::vector<warp> warps;
  std::vector<std::unique_ptr<thread>> threads;
  unsigned at_barrier = 0;
  const thread *first_at_barrier = nullptr;
  unsigned exited = 0;
  const thread *last_to_exit = nullptr;
  unsigned yielding = 0;
  unsigned barrier_turn = 0;
  int barrier_sum[2] = {}; /* of __syncthreads_count and its kin */
  char *arena = nullptr;   /* shared memory, with red zones */
  size_t arena_used = 0;
  size_t static_used = 0;
  char *dynamic = nullptr;
  std::vector<shared_variable> variables;
};

struct launch {
  const void *kernel;
  dim3 grid;
  dim3 threads;
  size_t dynamic_shared;
  bool cooperative;
  std::function<void()> body; /* the kernel with its arguments, for one thread */
};

extern thread *self;           /* the running thread; null on the host */
extern const launch *launched; /* null on the host */

/* run.cpp */
void run_grid(); /* what is `launched` */
[[noreturn]] void thread_body();

/* fiber.cpp */
void make_fiber(fiber &stack);
void enter(fiber &stack); /* from the scheduler */
void leave(fiber &stack); /* back to the scheduler */

/* sync.cpp */
int arrive_at_barrier(int value, const char *doing, place at); /* the sum of all threads' values */
void check_nobody_waits_for(thread &exiting);
void wait_for_others(const char *doing, place at); /* until they have run: for spinning */
void maybe_yield();                                /* now and then, where another thread might get in between */

/* shared.cpp */
void open_shared(block &b);
void close_shared(block &b); /* checks red zones */

/* report.cpp */
[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
[[noreturn]] void fail_divergent(const thread &here, const thread &there, const char *why);
void describe(const thread &t, char *text, size_t size);

/* seed.cpp */
uint64_t seed();
uint64_t random_bits();               /* 0 for ever if the seed is 0 */
void fill(void *memory, size_t size); /* what fresh memory holds: never zero, different under another seed */

}  // namespace emulator

#endif
