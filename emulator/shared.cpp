/* SPDX-License-Identifier: Apache-2.0 */
/* Shared memory of a block: an arena from which each variable is cut on first use, full of rubbish and between red
 * zones (poisoned under AddressSanitizer, else a pattern that is looked at when the block ends). */
#include <string.h>
#include <sys/mman.h>

#include "asan.h"
#include "device.h"
#include "shared.h"
#include "thread.h"

namespace emulator {

namespace {

constexpr size_t red_zone = 256;
constexpr unsigned char canary = 0xb5;
constexpr size_t arena_bytes = size_t(512) << 10;

/* The zone behind `before` and in front of `after`; one of them may be missing. */
void check_zone(const block &b, const char *zone, const char *end, const char *before, const char *after) {
  for (const char *at = zone; at < end; at++)
    if (static_cast<unsigned char>(*at) != canary)
      fail("shared memory of block (%u,%u,%u) written out of bounds: %td bytes past the end of %s, or %td before %s",
           b.index.x, b.index.y, b.index.z, at - zone + 1, before, end - at, after);
}

/* Cuts `size` bytes, with a red zone behind; the one in front is the previous variable's or the arena's own. */
char *cut(block &b, const void *site, const char *name, size_t size, size_t alignment) {
  if (alignment < 16) alignment = 16;
  const size_t start = (b.arena_used + alignment - 1) & ~(alignment - 1);
  const size_t end = start + size + red_zone;
  if (end > arena_bytes) fail("shared memory: more than the emulator's arena holds");
  char *data = b.arena + start;
  unpoison(b.arena + b.arena_used, end - b.arena_used);
  memset(b.arena + b.arena_used, canary, end - b.arena_used);
  poison(b.arena + b.arena_used, end - b.arena_used);
  unpoison(data, size);
  fill(data, size);
  b.arena_used = end;
  b.variables.push_back({site, name, data, size});
  return data;
}

}  // namespace

void open_shared(block &b) {
  if (!b.arena) {
    b.arena = static_cast<char *>(
        mmap(nullptr, arena_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (b.arena == MAP_FAILED) fail("no memory for a block's shared memory");
  }
  memset(b.arena, canary, red_zone);
  poison(b.arena, arena_bytes);
  b.arena_used = red_zone;
  b.static_used = 0;
  b.dynamic = nullptr;
  b.variables.clear();
}

void close_shared(block &b) {
  unpoison(b.arena, b.arena_used);
  const char *from = b.arena;
  const char *name = "nothing";
  for (const shared_variable &v : b.variables) {
    check_zone(b, from, v.data, name, v.name);
    from = v.data + v.size;
    name = v.name;
  }
  check_zone(b, from, b.arena + b.arena_used, name, "nothing");
}

void *shared_variable_at(const void *site, const char *name, size_t size, size_t alignment) {
  block &b = *self->its_block;
  for (const shared_variable &v : b.variables)
    if (v.site == site) return v.data;
  b.static_used += size;
  const device_profile &device = profile();
  if (b.static_used > device.shared_per_block)
    fail("TARE_SHARED %s: %zu bytes of static shared memory; ptxas allows %zu", name, b.static_used,
         device.shared_per_block);
  note_static_shared(launched->kernel, b.static_used);
  if (b.static_used + launched->dynamic_shared > device.shared_per_block_optin)
    fail("TARE_SHARED %s: %zu static and %zu dynamic bytes of shared memory; this device has %zu", name, b.static_used,
         launched->dynamic_shared, device.shared_per_block_optin);
  return cut(b, site, name, size, alignment);
}

void *dynamic_shared() {
  block &b = *self->its_block;
  if (!b.dynamic) b.dynamic = cut(b, &b.dynamic, "the dynamic part", launched->dynamic_shared, 128);
  return b.dynamic;
}

}  // namespace emulator
