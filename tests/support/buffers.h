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
  size_t behind;         /* bytes of the guard behind it */
  size_t mapped;         /* of a mapping with walls, which `block` lies in; 0: an allocation of the device */
} buffer;

/** `bytes` of device memory, `misalign` bytes past a multiple of 64, with guards on both sides, filled with 0xFF
 *  (NaN in every format). */
buffer *buffer_new(const test_device *device, size_t bytes, size_t misalign);

/** `bytes` that begin at a multiple of 16, wherever they lie. */
buffer *buffer_for_workspace(const test_device *device, size_t bytes);

/** A buffer that holds a copy of `bytes` from `data`. */
buffer *buffer_of(const test_device *device, const void *data, size_t bytes);

void buffer_free(buffer *buffer);

/** Where the buffers made from now on lie: 0 between guards (the default); 1: their end, 2: their start, or as near to
 *  it as alignment allows, at memory that must not be touched, so that reading outside them fails too. A device's own
 *  memory ends, for 1, where its allocation ends. `misalign` then means nothing. */
void buffers_against_wall(int side);

/** Sends `before` to the device. */
void buffer_upload(buffer *buffer);

/** Fetches `now`; fails the test, naming `what`, where a guard was written to. */
void buffer_download(buffer *buffer, const char *what);

/** Downloads, and fails the test if a byte differs from what was uploaded. */
void buffer_expect_unchanged(buffer *buffer, const char *what);

/** The device pointer, or NULL for no buffer. */
void *buffer_memory(const buffer *buffer);

#endif
