/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines without a GPU that works: what is missing is said, and TARE_DEVICE_AUTO takes the CPU at once. The emulator
 * plays each such machine (TARE_EMULATOR_NO_DEVICE), and CUDA calls that fail; the library as it is shipped is tried on
 * the machine at hand.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support/devices.h"
#include "support/problem.h"

#ifdef TARE_TEST_EMULATED
#include "control.h"
#endif

static tare_status open_device(int32_t device, tare_context **context) {
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = device;
  *context = NULL;
  return tare_context_create(context, &options);
}

static void expect_text(const char *text, const char *part) {
  if (strstr(text, part) == NULL) cr_assert_fail("the text does not say '%s': %s", part, text);
}

/* ---- AUTO ------------------------------------------------------------------------------------------------------ */

/* Milliseconds that the first context of a fresh process takes, 254 for longer. */
static int milliseconds_to_open(void) {
  const pid_t child = fork();
  cr_assert_geq(child, 0);
  if (child == 0) {
    struct timespec from, to;
    tare_context *context;
    clock_gettime(CLOCK_MONOTONIC, &from);
    const tare_status status = open_device(TARE_DEVICE_AUTO, &context);
    clock_gettime(CLOCK_MONOTONIC, &to);
    tare_context_destroy(context);
    const double taken = (double)(to.tv_sec - from.tv_sec) * 1e3 + (double)(to.tv_nsec - from.tv_nsec) * 1e-6;
    _exit(status != TARE_STATUS_OK ? 255 : taken > 254 ? 254 : (int)taken);
  }
  int status = 0;
  cr_assert_eq(waitpid(child, &status, 0), child);
  cr_assert(WIFEXITED(status) && WEXITSTATUS(status) != 255, "no context");
  return WEXITSTATUS(status);
}

static void expect_cpu_at_once(const char *why) {
  tare_context *context;
  cr_assert_eq(open_device(TARE_DEVICE_AUTO, &context), TARE_STATUS_OK, "%s", tare_error_text(NULL));
  tare_context_description description = {.struct_size = sizeof description};
  cr_assert_eq(tare_context_describe(context, &description), TARE_STATUS_OK);
  cr_assert_eq(description.device, TARE_DEVICE_CPU);
  if (why == NULL) cr_assert_neq(description.reason[0], '\0', "no reason");
  if (why != NULL) expect_text(description.reason, why);
  tare_context_destroy(context);
  int best = 254;
  if (test_under_qemu()) return; /* nor is the time of an emulator that of the CPU */
  for (int i = 0; i < 5; i++) {
    const int taken = milliseconds_to_open();
    best = taken < best ? taken : best;
  }
  cr_assert_lt(best, 50, "the CPU took %d ms", best);
}

Test(driver, auto_takes_the_cpu_at_once) {
  tare_context *context;
  if (open_device(TARE_DEVICE_CUDA, &context) == TARE_STATUS_OK) {
    tare_context_destroy(context);
    cr_skip_test("a GPU works here");
  }
  expect_cpu_at_once(NULL);
}

/* With its GPUs hidden no machine has one, whatever else it has. */
Test(driver, hidden_gpus_are_not_there) {
  setenv("CUDA_VISIBLE_DEVICES", "", 1);
#ifdef TARE_TEST_EMULATED
  cr_skip_test("the emulator hides nothing");
#endif
  tare_context *context;
  const tare_status status = open_device(TARE_DEVICE_CUDA, &context);
  cr_assert_null(context);
  cr_assert(status >= TARE_STATUS_NOT_BUILT && status <= TARE_STATUS_NO_DEVICE, "%s: %s", tare_status_name(status),
            tare_error_text(NULL));
  expect_cpu_at_once(status == TARE_STATUS_NOT_BUILT ? "without CUDA" : tare_error_text(NULL));
}

#ifdef TARE_TEST_EMULATED

/* ---- Machines that the emulator plays ---------------------------------------------------------------------------- */

static void expect_missing(const char *machine, tare_status want, const char *part, const char *other_part) {
  setenv("TARE_EMULATOR_NO_DEVICE", machine, 1);
  tare_context *context;
  const tare_status status = open_device(TARE_DEVICE_CUDA, &context);
  cr_assert_null(context);
  cr_assert_eq(status, want, "%s: %s", tare_status_name(status), tare_error_text(NULL));
  expect_text(tare_error_text(NULL), part);
  expect_text(tare_error_text(NULL), other_part);
  cr_assert_eq(cudaPeekAtLastError(), cudaSuccess);
  expect_cpu_at_once(part);
}

