/* SPDX-License-Identifier: Apache-2.0 */
/* The entry to the CUDA backend, in a library that has one. */
#ifndef TARE_CORE_CUDA_H
#define TARE_CORE_CUDA_H

#include "backend.h"

tare_status tare_cuda_backend_create(const tare_context_options *options, tare_backend **backend, tare_error *error);

#endif
