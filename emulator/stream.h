/* SPDX-License-Identifier: Apache-2.0 */
/* What lies behind CUDA's stream, event and graph handles. */
#ifndef TARE_EMULATOR_STREAM_H
#define TARE_EMULATOR_STREAM_H

#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "device.h"

namespace emulator {

/* How much of each stream's captured work comes before what is put there next. */
using coverage = std::map<const CUstream_st *, size_t>;

struct capture {
  unsigned long long number = 0;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id owner;
  bool invalid = false;
  std::vector<CUstream_st *> streams; /* the first began it, the others joined through events */
  std::map<const CUstream_st *, coverage> covered;
  std::vector<operation> work;
};

/* Work gets a number when it is submitted, higher than all before. */
struct queued {
  operation work;
  uint64_t number;
  uint64_t after; /* of other work that must run before; 0: none */
};

CUstream_st *find_stream(cudaStream_t handle); /* null if there is none; the default ones are the current device's */

uint64_t put(CUstream_st *stream, operation work, uint64_t after); /* its number */
bool has_run(uint64_t number);
void run_through(uint64_t number); /* all of its stream's work up to it, and what that waits for */
void wait_until(uint64_t number);  /* the same for the host; under a seed other work may run meanwhile */
uint64_t last_of(const CUstream_st *stream);

}  // namespace emulator

struct CUstream_st {
  unsigned flags = 0;
  int device = 0;
  bool is_legacy = false;
  bool destroyed = false; /* its work still runs */
  std::deque<emulator::queued> queue;
  std::shared_ptr<emulator::capture> recording;
};

struct CUevent_st {
  uint64_t number = 0; /* of the work that records it; 0: not recorded */
  std::chrono::steady_clock::time_point when;
  std::weak_ptr<emulator::capture> recording;
  emulator::coverage covered; /* by what it recorded in a capture */
};

struct CUgraph_st {
  std::vector<emulator::operation> work;
};

struct CUgraphExec_st {
  std::vector<emulator::operation> work;
};

#endif
