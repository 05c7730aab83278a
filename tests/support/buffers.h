/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Device memory between two guards. A buffer remembers what was uploaded, so that after a call a test can tell an
 * input that was written to, an output written outside its places, and anything written beyond either end.
 */
#ifndef TARE_TESTS_BUFFERS_H
#define TARE_TESTS_BUFFERS_H

#include <stddef.h>

#include "devices.h"

typedef struct buffer {
  const test_device *device;
  size_t bytes;
  void *memory;          /* device memory: what a call gets */
  unsigned char *before; /* host: the bytes as they were uploaded */
  unsigned char *now;    /* host: the bytes as last downloaded */
  unsigned char *block;  /* device: the whole allocation */
  size_t offset;         /* of `memory` in it */
} buffer;

/** `bytes` of device memory, `misalign` bytes past a multiple of 64, with guards on both sides, filled with 0xFF
 *  (NaN in every format). */
buffer *buffer_new(const test_device *device, size_t bytes, size_t misalign);

/** A buffer that holds a copy of `bytes` from `data`. */
buffer *buffer_of(const test_device *device, const void *data, size_t bytes);

void buffer_free(buffer *buffer);

/** Sends `before` to the device. */
void buffer_upload(buffer *buffer);

/** Fetches `now`; fails the test, naming `what`, where a guard was written to. */
void buffer_download(buffer *buffer, const char *what);

/** Downloads, and fails the test if a byte differs from what was uploaded. */
void buffer_expect_unchanged(buffer *buffer, const char *what);

/** The device pointer, or NULL for no buffer. */
void *buffer_memory(const buffer *buffer);

#endif
