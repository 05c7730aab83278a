/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few functions of cuBLAS that the fused head calls, as a table that is filled on first use. cuBLAS has 600 MB, and
 * a program without the fused head must not need it. Its header is not needed either: tests/checks/cublas.cpp checks
 * that the types here are those of cublas_v2.h.
 */
#ifndef TARE_CUDA_BLAS_CUH
#define TARE_CUDA_BLAS_CUH

#include <cuda_runtime_api.h>
#include <library_types.h>
#include <stddef.h>

extern "C" {
#include "core/problem.h"
}

struct cublasContext; /* what cublasHandle_t points to */

namespace tare {

/* cuBLAS's own values. */
enum blas_status : int { blas_success = 0 };
enum blas_operation : int { blas_as_it_is = 0, blas_transposed = 1 };
enum blas_pointer_mode : int { blas_host_scalars = 0, blas_device_scalars = 1 };
enum blas_compute : int { blas_compute_f32 = 68 }; /* CUBLAS_COMPUTE_32F: no TF32 in the default math mode */
enum blas_algorithm : int { blas_default_algorithm = -1 };
enum blas_math : int { blas_f32_reductions = 16 }; /* default math, and partial sums of half types never below f32 */

struct blas_table {
  blas_status (*GetProperty)(libraryPropertyType, int *);
  const char *(*GetStatusName)(blas_status);
  blas_status (*Create)(cublasContext **);
  blas_status (*Destroy)(cublasContext *);
  blas_status (*SetStream)(cublasContext *, cudaStream_t);
  blas_status (*SetWorkspace)(cublasContext *, void *, size_t);
  blas_status (*SetPointerMode)(cublasContext *, blas_pointer_mode);
  blas_status (*SetMathMode)(cublasContext *, blas_math);
  blas_status (*GemmEx)(cublasContext *, blas_operation, blas_operation, int, int, int, const void *, const void *,
                        cudaDataType, int, const void *, cudaDataType, int, const void *, void *, cudaDataType, int,
                        blas_compute, blas_algorithm);
};

/** TARE_STATUS_OK and the table, the same for all; or TARE_STATUS_NO_BLAS and what was searched. Any thread. */
tare_status load_blas(const blas_table **table, tare_error *error);

/** A handle of cuBLAS in one GPU's primary context, lent to one call at a time. Handles are kept for later calls, of
 *  any context of that GPU: one can be made neither in a capture nor quickly. A call gives its handle its own stream
 *  and workspace, so that work of the call before may still run. */
struct blas_handle {
  blas_handle *next;
  const void *primary;
  cublasContext *of_cublas;
};

/** One that is not lent, or NULL if there is none. Any thread. */
blas_handle *borrow_blas_handle(const void *primary);
/** A new one, lent to the caller; or NULL and why not. */
blas_handle *make_blas_handle(const blas_table *table, const void *primary, tare_error *error);
void return_blas_handle(blas_handle *handle);

}  // namespace tare

#endif
