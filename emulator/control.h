/* SPDX-License-Identifier: Apache-2.0 */
/* What a test can ask of the emulator beyond CUDA. Usable from C. Where the real runtime is linked instead, these do
 * not exist: guard their use with TARE_EMULATED. */
#ifndef TARE_EMULATOR_CONTROL_H
#define TARE_EMULATOR_CONTROL_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Instead of the environment variables TARE_EMULATOR_SEED, _PROFILE (tiny, cache, h100) and _NO_DEVICE (driver, old,
 * none; "" for a device that works). False for an unknown name. */
void tare_emulator_set_seed(uint64_t seed);
bool tare_emulator_set_profile(const char *name);
bool tare_emulator_set_no_device(const char *why);

/* How many devices there are, 1 to 4, without a context on any of them. They are alike. */
bool tare_emulator_set_devices(int count);
/* Whether the device's primary context has been made; the context that is current to this thread; and makes a context
 * that is not the primary one current, as a caller of the driver may. */
bool tare_emulator_has_context(int device);
void *tare_emulator_current_context(void);
void *tare_emulator_make_context(int device);

/* The call of this name ("cudaMalloc"; a launch is "cudaLaunchKernelExC"; "": any call) fails with `error` after
 * `successes` more of them went well, once. A sticky error then stays, as on a GPU, until tare_emulator_recover. */
void tare_emulator_fail(const char *call, unsigned successes, cudaError_t error);
void tare_emulator_recover(void);

/* Whether the failure that was planned last has come; if not, it never will. */
bool tare_emulator_failed(void);

/* What a search for cuBLAS finds: "there" (the default), "loaded" (another part of the process has it already, as
 * libcublas.so.12), "missing", "stripped" (it lacks a function), "11" (a version too old). False for an unknown name. A
 * search that succeeded is remembered by who made it. */
bool tare_emulator_set_cublas(const char *what);

/* Products executed so far. */
uint64_t tare_emulator_products_run(void);

/* Kernels executed so far, and bytes of device memory now allocated. */
uint64_t tare_emulator_kernels_run(void);
uint64_t tare_emulator_bytes_allocated(void);

#ifdef __cplusplus
}
#endif

#endif
