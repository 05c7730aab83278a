/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cublas_check LIBRARY: the library's own table of cuBLAS (cuda/blas.cuh) against cublas_v2.h, when this file is
 * compiled; then loads the real cuBLAS by the library's own code and asks it to start, which without a GPU it refuses.
 */
#include <cublas_v2.h>
#include <stdio.h>
#include <stdlib.h>

#include <type_traits>

#include "cuda/blas.cu"

namespace {

/** Enumerations are passed as int, whatever they are called. */
template <typename T>
struct as_passed {
  using type = std::conditional_t<std::is_enum<T>::value, int, T>;
};
template <typename T>
struct as_passed<T *> {
  using type = std::conditional_t<std::is_enum<T>::value, int *, T *>;
};

template <typename F>
struct signature;
template <typename R, typename... A>
struct signature<R (*)(A...)> {
  using type = typename as_passed<R>::type(typename as_passed<A>::type...);
};

template <typename Ours, typename Theirs>
constexpr bool is_same = std::is_same<typename signature<Ours>::type, typename signature<Theirs>::type>::value;

using gemm = cublasStatus_t (*)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int, const void *,
                                const void *, cudaDataType, int, const void *, cudaDataType, int, const void *, void *,
                                cudaDataType, int, cublasComputeType_t, cublasGemmAlgo_t);

using table = tare::blas_table;
static_assert(is_same<decltype(table::GetProperty), decltype(&cublasGetProperty)>, "cublasGetProperty");
static_assert(is_same<decltype(table::GetStatusName), decltype(&cublasGetStatusName)>, "cublasGetStatusName");
static_assert(is_same<decltype(table::Create), decltype(&cublasCreate_v2)>, "cublasCreate");
static_assert(is_same<decltype(table::Destroy), decltype(&cublasDestroy_v2)>, "cublasDestroy");
static_assert(is_same<decltype(table::SetStream), decltype(&cublasSetStream_v2)>, "cublasSetStream");
static_assert(is_same<decltype(table::SetWorkspace), decltype(&cublasSetWorkspace_v2)>, "cublasSetWorkspace");
static_assert(is_same<decltype(table::SetPointerMode), decltype(&cublasSetPointerMode_v2)>, "cublasSetPointerMode");
static_assert(is_same<decltype(table::SetMathMode), decltype(&cublasSetMathMode)>, "cublasSetMathMode");
static_assert(is_same<decltype(table::GemmEx), decltype(static_cast<gemm>(&cublasGemmEx))>, "cublasGemmEx");

static_assert(int(tare::blas_success) == int(CUBLAS_STATUS_SUCCESS), "status");
static_assert(int(tare::blas_as_it_is) == int(CUBLAS_OP_N) && int(tare::blas_transposed) == int(CUBLAS_OP_T), "op");
static_assert(int(tare::blas_host_scalars) == int(CUBLAS_POINTER_MODE_HOST), "pointer mode");
static_assert(int(tare::blas_device_scalars) == int(CUBLAS_POINTER_MODE_DEVICE), "pointer mode");
static_assert(int(tare::blas_compute_f32) == int(CUBLAS_COMPUTE_32F), "compute type");
static_assert(int(tare::blas_default_algorithm) == int(CUBLAS_GEMM_DEFAULT), "algorithm");
static_assert(int(tare::blas_f32_reductions) ==
                  (int(CUBLAS_DEFAULT_MATH) | int(CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION)),
              "math mode");

}  // namespace

int main(int count, char **arguments) {
  if (count < 2 || !*arguments[1]) {
    printf("no libcublas here\n");
    return 77;
  }
  setenv("TARE_CUBLAS", arguments[1], 1);
  tare_error error;
  const tare::blas_table *blas = nullptr;
  if (tare::load_blas(&blas, &error) != TARE_STATUS_OK) {
    printf("%s\n", error.text);
    return 1;
  }
  cublasContext *handle = nullptr;
  const tare::blas_status status = blas->Create(&handle);
  printf("%s starts with %s\n", arguments[1], blas->GetStatusName(status));
  if (status == tare::blas_success) blas->Destroy(handle);
  return 0;
}