Test(driver, no_driver) { expect_missing("driver", TARE_STATUS_NO_DRIVER, "driver", "libcuda"); }
Test(driver, a_driver_that_is_too_old) { expect_missing("old", TARE_STATUS_DRIVER_TOO_OLD, "12.4", "CUDA 13"); }
Test(driver, no_device) { expect_missing("none", TARE_STATUS_NO_DEVICE, "GPU", "CUDA_VISIBLE_DEVICES"); }

Test(driver, an_index_beyond_the_last) {
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = TARE_DEVICE_CUDA;
  options.device_index = 7;
  tare_context *context = NULL;
  cr_assert_eq(tare_context_create(&context, &options), TARE_STATUS_NO_DEVICE, "%s", tare_error_text(NULL));
  expect_text(tare_error_text(NULL), "7");
}

/* ---- CUDA calls that fail ---------------------------------------------------------------------------------------- */

static void expect_no_context_when(const char *call, cudaError_t error, tare_status want, const char *part) {
  const uint64_t before = tare_emulator_bytes_allocated();
  tare_context *context;
  tare_emulator_fail(call, 0, error);
  const tare_status status = open_device(TARE_DEVICE_CUDA, &context);
  cr_assert_null(context);
  cr_assert_eq(status, want, "%s: %s: %s", call, tare_status_name(status), tare_error_text(NULL));
  expect_text(tare_error_text(NULL), part);
  cr_assert_eq(cudaPeekAtLastError(), cudaSuccess, "%s: an error was left behind", call);
  cr_assert_eq(tare_emulator_bytes_allocated(), before, "%s: memory was left behind", call);
  cr_assert_eq(open_device(TARE_DEVICE_CUDA, &context), TARE_STATUS_OK, "%s", tare_error_text(NULL));
  tare_context_destroy(context);
  cr_assert_eq(tare_emulator_bytes_allocated(), before);
}

Test(driver, creation_fails_cleanly) {
  expect_no_context_when("cudaMalloc", cudaErrorMemoryAllocation, TARE_STATUS_OUT_OF_MEMORY, "GPU memory");
  expect_no_context_when("cudaMemcpyAsync", cudaErrorUnknown, TARE_STATUS_CUDA_ERROR, "cudaErrorUnknown");
  expect_no_context_when("cudaStreamCreateWithFlags", cudaErrorUnknown, TARE_STATUS_CUDA_ERROR, "cudaErrorUnknown");
  expect_no_context_when("cudaStreamSynchronize", cudaErrorUnknown, TARE_STATUS_CUDA_ERROR, "cudaErrorUnknown");
  expect_no_context_when("cudaDeviceGetAttribute", cudaErrorUnknown, TARE_STATUS_CUDA_ERROR, "cudaErrorUnknown");
  expect_no_context_when("cudaGetDriverEntryPointByVersion", cudaErrorUnknown, TARE_STATUS_CUDA_ERROR,
                         "cudaErrorUnknown");
  expect_no_context_when("cuDevicePrimaryCtxRetain", cudaErrorDevicesUnavailable, TARE_STATUS_CUDA_ERROR,
                         "cudaErrorDevicesUnavailable");
  expect_no_context_when("cudaFuncGetAttributes", cudaErrorMemoryAllocation, TARE_STATUS_CUDA_ERROR,
                         "cudaErrorMemoryAllocation");
  expect_no_context_when("cudaFuncGetAttributes", cudaErrorNoKernelImageForDevice, TARE_STATUS_NO_DEVICE,
                         "supported by this build");
  expect_no_context_when("cudaGetDeviceCount", cudaErrorUnknown, TARE_STATUS_CUDA_ERROR, "cudaErrorUnknown");
}

