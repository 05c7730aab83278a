/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stand-in for cuBLAS: plain products, added up in f32, and checks that the real one leaves out. It is found by the
 * twins of dlopen and dlsym (blas.h). Products are work on a stream like kernels: queued, captured, replayed.
 */
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <library_types.h>
#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <vector>

#include "blas.h"
#include "control.h"
#include "device.h"
#include "thread.h"

struct cublasContext {
  cudaStream_t stream = nullptr;
  void *workspace = nullptr;
  size_t workspace_bytes = 0;
  bool device_scalars = false;
};

namespace emulator {

namespace {

constexpr int success = 0, not_initialized = 1, alloc_failed = 3, invalid_value = 7, execution_failed = 13;

const char *const searches[] = {"there", "loaded", "missing", "stripped", "11"};
const char *found = searches[0];
uint64_t products;

bool found_is(const char *what) { return strcmp(found, what) == 0; }

/* ---- Products: C [m, n] = alpha A [m, k] B [k, n] + beta C, column by column ------------------------------------- */

struct matrix {
  const void *data;
  int type; /* a cudaDataType */
  int stride;
  bool transposed;
};

size_t bytes_of(int type) { return type == CUDA_R_32F ? 4 : 2; }

float read(const matrix &from, int64_t at) {
  if (from.type == CUDA_R_16F) return __half2float(static_cast<const __half *>(from.data)[at]);
  if (from.type == CUDA_R_16BF) return __bfloat162float(static_cast<const __nv_bfloat16 *>(from.data)[at]);
  return static_cast<const float *>(from.data)[at];
}

void write(const matrix &to, int64_t at, float x) {
  void *const data = const_cast<void *>(to.data);
  if (to.type == CUDA_R_16F)
    static_cast<__half *>(data)[at] = __float2half_rn(x);
  else if (to.type == CUDA_R_16BF)
    static_cast<__nv_bfloat16 *>(data)[at] = __float2bfloat16_rn(x);
  else
    static_cast<float *>(data)[at] = x;
}

/* Its rows after transposition, each contiguous. */
std::vector<float> rows_of(const matrix &from, int64_t rows, int64_t columns) {
  std::vector<float> all(size_t(rows * columns));
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < columns; c++)
      all[size_t(r * columns + c)] = read(from, from.transposed ? r * from.stride + c : c * from.stride + r);
  return all;
}

struct product {
  int64_t m, n, k;
  const void *alpha, *beta;
  float host_alpha, host_beta;
  bool device_scalars;
  matrix a, b, c;
  void *workspace;
  size_t workspace_bytes;
};

void run(const product &p) {
  open_device_memory(every_device);
  memset(p.workspace, 0xff, std::min(p.workspace_bytes, size_t(1) << 20)); /* it is cuBLAS's own */
  const float alpha = p.device_scalars ? *static_cast<const float *>(p.alpha) : p.host_alpha;
  const float beta = p.device_scalars ? *static_cast<const float *>(p.beta) : p.host_beta;
  const std::vector<float> a = rows_of(p.a, p.m, p.k);
  matrix b_rows = p.b;
  b_rows.transposed = !p.b.transposed;
  const std::vector<float> b = rows_of(b_rows, p.n, p.k); /* columns of B */
  for (int64_t j = 0; j < p.n; j++)
    for (int64_t i = 0; i < p.m; i++) {
      const float *const x = &a[size_t(i * p.k)], *const y = &b[size_t(j * p.k)];
      float part[8] = {};
      for (int64_t l = 0; l < p.k; l++) part[l % 8] += x[l] * y[l];
      float sum = ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
      sum *= alpha;
      if (beta != 0.0f) sum += beta * read(p.c, j * p.c.stride + i); /* beta 0: what stands there is not read */
      write(p.c, j * p.c.stride + i, sum);
    }
  close_device_memory();
  products++;
}

void check_matrix(const matrix &x, int64_t rows, int64_t columns, const char *name) {
  if (x.stride < (x.transposed ? columns : rows)) fail("cublasGemmEx: leading dimension %d of %s", x.stride, name);
  const int64_t along = x.transposed ? columns : rows, lines = x.transposed ? rows : columns;
  const size_t size = size_t((lines - 1) * x.stride + along) * bytes_of(x.type);
  if (kind_of(x.data, size) != memory::device) fail("cublasGemmEx: %s is not all in device memory", name);
  if (reinterpret_cast<uintptr_t>(x.data) % bytes_of(x.type)) fail("cublasGemmEx: %s is not aligned", name);
}

int check(const cublasContext &handle, const product &p, int compute, int algorithm) {
  if (p.m < 0 || p.n < 0 || p.k < 0) return invalid_value;
  if (compute != 68 || algorithm != -1) fail("cublasGemmEx: compute type %d, algorithm %d", compute, algorithm);
  if (p.a.type != p.b.type || (p.c.type != p.a.type && p.c.type != CUDA_R_32F))
    fail("cublasGemmEx: types %d, %d and %d do not go together", p.a.type, p.b.type, p.c.type);
  if (!handle.workspace) fail("cublasGemmEx: no workspace since the stream was set: its result may differ next time");
  if (p.device_scalars && (kind_of(p.alpha, 4) != memory::device || kind_of(p.beta, 4) != memory::device))
    fail("cublasGemmEx: scalars are to be in device memory");
  check_matrix(p.a, p.m, p.k, "A");
  check_matrix(p.b, p.k, p.n, "B");
  check_matrix(p.c, p.m, p.n, "C");
  return success;
}

int gemm(cublasContext *handle, int how_a, int how_b, int m, int n, int k, const void *alpha, const void *a, int type_a,
         int stride_a, const void *b, int type_b, int stride_b, const void *beta, void *c, int type_c, int stride_c,
         int compute, int algorithm) {
  int status = success;
  const cudaError_t submitted = api("cublasGemmEx", [&] {
    product p = {m,
                 n,
                 k,
                 alpha,
                 beta,
                 0,
                 0,
                 handle->device_scalars,
                 {a, type_a, stride_a, how_a != 0},
                 {b, type_b, stride_b, how_b != 0},
                 {c, type_c, stride_c, false},
                 handle->workspace,
                 handle->workspace_bytes};
    status = check(*handle, p, compute, algorithm);
    if (status) return cudaSuccess;
    if (!p.device_scalars) {
      p.host_alpha = *static_cast<const float *>(alpha);
      p.host_beta = *static_cast<const float *>(beta);
    }
    return submit(handle->stream, {"product", [p] { run(p); }});
  });
  return submitted ? execution_failed : status;
}

/* ---- Handles ----------------------------------------------------------------------------------------------------- */

int create(cublasContext **handle) {
  const cudaError_t status = api("cublasCreate", [] { return refuse_in_capture(); }); /* it allocates */
  if (status) return status == cudaErrorMemoryAllocation ? alloc_failed : not_initialized;
  *handle = new cublasContext;
  return success;
}

int destroy(cublasContext *handle) {
  const auto held = one_thread_alone();
  wait_for_all();
  delete handle;
  return success;
}

int set_stream(cublasContext *handle, cudaStream_t stream) {
  handle->stream = stream;
  handle->workspace = nullptr; /* back to the pool of its own */
  return success;
}

int set_workspace(cublasContext *handle, void *workspace, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(workspace) % 256) return invalid_value;
  if (bytes < 16384) fail("cublasSetWorkspace: %zu bytes are too few for some products", bytes);
  if (kind_of(workspace, bytes) != memory::device) fail("cublasSetWorkspace: it is not all in device memory");
  handle->workspace = workspace;
  handle->workspace_bytes = bytes;
  return success;
}

