/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads cuBLAS: first of all the copy that this process has already, as PyTorch's has, so that there is one of it; else
 * by the names that carry a major version that is known here, since the bare name may belong to any version. It is
 * never unloaded. What failed is tried again by the next call: the library may have been brought in since.
 */
#include "blas.cuh"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

namespace tare {

namespace {

constexpr int least_major = 12;
constexpr const char *names[] = {"libcublas.so.13", "libcublas.so.12"};

struct found_library {
  void *handle;
  const char *name;
};

found_library find_library(tare_error *error) {
  const char *const given = getenv("TARE_CUBLAS");
  if (given && *given) {
    void *const handle = dlopen(given, RTLD_NOW | RTLD_LOCAL);
    if (!handle) tare_fail(error, TARE_STATUS_NO_BLAS, "cuBLAS cannot be loaded from TARE_CUBLAS: %s", dlerror());
    return {handle, given};
  }
  for (const int only_if_there : {RTLD_NOLOAD, 0})
    for (const char *name : names)
      if (void *const handle = dlopen(name, RTLD_NOW | RTLD_LOCAL | only_if_there)) return {handle, name};
  const char *const why = dlerror();
  tare_fail(
      error, TARE_STATUS_NO_BLAS,
      "the fused head needs cuBLAS of CUDA 12 or 13, and neither %s nor %s can be loaded (%s): install it, load it "
      "before (importing PyTorch does), or name its path in the environment variable TARE_CUBLAS",
      names[0], names[1], why ? why : "no reason given");
  return {nullptr, nullptr};
}

/** Puts a function in its place in the table; false if the library does not have it. */
template <typename Function>
bool find_function(const found_library &library, const char *name, Function *place, tare_error *error) {
  *place = reinterpret_cast<Function>(dlsym(library.handle, name));
  if (!*place)
    tare_fail(error, TARE_STATUS_NO_BLAS,
              "%s has no %s: it is too old; the fused head needs cuBLAS of CUDA %d or newer", library.name, name,
              least_major);
  return *place != nullptr;
}

bool fill(const found_library &library, blas_table *table, tare_error *error) {
  return find_function(library, "cublasGetProperty", &table->GetProperty, error) &&
         find_function(library, "cublasGetStatusName", &table->GetStatusName, error) &&
         find_function(library, "cublasCreate_v2", &table->Create, error) &&
         find_function(library, "cublasDestroy_v2", &table->Destroy, error) &&
         find_function(library, "cublasSetStream_v2", &table->SetStream, error) &&
         find_function(library, "cublasSetWorkspace_v2", &table->SetWorkspace, error) &&
         find_function(library, "cublasSetPointerMode_v2", &table->SetPointerMode, error) &&
         find_function(library, "cublasSetMathMode", &table->SetMathMode, error) &&
         find_function(library, "cublasGemmEx", &table->GemmEx, error);
}

tare_status check_version(const found_library &library, const blas_table &table, tare_error *error) {
  int major = 0;
  const blas_status status = table.GetProperty(MAJOR_VERSION, &major);
  if (status == blas_success && major >= least_major) return TARE_STATUS_OK;
  return tare_fail(error, TARE_STATUS_NO_BLAS, "%s is version %d; the fused head needs cuBLAS of CUDA %d or newer",
                   library.name, major, least_major);
}

tare_status load(blas_table *table, tare_error *error) {
  const found_library library = find_library(error);
  if (!library.handle || !fill(library, table, error)) return TARE_STATUS_NO_BLAS;
  return check_version(library, *table, error);
}

pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
blas_table loaded;
bool is_loaded = false;
blas_handle *not_lent = nullptr; /* a list */

}  // namespace

tare_status load_blas(const blas_table **table, tare_error *error) {
  pthread_mutex_lock(&one_at_a_time);
  const tare_status status = is_loaded ? TARE_STATUS_OK : load(&loaded, error);
  if (status == TARE_STATUS_OK) is_loaded = true;
  pthread_mutex_unlock(&one_at_a_time);
  *table = status == TARE_STATUS_OK ? &loaded : nullptr;
  return status;
}

blas_handle *borrow_blas_handle(const void *primary) {
  pthread_mutex_lock(&one_at_a_time);
  blas_handle **place = &not_lent;
  while (*place && (*place)->primary != primary) place = &(*place)->next;
  blas_handle *const found = *place;
  if (found) *place = found->next;
  pthread_mutex_unlock(&one_at_a_time);
  return found;
}

blas_handle *make_blas_handle(const blas_table *table, const void *primary, tare_error *error) {
  blas_handle *const made = static_cast<blas_handle *>(calloc(1, sizeof *made));
  if (!made) {
    tare_fail(error, TARE_STATUS_OUT_OF_MEMORY, "no memory for a handle of cuBLAS (%zu bytes)", sizeof *made);
    return nullptr;
  }
  made->primary = primary;
  blas_status status = table->Create(&made->of_cublas);
  if (status == blas_success) status = table->SetMathMode(made->of_cublas, blas_f32_reductions);
  if (status == blas_success) return made;
  tare_fail(error, TARE_STATUS_CUDA_ERROR, "cuBLAS does not start: %s", table->GetStatusName(status));
  if (made->of_cublas) table->Destroy(made->of_cublas);
  free(made);
  return nullptr;
}

void return_blas_handle(blas_handle *handle) {
  pthread_mutex_lock(&one_at_a_time);
  handle->next = not_lent;
  not_lent = handle;
  pthread_mutex_unlock(&one_at_a_time);
}

}  // namespace tare
