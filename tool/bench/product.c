/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products: one row-major form, by a CBLAS or by cuBLAS, whichever the device has; both are loaded by name, as the
 * library does it.
 */
#define _GNU_SOURCE
#include "product.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "tool/base/problem.h"

#ifndef TARE_BLAS_NAME
#define TARE_BLAS_NAME ""
#endif

/* A matrix as it lies: rows of `width` elements, read as it is or transposed. */
struct operand {
  const void *data;
  int64_t width;
  bool transposed;
};

typedef void cblas_sgemm_function(int, int, int, int, int, int, float, const float *, int, const float *, int, float,
                                  float *, int);
typedef int cublas_create_function(void **);
typedef int cublas_gemm_function(void *, int, int, int, int, int, const void *, const void *, int, int, const void *,
                                 int, int, const void *, void *, int, int, int, int);

static cblas_sgemm_function *cblas_sgemm;
static cublas_gemm_function *cublas_gemm;
static void *cublas;

static int find(void *library, const char *library_name, const char *name, void *function) {
  void *symbol = library ? dlsym(library, name) : NULL;
  if (!symbol) return complain("--head: no %s in %s: %s", name, library_name, library ? "not there" : dlerror());
  memcpy(function, &symbol, sizeof symbol);
  return TOOL_OK;
}

static int open_cblas(void) {
  const char *name = getenv("TARE_BLAS");
  if (!name) name = TARE_BLAS_NAME;
  if (!*name)
    return complain("--head: this tool was built without a CBLAS; name one in the environment variable TARE_BLAS");
  return find(dlopen(name, RTLD_NOW | RTLD_LOCAL), name, "cblas_sgemm", &cblas_sgemm);
}

static int open_cublas(void) {
  const char *given = getenv("TARE_CUBLAS"), *const usual[] = {"libcublas.so.13", "libcublas.so.12"};
  const char *name = given && *given ? given : usual[0];
  void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (!library && name == usual[0]) library = dlopen(name = usual[1], RTLD_NOW | RTLD_LOCAL);
  cublas_create_function *create = NULL;
  int status = find(library, name, "cublasCreate_v2", &create);
  if (status == TOOL_OK) status = find(library, name, "cublasGemmEx", &cublas_gemm);
  if (status == TOOL_OK && (!create || create(&cublas) != 0)) status = complain("--head: cublasCreate failed");
  return status;
}

int product_open(struct device *device, int32_t dtype) {
  if (device_is_gpu(device)) return open_cublas();
  if (dtype != TARE_DTYPE_F32)
    return misuse("--head: on the CPU only f32 can be compared, because a CBLAS has no half types");
  return open_cblas();
}

static int cuda_type(int32_t dtype) {
  enum { CUDA_R_32F = 0, CUDA_R_16F = 2, CUDA_R_16BF = 14 };
  return dtype == TARE_DTYPE_F16 ? CUDA_R_16F : dtype == TARE_DTYPE_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

/* cuBLAS stores columns: its product of the operands the other way round is ours, row by row. */
static void multiply(int64_t m, int64_t n, int64_t k, struct operand a, struct operand b, int32_t dtype, void *c,
                     int32_t c_dtype) {
  enum { ROW_MAJOR = 101, PLAIN = 111, TRANSPOSED = 112, COMPUTE_32F = 68, ALGORITHM_DEFAULT = -1 };
  if (!cublas) {
    cblas_sgemm(ROW_MAJOR, a.transposed ? TRANSPOSED : PLAIN, b.transposed ? TRANSPOSED : PLAIN, (int)m, (int)n, (int)k,
                1, a.data, (int)a.width, b.data, (int)b.width, 0, c, (int)n);
    return;
  }
  const float one = 1, zero = 0;
  const int type = cuda_type(dtype);
  if (cublas_gemm(cublas, b.transposed, a.transposed, (int)n, (int)m, (int)k, &one, b.data, type, (int)b.width, a.data,
                  type, (int)a.width, &zero, c, cuda_type(c_dtype), (int)n, COMPUTE_32F, ALGORITHM_DEFAULT) != 0) {
    complain("--head: cublasGemmEx failed");
    exit(TOOL_FAILED);
  }
}

void product_logits(const struct classifier *c, void *logits) {
  multiply(c->rows, c->classes, c->dimensions, (struct operand){c->features, c->dimensions, false},
           (struct operand){c->weights, c->dimensions, true}, c->dtype, logits, c->dtype);
}

void product_weights_gradient(const struct classifier *c, const void *slope) {
  multiply(c->classes, c->dimensions, c->rows, (struct operand){slope, c->classes, true},
           (struct operand){c->features, c->dimensions, false}, c->dtype, c->weights_gradient, TARE_DTYPE_F32);
}

void product_features_gradient(const struct classifier *c, const void *slope) {
  multiply(c->rows, c->dimensions, c->classes, (struct operand){slope, c->classes, false},
           (struct operand){c->weights, c->dimensions, false}, c->dtype, c->features_gradient, c->dtype);
}
