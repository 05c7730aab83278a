/* SPDX-License-Identifier: Apache-2.0 */
/* Fibers on Boost.Context's bare switch (a few nanoseconds, no system call), with a guard page below each stack and
 * AddressSanitizer told of each switch. A fiber outlives its block: its stack is used again and unwinds properly, so
 * no stale poison stays on it. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <boost/context/detail/fcontext.hpp>

#include "asan.h"
#include "thread.h"

namespace emulator {

namespace {

constexpr size_t stack_bytes = TARE_EMULATOR_ASAN ? size_t(256) << 10 : size_t(64) << 10;
constexpr unsigned guarded_stacks = 16384; /* each guard page costs two of a process's 65,530 mappings */

struct {
  void *context;
  const void *stack_bottom;
  size_t stack_size;
} scheduler;

void run(boost::context::detail::transfer_t from) {
  asan_entered(nullptr, &scheduler.stack_bottom, &scheduler.stack_size);
  scheduler.context = from.fctx;
  thread_body();
}

}  // namespace

void make_fiber(fiber &stack) {
  static unsigned made = 0;
  const size_t page = size_t(sysconf(_SC_PAGESIZE));
  void *memory = mmap(nullptr, stack_bytes + page, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (memory == MAP_FAILED) fail("no memory for the stack of thread number %u", made);
  if (made < guarded_stacks) mprotect(memory, page, PROT_NONE);
  stack.stack_bottom = static_cast<char *>(memory) + page;
  /* Tops at the same offset in their pages would all fall into the same few cache sets. */
  stack.stack_size = stack_bytes - (made++ % 32) * 128;
  stack.context = boost::context::detail::make_fcontext(stack.stack_bottom + stack.stack_size, stack.stack_size, run);
}

void enter(fiber &stack) {
  void *fake;
  asan_leaving(&fake, stack.stack_bottom, stack.stack_size);
  stack.context = boost::context::detail::jump_fcontext(stack.context, nullptr).fctx;
  asan_entered(fake, nullptr, nullptr);
}

void leave(fiber &stack) {
  asan_leaving(&stack.fake_stack, scheduler.stack_bottom, scheduler.stack_size);
  void *context = boost::context::detail::jump_fcontext(scheduler.context, nullptr).fctx;
  asan_entered(stack.fake_stack, &scheduler.stack_bottom, &scheduler.stack_size);
  scheduler.context = context;
}

}  // namespace emulator
