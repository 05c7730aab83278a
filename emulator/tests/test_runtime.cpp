/* SPDX-License-Identifier: Apache-2.0 */
/* The runtime's stand-in answers as CUDA does. */
#include <stdlib.h>
#include <string.h>

#include <thread>

#include "control.h"
#include "kernels.h"
#include "test.h"

namespace {

void test_graph() {
  cudaStream_t stream, other;
  cudaEvent_t event;
  CHECK_OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  CHECK_OK(cudaStreamCreate(&other));
  CHECK_OK(cudaEventCreate(&event));
  const array<uint32_t> values(100, 0u);
  void *untouched = nullptr;
  cudaStreamCaptureStatus status;
  CHECK_OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  CHECK_OK(launch_increment(values.data, 100, 3, stream));
  CHECK_OK(cudaEventRecord(event, stream)); /* and on another stream, which joins through the event */
  CHECK_OK(cudaStreamWaitEvent(other, event, 0));
  CHECK_OK(launch_increment(values.data, 50, 1, other));
  CHECK_OK(cudaMemsetAsync(values.data + 60, 0, 4, stream));
  CHECK_OK(cudaEventRecord(event, other)); /* and is joined again */
  CHECK_OK(cudaStreamWaitEvent(stream, event, 0));
  CHECK_OK(cudaStreamIsCapturing(other, &status));
  CHECK(status == cudaStreamCaptureStatusActive);
  CHECK(cudaStreamIsCapturing(nullptr, &status) == cudaErrorStreamCaptureImplicit);
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  CHECK_OK(cudaStreamEndCapture(stream, &graph));
  size_t nodes = 0;
  CHECK_OK(cudaGraphGetNodes(graph, nullptr, &nodes));
  CHECK(nodes == 3);
  CHECK(values.get()[1] == 0); /* nothing has run */
  CHECK_OK(cudaGraphInstantiate(&executable, graph, 0));
  CHECK_OK(cudaGraphDestroy(graph));
  for (int i = 0; i < 5; i++) CHECK_OK(cudaGraphLaunch(executable, stream));
  CHECK_OK(cudaStreamSynchronize(stream));
  CHECK(values.get()[60] == 0 && values.get()[49] == 20 && values.get()[50] == 15);
  CHECK_OK(cudaGraphExecDestroy(executable));

  /* What is unsafe spoils the capture; a relaxed thread may. */
  CHECK_OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  CHECK_OK(cudaThreadExchangeStreamCaptureMode(&mode));
  CHECK_OK(cudaMalloc(&untouched, 16));
  CHECK_OK(cudaThreadExchangeStreamCaptureMode(&mode));
  CHECK(cudaMalloc(&untouched, 16) == cudaErrorStreamCaptureUnsupported);
  CHECK(launch_increment(values.data, 100, 3, stream) == cudaErrorStreamCaptureInvalidated);
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated);
  CHECK(graph == nullptr);
  CHECK_OK(cudaFree(untouched));
  CHECK_OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  CHECK(cudaStreamSynchronize(stream) == cudaErrorStreamCaptureUnsupported);
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated);
  CHECK_OK(cudaEventDestroy(event));
  CHECK_OK(cudaStreamDestroy(stream));
  CHECK_OK(cudaStreamDestroy(other));
  CHECK(launch_increment(values.data, 100, 3, stream) == cudaErrorInvalidResourceHandle);
  cudaGetLastError();
}

