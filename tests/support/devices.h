/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The devices under test. A test loops over them and is written once; a backend joins the suite with one row in
 * devices.c. The environment variable TARE_TEST_DEVICES (names separated by commas, default "cpu") chooses.
 */
#ifndef TARE_TESTS_DEVICES_H
#define TARE_TESTS_DEVICES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tare.h"

typedef struct test_device {
  const char *name;
  int32_t kind;     /* a tare_device */
  bool host_memory; /* device memory can be read and written as ordinary memory */
  void *(*allocate)(size_t bytes);
  void (*release)(void *memory);
  void (*upload)(void *to, const void *from, size_t bytes);
  void (*download)(void *to, const void *from, size_t bytes);
  tare_context *context; /* open while the device's turn lasts */
} test_device;

/** The first device that works, with a context open; skips the test visibly if there is none. */
test_device *devices_first(void);

/** The one after it, or NULL; closes the context of `device`. */
test_device *devices_next(test_device *device);

#define FOR_EACH_DEVICE(device) \
  for (test_device * (device) = devices_first(); (device) != NULL; (device) = devices_next(device))

/** A context of `threads` CPU threads (0: the default). Fails the test if it cannot be made. */
tare_context *device_context(const test_device *device, int32_t threads);

/** Whether TARE_TEST_SMALL=1 asks for small sizes (sanitizer runs). */
bool test_small(void);

/** `size`, or the smaller size where TARE_TEST_SMALL is set. */
int64_t test_size(int64_t size, int64_t small);

#endif
