/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guarded device memory: [guard | misalignment | memory | guard], or with a page on either side that faults.
 */
#define _GNU_SOURCE
#include "buffers.h"

#include <criterion/criterion.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { GUARD_BYTES = 256, GUARD_FILL = 0xA5, POISON = 0xFF, ALIGNMENT = 64, PAGE = 4096 };

static int wall; /* see buffers_against_wall */

void buffers_against_wall(int side) { wall = side; }

static size_t block_bytes(const buffer *b) { return b->offset + b->bytes + b->behind; }

/* [wall | guard, memory, or memory, guard | wall]: the guard fills the pages. */
static void map_between_walls(buffer *b, size_t bytes, size_t alignment) {
  const size_t pages = (bytes + PAGE - 1) / PAGE * PAGE + (bytes == 0 ? PAGE : 0);
  b->mapped = pages + 2 * PAGE;
  unsigned char *map = mmap(NULL, b->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  cr_assert_neq((void *)map, MAP_FAILED, "no %zu bytes of memory", b->mapped);
  mprotect(map, PAGE, PROT_NONE);
  mprotect(map + PAGE + pages, PAGE, PROT_NONE);
  b->block = map + PAGE;
  b->offset = wall == 1 ? (pages - bytes) / alignment * alignment : 0;
  b->behind = pages - bytes - b->offset;
}

static void allocate(buffer *b, size_t bytes, size_t misalign, size_t alignment) {
  if (wall != 0 && b->device->host_memory) {
    map_between_walls(b, bytes, alignment);
    return;
  }
  const bool ends_there = wall == 1;
  b->behind = ends_there ? 0 : GUARD_BYTES;
  b->block = b->device->allocate(GUARD_BYTES + ALIGNMENT + misalign + bytes + b->behind);
  cr_assert_not_null(b->block, "no %zu bytes of device memory", bytes);
  const uintptr_t start = (uintptr_t)b->block + GUARD_BYTES;
  b->offset = ends_there ? GUARD_BYTES + ALIGNMENT + misalign
                         : GUARD_BYTES + (ALIGNMENT - start % ALIGNMENT) % ALIGNMENT + misalign;
}

static buffer *new_buffer(const test_device *device, size_t bytes, size_t misalign, size_t alignment) {
  buffer *b = calloc(1, sizeof *b);
  b->device = device;
  b->bytes = bytes;
  allocate(b, bytes, misalign, alignment);
  b->memory = b->block + b->offset;
  b->before = malloc(bytes + 1);
  b->now = malloc(bytes + 1);
  memset(b->before, POISON, bytes);

  unsigned char *image = malloc(block_bytes(b));
  memset(image, GUARD_FILL, block_bytes(b));
  memset(image + b->offset, POISON, bytes);
  device->upload(b->block, image, block_bytes(b));
  free(image);
  return b;
}

buffer *buffer_new(const test_device *device, size_t bytes, size_t misalign) {
  return new_buffer(device, bytes, misalign, 1);
}

buffer *buffer_for_workspace(const test_device *device, size_t bytes) { return new_buffer(device, bytes, 0, 16); }

buffer *buffer_of(const test_device *device, const void *data, size_t bytes) {
  buffer *b = buffer_new(device, bytes, 0);
  if (bytes > 0) memcpy(b->before, data, bytes);
  buffer_upload(b);
  return b;
}

void buffer_free(buffer *b) {
  if (b == NULL) return;
  if (b->mapped > 0) {
    munmap(b->block - PAGE, b->mapped);
  } else {
    b->device->release(b->block);
  }
  free(b->before);
  free(b->now);
  free(b);
}

void buffer_upload(buffer *b) { b->device->upload(b->memory, b->before, b->bytes); }

static void expect_guard(const unsigned char *bytes, size_t count, const char *side, const char *what) {
  for (size_t i = 0; i < count; i++) {
    if (bytes[i] != GUARD_FILL) cr_assert_fail("%s: byte %zu of the guard %s it was overwritten", what, i, side);
  }
}

void buffer_download(buffer *b, const char *what) {
  unsigned char *image = malloc(block_bytes(b));
  b->device->download(image, b->block, block_bytes(b));
  expect_guard(image, b->offset, "before", what);
  expect_guard(image + b->offset + b->bytes, b->behind, "after", what);
  memcpy(b->now, image + b->offset, b->bytes);
  free(image);
}

void buffer_expect_unchanged(buffer *b, const char *what) {
  buffer_download(b, what);
  for (size_t i = 0; i < b->bytes; i++) {
    if (b->now[i] != b->before[i]) cr_assert_fail("%s: byte %zu of %zu was overwritten", what, i, b->bytes);
  }
}

void *buffer_memory(const buffer *b) { return b == NULL ? NULL : b->memory; }