void test_memory() {
  const array<float> a(100, 1.0f), b(100, 2.0f);
  float host[100];
  CHECK(cudaMemcpy(host, a.data, 400, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(a.data, host, 400, cudaMemcpyDeviceToDevice) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(host, a.data + 1, 400, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(nullptr, a.data, 4, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
  CHECK(cudaMemset(host, 0, 4) == cudaErrorInvalidValue);
  CHECK(cudaFree(host) == cudaErrorInvalidValue);
  CHECK(cudaFree(a.data + 1) == cudaErrorInvalidValue);
  CHECK(cudaPeekAtLastError() == cudaErrorInvalidValue);
  CHECK(cudaGetLastError() == cudaErrorInvalidValue);
  CHECK(cudaGetLastError() == cudaSuccess);
  CHECK_OK(cudaMemcpy(a.data, b.data, 400, cudaMemcpyDefault));
  CHECK(a.get()[99] == 2);
  cudaPointerAttributes attributes;
  CHECK_OK(cudaPointerGetAttributes(&attributes, a.data + 50));
  CHECK(attributes.type == cudaMemoryTypeDevice && attributes.device == 0);
  CHECK_OK(cudaPointerGetAttributes(&attributes, host));
  CHECK(attributes.type == cudaMemoryTypeUnregistered);
  void *pinned = nullptr, *never = nullptr;
  CHECK_OK(cudaMallocHost(&pinned, 64));
  CHECK_OK(cudaPointerGetAttributes(&attributes, pinned));
  CHECK(attributes.type == cudaMemoryTypeHost);
  CHECK_OK(cudaFreeHost(pinned));
  CHECK(cudaMalloc(&never, size_t(1) << 50) == cudaErrorMemoryAllocation && never == nullptr);
  const array<float> fresh(64);
  for (const float v : fresh.get()) CHECK(v != 0); /* nobody may count on zeros */
  tare_emulator_fail("cudaMalloc", 1, cudaErrorMemoryAllocation);
  CHECK_OK(cudaMalloc(&pinned, 8));
  CHECK(cudaMalloc(&never, 8) == cudaErrorMemoryAllocation);
  CHECK_OK(cudaFree(pinned));
  CHECK_OK(cudaMalloc(&pinned, 8));
  CHECK_OK(cudaFree(pinned));
  cudaGetLastError();
}

void test_launch_limits() {
  const array<uint32_t> out(4096);
  const auto refused = [&](dim3 grid, dim3 block) {
    return launch_indices(out.data, grid, block) == cudaErrorInvalidConfiguration;
  };
  CHECK(refused(1, 1025));
  CHECK(refused(1, dim3(32, 64)));
  CHECK(refused(1, dim3(1, 1, 65)));
  CHECK(refused(0, 32));
  CHECK(refused(1, 0));
  CHECK(refused(dim3(1, 65536), 32));
  CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration);

  tare_emulator_fail("cudaLaunchKernelExC", 0, cudaErrorIllegalAddress);
  CHECK(launch_indices(out.data, 1, 32) == cudaErrorIllegalAddress);
  CHECK(cudaDeviceSynchronize() == cudaErrorIllegalAddress); /* a lost device stays lost */
  CHECK(cudaGetLastError() == cudaErrorIllegalAddress && cudaGetLastError() == cudaErrorIllegalAddress);
  tare_emulator_recover();
  CHECK_OK(cudaDeviceSynchronize());
  CHECK_OK(cudaGetLastError());
}

void test_devices() {
  int count = -1, version = -1, value = 0;
  CHECK(cudaGetDeviceCount(&count) == cudaSuccess && count == 1);
  CHECK_OK(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, 0));
  CHECK(value == 2);
  CHECK(tare_emulator_set_profile("h100") && !tare_emulator_set_profile("abacus"));
  cudaDeviceProp properties;
  CHECK_OK(cudaGetDeviceProperties(&properties, 0));
  CHECK(properties.major == 9 && properties.multiProcessorCount == 132 && properties.sharedMemPerBlockOptin == 232448);
  CHECK(tare_emulator_set_profile("tiny"));
  CHECK(cudaSetDevice(1) == cudaErrorInvalidDevice);

  CHECK(tare_emulator_set_no_device("driver"));
  CHECK(cudaGetDeviceCount(&count) == cudaErrorInsufficientDriver && count == 0);
  CHECK(cudaDriverGetVersion(&version) == cudaSuccess && version == 0);
  CHECK(tare_emulator_set_no_device("old"));
  CHECK(cudaGetDeviceCount(&count) == cudaErrorInsufficientDriver);
  CHECK(cudaDriverGetVersion(&version) == cudaSuccess && version == 12040);
  CHECK(tare_emulator_set_no_device("none"));
  CHECK(cudaGetDeviceCount(&count) == cudaErrorNoDevice);
  CHECK(strcmp(cudaGetErrorName(cudaErrorNoDevice), "cudaErrorNoDevice") == 0);
  CHECK(tare_emulator_set_no_device(""));
  cudaGetLastError();
}

/* Work waits until somebody does, so what a caller forgets to wait for is not there. */
void test_queue() {
  cudaStream_t stream;
  CHECK_OK(cudaStreamCreate(&stream));
  const array<uint32_t> values(10, 0u);
  const uint64_t before = tare_emulator_kernels_run();
  CHECK_OK(launch_increment(values.data, 10, 1, stream));
  CHECK(tare_emulator_kernels_run() == before);
  CHECK(cudaStreamQuery(stream) == cudaErrorNotReady);
  CHECK_OK(cudaStreamQuery(stream));
  CHECK(tare_emulator_kernels_run() == before + 1);
  CHECK_OK(launch_increment(values.data, 10, 1, stream));
  CHECK_OK(cudaStreamDestroy(stream)); /* its work still runs */
  CHECK_OK(cudaDeviceSynchronize());
  CHECK(values.get()[9] == 2);
}

/* Each stream has an order of its own; events, and for blocking streams the default one, put streams in order. */
void test_streams() {
  cudaStream_t a, b, blocking;
  cudaEvent_t event;
  CHECK_OK(cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking));
  CHECK_OK(cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking));
  CHECK_OK(cudaStreamCreate(&blocking));
  CHECK_OK(cudaEventCreate(&event));
  const array<uint32_t> values(10, 0u);
  const uint64_t before = tare_emulator_kernels_run();
  const auto runs = [&] { return tare_emulator_kernels_run() - before; };
  CHECK_OK(launch_increment(values.data, 10, 1, a));
  CHECK_OK(launch_increment(values.data, 10, 1, b));
  CHECK_OK(cudaStreamSynchronize(b));
  CHECK(runs() == 1); /* a is not waited for */
  CHECK_OK(cudaEventRecord(event, a));
  CHECK_OK(cudaStreamWaitEvent(b, event, 0));
  CHECK_OK(launch_increment(values.data, 10, 1, b));
  CHECK_OK(cudaStreamSynchronize(b));
  CHECK(runs() == 3);
  CHECK_OK(launch_increment(values.data, 10, 1, blocking));
  CHECK_OK(launch_increment(values.data, 10, 1, a));
  CHECK_OK(launch_increment(values.data, 10, 1, nullptr));
  CHECK_OK(launch_increment(values.data, 10, 1, blocking));
  CHECK_OK(cudaStreamSynchronize(nullptr));
  CHECK(runs() == 6); /* but not a's */
  CHECK_OK(cudaStreamSynchronize(a));
  CHECK(runs() == 7 && values.get()[3] == 7);

  /* A copy from pageable memory has been read when the call returns, and is not there yet. */
  const uint32_t nine = 9;
  CHECK_OK(cudaMemcpy(values.data, &nine, sizeof nine, cudaMemcpyHostToDevice));
  CHECK_OK(launch_increment(values.data, 10, 1, a));
  CHECK_OK(cudaStreamSynchronize(a));
  CHECK(values.get()[0] == 9); /* and not 10 */
  CHECK_OK(cudaEventDestroy(event));
  for (cudaStream_t stream : {a, b, blocking}) CHECK_OK(cudaStreamDestroy(stream));
}

