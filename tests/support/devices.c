/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of devices that tests can run on, and the loop over those that TARE_TEST_DEVICES names.
 */
#include "devices.h"

#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef TARE_TESTS_RUNNER_CRITERION_H
#include <criterion/hooks.h>
#endif

#ifdef TARE_TEST_CUDA
#include "device_memory.h"
#endif

static void *cpu_allocate(size_t bytes) { return malloc(bytes); }

static void cpu_copy(void *to, const void *from, size_t bytes) {
  if (bytes > 0) memcpy(to, from, bytes);
}

static test_device known_devices[] = {
    {.name = "cpu",
     .kind = TARE_DEVICE_CPU,
     .host_memory = true,
     .allocate = cpu_allocate,
     .release = free,
     .upload = cpu_copy,
     .download = cpu_copy},
#ifdef TARE_TEST_CUDA /* "cuda", or "emulated" where the emulator stands in */
    {.name = TARE_TEST_CUDA,
     .kind = TARE_DEVICE_CUDA,
     .allocate = cuda_allocate,
     .release = cuda_release,
     .upload = cuda_upload,
     .download = cuda_download,
     .pending_error = cuda_pending_error},
#endif
};

static const size_t known_count = sizeof known_devices / sizeof *known_devices;

static bool is_wanted(const char *name) {
  const char *wanted = getenv("TARE_TEST_DEVICES");
  if (wanted == NULL || *wanted == '\0') wanted = "cpu";
  const size_t length = strlen(name);
  for (const char *at = wanted; *at != '\0';) {
    const size_t word = strcspn(at, ",");
    if (word == length && strncmp(at, name, length) == 0) return true;
    at += word + (at[word] == ',');
  }
  return false;
}

/* A name that this build of the tests does not know must not pass for a device that was tested. */
static void report_unknown_names(void) {
  const char *wanted = getenv("TARE_TEST_DEVICES");
  for (const char *at = wanted == NULL ? "" : wanted; *at != '\0';) {
    const size_t word = strcspn(at, ",");
    bool found = word == 0;
    for (size_t i = 0; i < known_count; i++) {
      found = found || (strlen(known_devices[i].name) == word && strncmp(known_devices[i].name, at, word) == 0);
    }
    if (!found) fprintf(stderr, "SKIPPED device %.*s: these tests were built without it\n", (int)word, at);
    at += word + (at[word] == ',');
  }
}

static tare_status open_context(const test_device *device, int32_t threads, tare_context **context) {
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = device->kind;
  options.threads = threads;
  return tare_context_create(context, &options);
}

/* ---- What a device does not compute ------------------------------------------------------------------------------ */

bool device_computes(const test_device *device, int32_t loss_kind, int32_t dtype) {
  if (device->kind == TARE_DEVICE_CPU) return true;
  (void)loss_kind;
  return dtype != TARE_DTYPE_F64;
}

static test_device *in_turn;
static atomic_int evaluations, refusals; /* of the device in turn; contexts may work in several threads */
static bool only_refused;                /* by every device so far */

const test_device *device_in_turn(void) { return in_turn; }

const test_device *device_able(const test_device *device, int32_t loss_kind, int32_t dtype) {
  if (device_computes(device, loss_kind, dtype)) {
    atomic_fetch_add(&evaluations, 1);
    return device;
  }
  atomic_fetch_add(&refusals, 1);
  test_device *cpu = &known_devices[0];
  if (cpu->context == NULL && open_context(cpu, 0, &cpu->context) != TARE_STATUS_OK) {
    cr_assert_fail("no CPU context: %s", tare_error_text(NULL));
  }
  return cpu;
}

