/* SPDX-License-Identifier: Apache-2.0 */
/* Device memory. Each allocation is a mapping of its own, gigabytes from the next, so that a wild access faults; its
 * end lies against an unmapped page, and the few bytes that alignment leaves are red zones. Outside of kernels and
 * copies all of it is protected: host code that touches it faults, as on a machine with a GPU. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>

#include "asan.h"
#include "control.h"
#include "device.h"
#include "record.h"
#include "thread.h"

namespace emulator {

namespace {

constexpr uintptr_t region_begin = uintptr_t(0x2000) << 32; /* host memory never lies here */
constexpr uintptr_t region_end = uintptr_t(0x5000) << 32;
constexpr size_t gap = size_t(4) << 30;
constexpr size_t alignment = 256; /* what cudaMalloc promises */
constexpr size_t filled_whole = size_t(64) << 20;
constexpr unsigned char canary = 0xb6;

struct allocation {
  char *map;
  size_t map_size;
  size_t size; /* that was asked for */
  unsigned number;
  int device;
};

std::map<uintptr_t, allocation> device_memory; /* by the address given out */
std::map<uintptr_t, allocation> freed_memory;  /* for reports: an address is not given out again soon */
std::map<uintptr_t, size_t> pinned_memory;
size_t allocated = 0;

char *map_somewhere(size_t size) {
  static uintptr_t next = region_begin;
  for (int attempt = 0; attempt < 1000; attempt++) {
    if (next + size + gap > region_end) {
      next = region_begin;
      freed_memory.clear();
    }
    void *wanted = reinterpret_cast<void *>(next);
    next += (size + gap + 0xffff) & ~uintptr_t(0xffff);
    void *got = mmap(wanted, size, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (got == wanted) return static_cast<char *>(got);
    if (got != MAP_FAILED) munmap(got, size);
  }
  return nullptr;
}

/* The bytes before and behind the data, within its mapping. */
template <typename F>
void for_each_zone(uintptr_t address, const allocation &a, F each) {
  char *data = reinterpret_cast<char *>(address);
  each(a.map, size_t(data - a.map), false);
  each(data + a.size, size_t(a.map + a.map_size - (data + a.size)), true);
}

void check_zones(uintptr_t address, const allocation &a) {
  for_each_zone(address, a, [&](char *zone, size_t size, bool behind) {
    unpoison(zone, size);
    for (size_t i = 0; i < size; i++)
      if (static_cast<unsigned char>(zone[i]) != canary)
        fail("device memory written out of bounds: %zu bytes %s allocation %u of %zu bytes", behind ? i + 1 : size - i,
             behind ? "past the end of" : "before the start of", a.number, a.size);
    poison(zone, size);
  });
}

cudaError_t allocate(void **pointer, size_t size) {
  static unsigned made = 0;
  if (!pointer) return cudaErrorInvalidValue;
  *pointer = nullptr;
  if (size == 0) return cudaSuccess;
  if (size > profile().memory - std::min(allocated, profile().memory)) return cudaErrorMemoryAllocation;
  const size_t page = size_t(sysconf(_SC_PAGESIZE));
  const size_t map_size = (size + 2 * alignment + page - 1) / page * page;
  char *map = map_somewhere(map_size);
  if (!map) return cudaErrorMemoryAllocation;
  char *data = map + ((map_size - size) & ~(alignment - 1));
  const uintptr_t address = reinterpret_cast<uintptr_t>(data);
  const allocation &a = device_memory[address] = {map, map_size, size, ++made, current_device()};
  for_each_zone(address, a, [](char *zone, size_t bytes, bool) {
    memset(zone, canary, bytes);
    poison(zone, bytes);
  });
  /* Larger ones stay sparse, so that offsets beyond 2^32 can be tried. */
  if (size <= filled_whole) fill(data, size);
  mprotect(map, map_size, PROT_NONE);
  allocated += size;
  *pointer = data;
  return cudaSuccess;
}

cudaError_t release(void *pointer) {
  const auto found = device_memory.find(reinterpret_cast<uintptr_t>(pointer));
  if (found == device_memory.end()) return cudaErrorInvalidValue;
  const allocation &a = found->second;
  mprotect(a.map, a.map_size, PROT_READ | PROT_WRITE);
  check_zones(found->first, a);
  for_each_zone(found->first, a, [](char *zone, size_t size, bool) { unpoison(zone, size); });
  munmap(a.map, a.map_size);
  allocated -= a.size;
  freed_memory[found->first] = a;
  device_memory.erase(found);
  return cudaSuccess;
}

template <typename Map>
auto containing(const Map &all, uintptr_t address) {
  auto after = all.upper_bound(address);
  return after == all.begin() ? all.end() : std::prev(after);
}

int opened; /* whose memory is open, while it is */

void protect(int device, int protection) {
  for (const auto &entry : device_memory)
    if (device == every_device || device == entry.second.device)
      mprotect(entry.second.map, entry.second.map_size, protection);
}

}  // namespace

memory kind_of(const void *pointer, size_t size) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
  const auto d = containing(device_memory, address);
  if (d != device_memory.end() && address + size <= d->first + d->second.size) return memory::device;
  const auto p = containing(pinned_memory, address);
  if (p != pinned_memory.end() && address < p->first + p->second)
    return address + size <= p->first + p->second ? memory::pinned : memory::unknown;
  return !pointer || (address >= region_begin && address < region_end) ? memory::unknown : memory::pageable;
}

