/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a grid. Rounds over the blocks that live together (all of a cooperative launch; else one, or a few under a
 * seed), over a block's warps, over a warp's lanes. A warp goes on until it waits for others of its block; under a
 * seed it may also be interrupted after each step, and every order is shuffled by an exclusive or, which flips any
 * two threads with even odds. */
#include <algorithm>

#include "thread.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulator {

thread *self = nullptr;
const launch *launched = nullptr;

void thread_body() {
  for (;;) {
    launched->body();
    thread &me = *self;
    me.now = state::exited;
    me.doing = "has exited";
    check_nobody_waits_for(me);
    me.its_warp->exited |= 1u << me.lane;
    me.its_block->exited++;
    me.its_block->last_to_exit = &me;
    leave(me.stack);
  }
}

namespace {

constexpr unsigned spin_limit = 20000; /* rounds in which nobody does anything but yield */

/* 0..size-1 in an order of the seed's: i -> i ^ key, for i below the next power of two, passing over the rest. */
struct shuffled {
  uint64_t size, span, key;
  explicit shuffled(uint64_t n) : size(n), span(1) {
    while (span < n) span *= 2;
    key = random_bits() & (span - 1);
  }
  uint64_t at(uint64_t i) const { return i ^ key; }
};

void open_block(block &b, uint64_t number) {
  const launch &l = *launched;
  const unsigned count = l.threads.x * l.threads.y * l.threads.z;
  b.index = {unsigned(number % l.grid.x), unsigned(number / l.grid.x % l.grid.y),
             unsigned(number / l.grid.x / l.grid.y)};
  while (b.threads.size() < count) {
    b.threads.push_back(std::make_unique<thread>());
    make_fiber(b.threads.back()->stack);
  }
  b.warps.assign((count + warp_size - 1) / warp_size, warp());
  for (unsigned i = 0; i < count; i++) {
    thread &t = *b.threads[i];
    warp &w = b.warps[i / warp_size];
    t.index = {i % l.threads.x, i / l.threads.x % l.threads.y, i / l.threads.x / l.threads.y};
    t.lane = i % warp_size;
    t.its_block = &b;
    t.its_warp = &w;
    t.now = state::ready;
    t.copies.clear();
    t.copy_groups = 0;
    w.lanes[t.lane] = &t;
    w.members |= 1u << t.lane;
  }
  for (warp &w : b.warps) w.ready = w.members;
  b.at_barrier = b.exited = b.yielding = 0;
  b.barrier_sum[0] = b.barrier_sum[1] = 0;
  b.live = true;
  open_shared(b);
}

void wake_yielding(block &b) {
  for (warp &w : b.warps)
    for (unsigned lane = 0; lane < warp_size; lane++)
      if (w.lanes[lane] && w.lanes[lane]->now == state::yielding) {
        w.lanes[lane]->now = state::ready;
        w.ready |= 1u << lane;
      }
  b.yielding = 0;
}

/* One step of every lane that is ready. True if one of them did more than yield. */
bool step(warp &w) {
  bool moved = false;
  const unsigned key = unsigned(random_bits() % warp_size);
  for (unsigned i = 0; i < warp_size; i++) {
    const unsigned lane = i ^ key;
    if (!(w.ready >> lane & 1)) continue;
    w.ready &= ~(1u << lane);
    self = w.lanes[lane];
    threadIdx = self->index;
    enter(self->stack);
    moved |= self->now != state::yielding;
    self = nullptr;
  }
  return moved;
}

bool round(block &b) {
  bool moved = false;
  if (b.yielding) wake_yielding(b);
  const shuffled order(b.warps.size());
  blockIdx = b.index;
  for (uint64_t i = 0; i < order.span; i++) {
    if (order.at(i) >= order.size) continue;
    warp &w = b.warps[order.at(i)];
    do {
      if (!w.ready) break;
      moved |= step(w);
    } while (random_bits() % 4 != 3);
  }
  return moved;
}

[[noreturn]] void report_stuck(const std::vector<block> &slots) {
  const thread *first = nullptr;
  for (const block &b : slots) {
    if (!b.live) continue;
    for (const auto &t : b.threads) {
      if (t->now == state::exited) continue;
      if (!first) first = t.get();
      if (t->now != first->now || t->its_block != first->its_block) fail_divergent(*first, *t, "nobody can go on");
    }
  }
  fail_divergent(*first, *first, "nobody can go on");
}

}  // namespace

void run_grid() {
  static std::vector<block> slots; /* kept, with their fibers, for later launches */
  const launch &what = *launched;
  gridDim = what.grid;
  blockDim = what.threads;
  const uint64_t blocks = uint64_t(what.grid.x) * what.grid.y * what.grid.z;
  const shuffled order(blocks);
  uint64_t next = 0, finished = 0;
  unsigned spinning = 0;
  const uint64_t together = what.cooperative ? blocks : std::min(blocks, uint64_t(1 + random_bits() % 4));
  if (slots.size() < together) slots.resize(together);

  while (finished < blocks) {
    bool moved = false;
    for (uint64_t i = 0; i < together; i++) {
      block &b = slots[i];
      if (!b.live) {
        while (next < order.span && order.at(next) >= blocks) next++;
        if (next == order.span) continue;
        open_block(b, order.at(next++));
      }
      moved |= round(b);
      if (b.exited == what.threads.x * what.threads.y * what.threads.z) {
        close_shared(b);
        b.live = false;
        finished++;
      }
    }
    spinning = moved ? 0 : spinning + 1;
    const bool yields = std::any_of(slots.begin(), slots.end(), [](const block &b) { return b.live && b.yielding; });
    if (!moved && (!yields || spinning > spin_limit)) report_stuck(slots);
  }
}

}  // namespace emulator
