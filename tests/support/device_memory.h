/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of a GPU, or of the emulated one, for the table of devices: through CUDA's runtime, whichever is linked.
 */
#ifndef TARE_TESTS_DEVICE_MEMORY_H
#define TARE_TESTS_DEVICE_MEMORY_H

#include <stddef.h>

void *cuda_allocate(size_t bytes);
void cuda_release(void *memory);
void cuda_upload(void *to, const void *from, size_t bytes);
void cuda_download(void *to, const void *from, size_t bytes);

/** The name of an error that the library's calls left pending in the runtime; NULL for none. */
const char *cuda_pending_error(void);

#endif
