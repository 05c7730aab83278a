/* SPDX-License-Identifier: Apache-2.0 */
/* The emulator's own tests: counting checks, and arrays on the device. */
#ifndef TARE_EMULATOR_TEST_H
#define TARE_EMULATOR_TEST_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#include <vector>

void check(bool good, const char *what, const char *file, int line);
#define CHECK(condition) check((condition), #condition, __FILE__, __LINE__)
#define CHECK_OK(call) CHECK((call) == cudaSuccess)

/* An array on the device, copied there and back. */
template <typename T>
struct array {
  T *data = nullptr;
  size_t size;
  explicit array(size_t n) : size(n) {
    CHECK(cudaMalloc(reinterpret_cast<void **>(&data), n * sizeof(T)) == cudaSuccess);
  }
  array(size_t n, T value) : array(std::vector<T>(n, value)) {}
  explicit array(const std::vector<T> &from) : array(from.size()) {
    CHECK_OK(cudaMemcpy(data, from.data(), size * sizeof(T), cudaMemcpyHostToDevice));
    CHECK_OK(cudaDeviceSynchronize()); /* it may have returned before the bytes are there */
  }
  array(const array &) = delete;
  ~array() { cudaFree(data); }
  std::vector<T> get() const {
    std::vector<T> to(size);
    CHECK_OK(cudaMemcpy(to.data(), data, size * sizeof(T), cudaMemcpyDeviceToHost));
    return to;
  }
};

void test_kernels(); /* right kernels */
void test_numbers(); /* conversions and intrinsics */
void test_speed();
void test_runtime();       /* the runtime's stand-in */
void test_runtime_first(); /* while no kernel is loaded */
void test_runtime_once();
void test_planted(); /* wrong kernels */

#endif