/* A GPU that is there but fails is told: the caller's arrays lie on it, and a CPU context would read them. */
Test(driver, auto_takes_the_cpu_only_where_there_is_no_gpu) {
  static const struct {
    const char *call;
    cudaError_t error;
    tare_status want;
  } failures[] = {{"cudaMalloc", cudaErrorMemoryAllocation, TARE_STATUS_OUT_OF_MEMORY},
                  {"cuDevicePrimaryCtxRetain", cudaErrorDevicesUnavailable, TARE_STATUS_CUDA_ERROR},
                  {"cudaGetDeviceCount", cudaErrorUnknown, TARE_STATUS_CUDA_ERROR},
                  {"cudaFuncGetAttributes", cudaErrorMemoryAllocation, TARE_STATUS_CUDA_ERROR},
                  {"cudaMemcpyAsync", cudaErrorUnknown, TARE_STATUS_CUDA_ERROR},
                  {"cudaGetDeviceCount", cudaErrorNoDevice, TARE_STATUS_OK},
                  {"cudaFuncGetAttributes", cudaErrorNoKernelImageForDevice, TARE_STATUS_OK},
                  {"cudaFuncGetAttributes", cudaErrorUnsupportedPtxVersion, TARE_STATUS_OK}};
  for (size_t i = 0; i < sizeof failures / sizeof *failures; i++) {
    tare_context *context;
    tare_context_description description = {.struct_size = sizeof description};
    tare_emulator_fail(failures[i].call, 0, failures[i].error);
    const tare_status status = open_device(TARE_DEVICE_AUTO, &context);
    cr_assert_eq(status, failures[i].want, "%s: %s", failures[i].call, tare_status_name(status));
    if (status) {
      cr_assert_null(context);
      expect_text(tare_error_text(NULL),
                  status == TARE_STATUS_OUT_OF_MEMORY ? "GPU memory" : cudaGetErrorName(failures[i].error));
      continue;
    }
    cr_assert_eq(tare_context_describe(context, &description), TARE_STATUS_OK);
    cr_assert_eq(description.device, TARE_DEVICE_CPU);
    cr_assert_neq(description.reason[0], '\0');
    tare_context_destroy(context);
  }
}

/* ---- Several GPUs ------------------------------------------------------------------------------------------------ */

static tare_context *open_gpu(int32_t index) {
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = TARE_DEVICE_CUDA;
  options.device_index = index;
  tare_context *context = NULL;
  cr_assert_eq(tare_context_create(&context, &options), TARE_STATUS_OK, "%s", tare_error_text(NULL));
  return context;
}

/* Every call that a context takes, on GPU `index`. */
static void use_gpu(int32_t index) {
  tare_context *context = open_gpu(index);
  tare_context_description description = {.struct_size = sizeof description};
  cr_assert_eq(tare_context_describe(context, &description), TARE_STATUS_OK);
  cr_assert_eq(description.device_index, index);
  const tare_status status =
      tare_sigmoid_focal(context, 0, 8, TARE_DTYPE_F32, NULL, NULL, 2, 0.25, TARE_NORMALIZER_SUM, NULL, NULL, NULL);
  cr_assert_eq(status, TARE_STATUS_OK, "%s", tare_error_text(context));
  cr_assert_eq(tare_context_synchronize(context, NULL), TARE_STATUS_OK, "%s", tare_error_text(context));
  tare_context_destroy(context);
}

/* A rank that works on one GPU of eight must not hold memory on another: a call chooses no device for its thread. */
Test(driver, no_context_is_made_on_another_gpu) {
  cr_assert(tare_emulator_set_devices(4));
  use_gpu(3);
  int device = -1;
  cr_assert_eq(cudaGetDevice(&device), cudaSuccess);
  cr_assert_eq(device, 0, "the current device is %d", device);
  cr_assert_null(tare_emulator_current_context());
  for (int i = 0; i < 3; i++) cr_assert_not(tare_emulator_has_context(i), "a context on GPU %d", i);
}

Test(driver, the_callers_device_stays) {
  cr_assert(tare_emulator_set_devices(4));
  cr_assert_eq(cudaSetDevice(2), cudaSuccess);
  use_gpu(1);
  use_gpu(2);
  int device = -1;
  cr_assert_eq(cudaGetDevice(&device), cudaSuccess);
  cr_assert_eq(device, 2, "the current device is %d", device);
  cr_assert_not(tare_emulator_has_context(0));
}

/* A caller of the driver may have made a context of its own. */
Test(driver, the_callers_own_context_stays) {
  cr_assert(tare_emulator_set_devices(2));
  for (int index = 0; index < 2; index++) {
    const void *own = tare_emulator_make_context(0);
    use_gpu(index);
    cr_assert_eq(tare_emulator_current_context(), own);
  }
}

Test(driver, a_launch_that_fails_is_reported_and_forgotten) {
  FOR_EACH_DEVICE(device) {
    FOR_EACH_LOSS(kind) {
      problem *p = problem_new(kind, TARE_DTYPE_F32, 50, 5);
      p->want &= ~(unsigned)WANT_COUNTS;
      tare_emulator_fail("cudaLaunchKernelExC", 0, cudaErrorLaunchOutOfResources);
      outcome *o = problem_run(p, device);
      cr_assert_eq(o->status, TARE_STATUS_CUDA_ERROR, "%s: %s", tare_status_name(o->status), o->text);
      expect_text(o->text, "cudaErrorLaunchOutOfResources");
      cr_assert_eq(cudaPeekAtLastError(), cudaSuccess, "an error was left behind");
      outcome_free(o);
      CHECK_PROBLEM(p, device);
      problem_free(p);
    }
  }
}

#endif
