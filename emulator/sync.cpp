/* SPDX-License-Identifier: Apache-2.0 */
/* Where threads wait for each other: the block barrier, the warp's operations, and yielding. Stricter than a GPU:
 * all threads must come to the same line, and nobody may have left, since there it is undefined or works by luck. */
#include <string.h>

#include "thread.h"
#include "warp.h"

namespace emulator {

namespace {

bool same(const place &a, const place &b) {
  return a.line == b.line && (a.file == b.file || strcmp(a.file, b.file) == 0);
}

void require_same(const thread &me, const thread &other) {
  if (!same(me.at, other.at) || me.doing != other.doing) fail_divergent(me, other, "they do not meet");
}

void wait(thread &me, state why) {
  me.now = why;
  leave(me.stack);
}

}  // namespace

void check_nobody_waits_for(thread &exiting) {
  block &b = *exiting.its_block;
  if (b.at_barrier) fail_divergent(*b.first_at_barrier, exiting, "a barrier needs the whole block");
  if (!exiting.its_warp->arrived) return;
  for (const thread *t : exiting.its_warp->lanes)
    if (t && t->now == state::in_warp_operation) fail_divergent(*t, exiting, "the mask names all lanes");
}

int arrive_at_barrier(int value, const char *doing, place at) {
  thread &me = *self;
  block &b = *me.its_block;
  me.doing = doing;
  me.at = at;
  if (b.exited) fail_divergent(me, *b.last_to_exit, "a barrier needs the whole block");
  if (b.at_barrier) require_same(me, *b.first_at_barrier);
  if (!b.at_barrier) b.first_at_barrier = &me;

  const unsigned turn = b.barrier_turn;
  const dim3 &size = launched->threads;
  b.barrier_sum[turn] += value;
  if (++b.at_barrier < size.x * size.y * size.z) {
    wait(me, state::at_barrier);
    return b.barrier_sum[turn];
  }
  b.at_barrier = 0;
  b.barrier_turn ^= 1;
  b.barrier_sum[b.barrier_turn] = 0;
  for (warp &w : b.warps) {
    w.ready = w.members;
    for (thread *t : w.lanes)
      if (t) t->now = state::ready;
  }
  me.its_warp->ready &= ~(1u << me.lane); /* it is running */
  return b.barrier_sum[turn];
}

const uint64_t *exchange(uint32_t mask, uint64_t value, const char *doing, place at) {
  thread &me = *self;
  warp &w = *me.its_warp;
  me.doing = doing;
  me.at = at;
  if (mask != 0xffffffffu)
    fail("%s at %s:%d: mask %08x; only the full mask is emulated", doing, at.file, at.line, mask);
  if (w.members != mask) fail("%s at %s:%d: the warp has fewer than 32 threads", doing, at.file, at.line);
  if (w.exited) fail_divergent(me, *w.lanes[__builtin_ctz(w.exited)], "the mask names all lanes");
  if (w.arrived) require_same(me, *w.lanes[__builtin_ctz(w.arrived)]);

  uint64_t *values = w.values[w.turn];
  values[me.lane] = value;
  w.arrived |= 1u << me.lane;
  if (w.arrived != w.members) {
    wait(me, state::in_warp_operation);
    return values;
  }
  w.arrived = 0;
  w.turn ^= 1;
  w.ready = w.members & ~(1u << me.lane);
  for (thread *t : w.lanes) t->now = state::ready;
  return values;
}

void wait_for_others(const char *doing, place at) {
  thread &me = *self;
  me.doing = doing;
  me.at = at;
  if (!launched->cooperative)
    fail("%s at %s:%d waits for another block, which only a cooperative launch runs beside it", doing, at.file,
         at.line);
  me.its_block->yielding++;
  wait(me, state::yielding);
}

void maybe_yield() {
  if (seed() == 0 || random_bits() % 8 != 0) return;
  self->its_warp->ready |= 1u << self->lane;
  wait(*self, state::ready);
}

}  // namespace emulator