static void end_turn(test_device *device) {
  const char *error = device->pending_error == NULL ? NULL : device->pending_error();
  if (error != NULL) cr_assert_fail("a call left %s behind in the runtime of %s", error, device->name);
  const int done = atomic_exchange(&evaluations, 0), refused = atomic_exchange(&refusals, 0);
  if (refused > 0) {
    fprintf(stderr, "SKIPPED on %s: %d of %d evaluations (no f64 logits there)\n", device->name, refused,
            done + refused);
  }
  only_refused = only_refused && done == 0 && refused > 0;
  tare_context_destroy(device->context);
  device->context = NULL;
}

/* ---- The loop ---------------------------------------------------------------------------------------------------- */

static test_device *next_that_works(size_t index) {
  in_turn = NULL;
  for (; index < known_count; index++) {
    test_device *device = &known_devices[index];
    if (!is_wanted(device->name)) continue;
    const tare_status status = open_context(device, 0, &device->context);
    if (status == TARE_STATUS_OK) return in_turn = device;
    if (device->kind == TARE_DEVICE_CPU) cr_assert_fail("no CPU context: %s", tare_error_text(NULL));
    fprintf(stderr, "SKIPPED device %s: %s (%s)\n", device->name, tare_status_name(status), tare_error_text(NULL));
  }
  return NULL;
}

test_device *devices_first(void) {
  report_unknown_names();
  only_refused = true;
  test_device *device = next_that_works(0);
  if (device == NULL) cr_skip_test("no device of TARE_TEST_DEVICES works here");
  return device;
}

test_device *devices_next(test_device *device) {
  end_turn(device);
  test_device *next = next_that_works((size_t)(device - known_devices) + 1);
  if (next == NULL && only_refused) cr_skip_test("%s computes nothing of this", device->name);
  return next;
}

tare_context *device_context(const test_device *device, int32_t threads) {
  tare_context *context = NULL;
  const tare_status status = open_context(device, threads, &context);
  if (status != TARE_STATUS_OK) {
    cr_assert_fail("context of %d threads on %s: %s", (int)threads, device->name, tare_error_text(NULL));
  }
  return context;
}

bool test_under_qemu(void) {
  const char *qemu = getenv("TARE_TEST_QEMU");
  return qemu != NULL && strcmp(qemu, "1") == 0;
}

bool test_small(void) {
  const char *small = getenv("TARE_TEST_SMALL");
  return small != NULL && strcmp(small, "1") == 0;
}

static bool test_is_whole(void) {
  const char *sweep = getenv("TARE_SWEEP");
  return sweep != NULL && strcmp(sweep, "all") == 0;
}

bool test_is_thinned(void) {
#ifdef __SANITIZE_ADDRESS__
  return !test_is_whole();
#else
  return false;
#endif
}

/* One case in how many a loss takes. */
static uint32_t due_of(void) {
  if (test_is_whole()) return 1;
  if (test_is_thinned()) return 3; /* and half of the losses */
  return test_small() ? 4 : 2;
}

bool test_is_due(int32_t kind, int number) {
  /* Mixed bits, as the parity of a number often says what the case is. */
  const uint32_t turn = ((uint32_t)kind * 131 + (uint32_t)number) * UINT32_C(2654435761) >> 16;
  return turn % due_of() == 0;
}

int64_t test_size(int64_t size, int64_t small) { return test_small() ? small : size; }

/* ---- Cases that hang --------------------------------------------------------------------------------------------- */

/* TARE_TEST_SECONDS ends every case that takes longer, as a failure. Criterion's own --timeout does not: version 2.4.1
 * takes the option and goes on waiting. Our own runner (tests/runner) reads the variable itself. */
#ifndef TARE_TESTS_RUNNER_CRITERION_H
ReportHook(PRE_ALL)(struct criterion_test_set *tests) {
  const char *text = getenv("TARE_TEST_SECONDS");
  const double seconds = text == NULL ? 0 : strtod(text, NULL);
  if (!(seconds > 0)) return;
  FOREACH_SET(struct criterion_suite_set * suite, tests->suites) {
    FOREACH_SET(struct criterion_test * test, suite->tests) { test->data->timeout = seconds; }
  }
}
#endif
