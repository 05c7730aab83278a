/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guarded device memory: [guard | misalignment | memory | guard].
 */
#include "buffers.h"

#include <criterion/criterion.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { GUARD_BYTES = 256, GUARD_FILL = 0xA5, POISON = 0xFF, ALIGNMENT = 64 };

static size_t block_bytes(const buffer *b) { return b->offset + b->bytes + GUARD_BYTES; }

buffer *buffer_new(const test_device *device, size_t bytes, size_t misalign) {
  buffer *b = calloc(1, sizeof *b);
  b->device = device;
  b->bytes = bytes;
  b->block = device->allocate(GUARD_BYTES + ALIGNMENT + misalign + bytes + GUARD_BYTES);
  cr_assert_not_null(b->block, "no %zu bytes of device memory", bytes);
  const uintptr_t start = (uintptr_t)b->block + GUARD_BYTES;
  b->offset = GUARD_BYTES + (ALIGNMENT - start % ALIGNMENT) % ALIGNMENT + misalign;
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

buffer *buffer_of(const test_device *device, const void *data, size_t bytes) {
  buffer *b = buffer_new(device, bytes, 0);
  if (bytes > 0) memcpy(b->before, data, bytes);
  buffer_upload(b);
  return b;
}

void buffer_free(buffer *b) {
  if (b == NULL) return;
  b->device->release(b->block);
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
  expect_guard(image + b->offset + b->bytes, GUARD_BYTES, "after", what);
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