cudaStream_t begin_capture() {
  cudaStream_t stream;
  CHECK_OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  CHECK_OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  return stream;
}

void end_capture(cudaStream_t stream, cudaError_t expected) {
  cudaGraph_t graph = nullptr;
  CHECK(cudaStreamEndCapture(stream, &graph) == expected);
  if (graph) CHECK_OK(cudaGraphDestroy(graph));
  CHECK_OK(cudaStreamDestroy(stream));
  cudaGetLastError();
}

/* What a capture does not survive. */
void test_captures() {
  const array<uint32_t> values(10, 0u);
  cudaStream_t other, stream = begin_capture(); /* a kernel that is not loaded yet, before any other test */
  CHECK(launch_increment(values.data, 10, 1, stream) == cudaErrorStreamCaptureUnsupported);
  end_capture(stream, cudaErrorStreamCaptureInvalidated);
  CHECK_OK(launch_increment(values.data, 10, 1, nullptr));
  stream = begin_capture();
  CHECK_OK(launch_increment(values.data, 10, 1, stream));
  end_capture(stream, cudaSuccess);

  stream = begin_capture(); /* a launch that fails */
  tare_emulator_fail("cudaLaunchKernelExC", 0, cudaErrorLaunchOutOfResources);
  CHECK(launch_increment(values.data, 10, 1, stream) == cudaErrorLaunchOutOfResources);
  CHECK(launch_increment(values.data, 10, 1, stream) == cudaErrorStreamCaptureInvalidated);
  end_capture(stream, cudaErrorStreamCaptureInvalidated);

  CHECK_OK(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
  cudaEvent_t event;
  CHECK_OK(cudaEventCreate(&event));
  stream = begin_capture(); /* waiting for anything */
  CHECK(cudaStreamSynchronize(other) == cudaErrorStreamCaptureUnsupported);
  end_capture(stream, cudaErrorStreamCaptureInvalidated);
  CHECK_OK(cudaEventRecord(event, other));
  stream = begin_capture();
  CHECK(cudaEventQuery(event) == cudaErrorStreamCaptureUnsupported);
  end_capture(stream, cudaErrorStreamCaptureInvalidated);
  stream = begin_capture(); /* an event from outside */
  CHECK(cudaStreamWaitEvent(stream, event, 0) == cudaErrorStreamCaptureIsolation);
  end_capture(stream, cudaSuccess);
  stream = begin_capture(); /* a stream that is not joined again */
  CHECK_OK(cudaEventRecord(event, stream));
  CHECK_OK(cudaStreamWaitEvent(other, event, 0));
  CHECK_OK(launch_increment(values.data, 10, 1, other));
  end_capture(stream, cudaErrorStreamCaptureUnjoined);
  CHECK_OK(cudaEventDestroy(event));
  CHECK_OK(cudaStreamDestroy(other));
}

/* Setting a device makes a context there; streams belong to the device that they were made on. */
void test_contexts() {
  CHECK(tare_emulator_set_devices(2) && !tare_emulator_set_devices(5));
  int device = -1;
  CHECK(cudaGetDevice(&device) == cudaSuccess && device == 0 && !tare_emulator_has_context(0));
  CHECK_OK(cudaSetDevice(1));
  CHECK(tare_emulator_has_context(1) && !tare_emulator_has_context(0));
  cudaStream_t stream;
  CHECK_OK(cudaStreamCreate(&stream));
  const array<uint32_t> values(10, 0u);
  CHECK_OK(launch_increment(values.data, 10, 1, stream));
  CHECK_OK(cudaSetDevice(0));
  CHECK(tare_emulator_has_context(0));
  CHECK(launch_increment(values.data, 10, 1, stream) == cudaErrorInvalidResourceHandle);
  CHECK(cudaSetDevice(2) == cudaErrorInvalidDevice);
  CHECK_OK(cudaStreamDestroy(stream));
  CHECK_OK(cudaDeviceSynchronize());
  CHECK(tare_emulator_set_devices(1));
  cudaGetLastError();
}

/* Several host threads, each with a stream of its own. */
void test_threads() {
  constexpr unsigned count = 4, launches = 50;
  const array<uint32_t> values(count * 1000, 0u);
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < count; i++)
    threads.emplace_back([&, i] {
      cudaStream_t stream;
      bool good = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess;
      for (unsigned k = 0; k < launches; k++)
        good &= launch_increment(values.data + i * 1000, 1000, i + 1, stream) == cudaSuccess;
      good &= cudaStreamSynchronize(stream) == cudaSuccess && cudaStreamDestroy(stream) == cudaSuccess;
      if (!good) abort();
    });
  for (std::thread &t : threads) t.join();
  const std::vector<uint32_t> got = values.get();
  for (unsigned i = 0; i < count; i++)
    CHECK(got[i * 1000] == launches * (i + 1) && got[i * 1000 + 999] == got[i * 1000]);
}

}  // namespace

void test_runtime() {
  test_graph();
  test_memory();
  test_threads();
}

void test_runtime_first() { test_captures(); }

void test_runtime_once() {
  test_launch_limits();
  test_devices();
  test_queue();
  test_streams();
  test_contexts();
}