int set_pointer_mode(cublasContext *handle, int mode) {
  handle->device_scalars = mode == 1;
  return success;
}

int set_math_mode(cublasContext *, int mode) { return mode == 16 ? success : invalid_value; }

int get_property(int which, int *value) {
  *value = which != 0 ? 0 : found_is("11") ? 11 : found_is("loaded") ? 12 : 13;
  return success;
}

const char *status_name(int status) {
  if (status == not_initialized) return "CUBLAS_STATUS_NOT_INITIALIZED";
  if (status == alloc_failed) return "CUBLAS_STATUS_ALLOC_FAILED";
  if (status == invalid_value) return "CUBLAS_STATUS_INVALID_VALUE";
  return status == execution_failed ? "CUBLAS_STATUS_EXECUTION_FAILED" : "CUBLAS_STATUS_SUCCESS";
}

const struct {
  const char *name;
  void *address;
} functions[] = {{"cublasGetProperty", reinterpret_cast<void *>(get_property)},
                 {"cublasGetStatusName", reinterpret_cast<void *>(status_name)},
                 {"cublasCreate_v2", reinterpret_cast<void *>(create)},
                 {"cublasDestroy_v2", reinterpret_cast<void *>(destroy)},
                 {"cublasSetStream_v2", reinterpret_cast<void *>(set_stream)},
                 {"cublasSetWorkspace_v2", reinterpret_cast<void *>(set_workspace)},
                 {"cublasSetPointerMode_v2", reinterpret_cast<void *>(set_pointer_mode)},
                 {"cublasSetMathMode", reinterpret_cast<void *>(set_math_mode)},
                 {"cublasGemmEx", reinterpret_cast<void *>(gemm)}};

char error_text[200];

}  // namespace

/* ---- The search for it ------------------------------------------------------------------------------------------- */

void *open_library(const char *name, int flags) {
  const bool is_loaded = found_is("loaded") && strcmp(name, "libcublas.so.12") == 0;
  const bool can_be_loaded = !(flags & RTLD_NOLOAD) && !found_is("loaded") && !found_is("missing");
  if (is_loaded || (can_be_loaded && strncmp(name, "libcublas.so.13", 15) == 0)) return &found;
  snprintf(error_text, sizeof error_text, "%.100s: cannot open shared object file: No such file or directory", name);
  return nullptr;
}

void *find_symbol(void *, const char *name) {
  if (found_is("stripped") && strcmp(name, "cublasSetWorkspace_v2") == 0) return nullptr;
  for (const auto &f : functions)
    if (strcmp(f.name, name) == 0) return f.address;
  return nullptr;
}

char *library_error() { return error_text; }

}  // namespace emulator

bool tare_emulator_set_cublas(const char *what) {
  for (const char *name : emulator::searches)
    if (strcmp(name, what) == 0) {
      emulator::found = name;
      return true;
    }
  return false;
}

uint64_t tare_emulator_products_run(void) { return emulator::products; }
