/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The devices under test. A test loops over them and is written once; a backend joins the suite with one row in
 * devices.c. The environment variable TARE_TEST_DEVICES (names separated by commas, default "cpu") chooses: cpu, and
 * either cuda or, in executables named test_*_emulated, emulated.
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
  const char *(*pending_error)(void); /* what a call left behind in the device's runtime; NULL for nothing */
  tare_context *context;              /* open while the device's turn lasts */
} test_device;

/** The first device that works, with a context open; skips the test visibly if there is none. */
test_device *devices_first(void);

/** The one after it, or NULL; closes the context of `device`. */
test_device *devices_next(test_device *device);

#define FOR_EACH_DEVICE(device) \
  for (test_device * (device) = devices_first(); (device) != NULL; (device) = devices_next(device))

/** For what only a GPU has. CMake runs a test that says this on the emulated GPU and on a real one, not on the CPU. */
#define FOR_EACH_GPU(device) FOR_EACH_DEVICE(device) if ((device)->kind == TARE_DEVICE_CUDA)

/** Whether the device computes this loss on logits of this type. All that it does not is named here, and nowhere else
 *  in the tests: problem_run expects a refusal, FOR_EACH_LOSS leaves the loss out, and the test says so. */
bool device_computes(const test_device *device, int32_t loss_kind, int32_t dtype);

/** `device` if it computes that, else the CPU, with a context open, so that the test goes on. Counts one evaluation or
 *  one refusal: the test says how many were refused, and is skipped where nothing else was done. */
const test_device *device_able(const test_device *device, int32_t loss_kind, int32_t dtype);

/** The device whose turn it is, or NULL. */
const test_device *device_in_turn(void);

/** A context of `threads` CPU threads (0: the default). Fails the test if it cannot be made. */
tare_context *device_context(const test_device *device, int32_t threads);

/** Whether the test runs under qemu-user (TARE_TEST_QEMU=1), which breaks down where a process with threads forks, and
 *  keeps some bytes for each page of a mapping, used or not. */
bool test_under_qemu(void);

/** Whether TARE_TEST_SMALL=1 asks for small sizes (sanitizer runs). */
bool test_small(void);

/** Whether sweeps are for memory alone: under the sanitizers, without TARE_SWEEP=all. Losses of one kernel use it
 *  alike. */
bool test_is_thinned(void);

/**
 * Whether loss `kind` takes case `number` of a sweep over places, shapes and types, which losses share code for: half
 * of them, in small runs a quarter, and under the sanitizers a third; all of them with TARE_SWEEP=all. Each loss takes
 * other ones.
 */
bool test_is_due(int32_t kind, int number);

/** `size`, or the smaller size where TARE_TEST_SMALL is set. */
int64_t test_size(int64_t size, int64_t small);

#endif