bool looks_like_host_memory(uint64_t word) {
  if (word < uint64_t(1) << 32 || word >= uint64_t(1) << 47) return false; /* a number, or no address at all */
  if (word >= region_begin && word < region_end) return false;
  if (is_asan_shadow(word)) return false;
  if (kind_of(reinterpret_cast<void *>(word), 1) != memory::pageable) return false;
  const uintptr_t page = uintptr_t(sysconf(_SC_PAGESIZE));
  unsigned char resident;
  return mincore(reinterpret_cast<void *>(word & ~(page - 1)), 1, &resident) == 0;
}

void open_device_memory(int device) { protect(opened = device, PROT_READ | PROT_WRITE); }

void for_each_allocation(const std::function<void(const char *data, size_t size)> &use) {
  for (const auto &entry : device_memory) use(reinterpret_cast<const char *>(entry.first), entry.second.size);
}

void close_device_memory() {
  for (const auto &entry : device_memory)
    if (opened == every_device || opened == entry.second.device) check_zones(entry.first, entry.second);
  protect(opened, PROT_NONE);
}

void describe_address(const void *pointer, char *text, size_t size) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
  const auto gone = containing(freed_memory, address);
  const auto below = containing(device_memory, address);
  const auto above = device_memory.upper_bound(address);
  const size_t from_below = below == device_memory.end() ? SIZE_MAX : size_t(address - below->first);
  const size_t to_above = above == device_memory.end() ? SIZE_MAX : size_t(above->first - address);
  if (address < region_begin || address >= region_end)
    snprintf(text, size, "%p, which is not device memory", pointer);
  else if (gone != freed_memory.end() && address < gone->first + gone->second.size)
    snprintf(text, size, "byte %zu of allocation %u, which is freed", size_t(address - gone->first),
             gone->second.number);
  else if (from_below != SIZE_MAX && from_below < below->second.size)
    snprintf(text, size, "byte %zu of allocation %u of %zu bytes", from_below, below->second.number,
             below->second.size);
  else if (to_above < from_below)
    snprintf(text, size, "device memory %zu bytes before the start of allocation %u of %zu bytes", to_above,
             above->second.number, above->second.size);
  else if (from_below != SIZE_MAX)
    snprintf(text, size, "device memory %zu bytes past the end of allocation %u of %zu bytes",
             from_below - below->second.size + 1, below->second.number, below->second.size);
  else
    snprintf(text, size, "device memory at %p, which was never allocated", pointer);
}

}  // namespace emulator

using namespace emulator;

uint64_t tare_emulator_bytes_allocated(void) { return allocated; }

cudaError_t cudaMalloc(void **pointer, size_t size) {
  return api(__func__, [&] {
    const cudaError_t refused = refuse_in_capture();
    return refused ? refused : allocate(pointer, size);
  });
}

cudaError_t cudaFree(void *pointer) {
  return api(__func__, [&] {
    cudaError_t status = refuse_in_capture();
    if (!status) status = wait_for_all();
    return status || !pointer ? status : release(pointer);
  });
}

cudaError_t cudaMallocAsync(void **pointer, size_t size, cudaStream_t stream) {
  return api(__func__, [&] { return capturing(stream) ? cudaErrorNotSupported : allocate(pointer, size); });
}

cudaError_t cudaFreeAsync(void *pointer, cudaStream_t stream) {
  return api(__func__, [&] {
    if (capturing(stream)) return cudaErrorNotSupported;
    if (!device_memory.count(reinterpret_cast<uintptr_t>(pointer))) return cudaErrorInvalidValue;
    return submit(stream, {"free", [pointer] { release(pointer); }});
  });
}

cudaError_t cudaHostAlloc(void **pointer, size_t size, unsigned) {
  return api(__func__, [&] {
    const cudaError_t refused = refuse_in_capture();
    if (refused) return refused;
    if (!pointer) return cudaErrorInvalidValue;
    *pointer = size ? aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment) : nullptr;
    if (!*pointer) return size ? cudaErrorMemoryAllocation : cudaSuccess;
    fill(*pointer, size);
    pinned_memory[reinterpret_cast<uintptr_t>(*pointer)] = size;
    return cudaSuccess;
  });
}

cudaError_t cudaMallocHost(void **pointer, size_t size) { return cudaHostAlloc(pointer, size, 0); }

cudaError_t cudaFreeHost(void *pointer) {
  return api(__func__, [&] {
    cudaError_t status = refuse_in_capture();
    if (!status) status = wait_for_all();
    if (status || !pointer) return status;
    if (!pinned_memory.erase(reinterpret_cast<uintptr_t>(pointer))) return cudaErrorInvalidValue;
    free(pointer);
    return cudaSuccess;
  });
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
  return api(__func__, [&] {
    if (!free_bytes || !total) return cudaErrorInvalidValue;
    *total = profile().memory;
    *free_bytes = profile().memory - allocated;
    return cudaSuccess;
  });
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *pointer) {
  return api(__func__, [&] {
    if (!attributes) return cudaErrorInvalidValue;
    *attributes = {};
    const memory kind = kind_of(pointer, 1);
    attributes->type = kind == memory::device   ? cudaMemoryTypeDevice
                       : kind == memory::pinned ? cudaMemoryTypeHost
                                                : cudaMemoryTypeUnregistered;
    attributes->device = kind == memory::pageable || kind == memory::unknown ? -2 : 0; /* cudaInvalidDeviceId */
    if (kind == memory::device || kind == memory::pinned) attributes->devicePointer = const_cast<void *>(pointer);
    if (kind != memory::device) attributes->hostPointer = const_cast<void *>(pointer);
    return cudaSuccess;
  });
}
