/* SPDX-License-Identifier: Apache-2.0 */
/* What lies behind CUDA's stream, event and graph handles. */
#ifndef TARE_EMULATOR_STREAM_H
#define TARE_EMULATOR_STREAM_H

#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "device.h"

namespace emulator {

struct capture {
  unsigned long long number = 0;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id owner;
  bool invalid = false;
  std::vector<CUstream_st *> streams; /* the first began it, the others joined through events */
  std::vector<operation> work;
};

CUstream_st *find_stream(cudaStream_t handle); /* null if there is none */

}  // namespace emulator

struct CUstream_st {
  unsigned flags = 0;
  std::shared_ptr<emulator::capture> recording;
};

struct CUevent_st {
  bool recorded = false, done = false;
  std::chrono::steady_clock::time_point when;
  std::weak_ptr<emulator::capture> recording;
};

struct CUgraph_st {
  std::vector<emulator::operation> work;
};

struct CUgraphExec_st {
  std::vector<emulator::operation> work;
};

#endif
