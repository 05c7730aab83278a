/* SPDX-License-Identifier: Apache-2.0 */
/* Work on streams. Each stream has its own order. Work runs when somebody waits for it, when other work that waits for
 * it runs, or when a stream holds too much of it; under a seed also at any call. So nothing is there that was not
 * waited for, and streams that nothing orders take turns in an order that no program may count on. */
#include <map>
#include <set>

#include "stream.h"
#include "thread.h"

namespace emulator {

namespace {

constexpr size_t most_queued = 1000; /* on a stream; a GPU holds about as many launches */

uint64_t submitted = 0;
std::map<uint64_t, CUstream_st *> pending; /* what has not run, by its number */
std::set<CUstream_st *> busy;              /* streams that have some of it */

/* The default stream waits for what blocking streams had before, and they for what it had. */
void run_what_blocks(const CUstream_st *stream, uint64_t number) {
  if (stream->flags & cudaStreamNonBlocking) return;
  for (auto first = pending.begin(); first != pending.end() && first->first < number;) {
    CUstream_st *const other = first->second;
    const bool blocks = other->device == stream->device && !(other->flags & cudaStreamNonBlocking) &&
                        other->is_legacy != stream->is_legacy;
    const uint64_t at = first->first;
    if (blocks) run_through(at);
    first = pending.upper_bound(at);
  }
}

void run_first(CUstream_st *stream) {
  const queued first = std::move(stream->queue.front());
  stream->queue.pop_front();
  if (stream->queue.empty()) busy.erase(stream);
  pending.erase(first.number);
  run_what_blocks(stream, first.number);
  run_through(first.after);
  first.work.run();
  if (stream->destroyed && stream->queue.empty()) delete stream;
}

CUstream_st *any_stream() {
  const uint64_t from = pending.begin()->first, to = pending.rbegin()->first;
  return pending.lower_bound(from + random_bits() % (to - from + 1))->second;
}

/* What a GPU may do at any time. */
void make_progress() {
  if (seed() == 0) return;
  while (!pending.empty() && random_bits() % 4 == 3) run_first(any_stream());
}

}  // namespace

uint64_t put(CUstream_st *stream, operation work, uint64_t after) {
  const uint64_t number = ++submitted;
  stream->queue.push_back({std::move(work), number, after});
  pending[number] = stream;
  busy.insert(stream);
  if (stream->queue.size() > most_queued) run_first(stream);
  make_progress();
  return number;
}

bool has_run(uint64_t number) { return !pending.count(number); }

void run_through(uint64_t number) {
  while (!has_run(number)) run_first(pending[number]);
}

uint64_t last_of(const CUstream_st *stream) { return stream->queue.empty() ? 0 : stream->queue.back().number; }

void wait_until(uint64_t number) {
  while (!has_run(number)) {
    make_progress();
    if (!has_run(number)) run_first(pending[number]);
  }
}

/* Streams take turns. */
cudaError_t wait_for_all() {
  while (!pending.empty()) {
    make_progress();
    std::set<uint64_t> firsts;
    for (const CUstream_st *stream : busy) firsts.insert(stream->queue.front().number);
    for (const uint64_t number : firsts)
      if (!has_run(number)) run_first(pending[number]);
  }
  return cudaSuccess;
}

}  // namespace emulator
