/* SPDX-License-Identifier: Apache-2.0 */
/* Streams and their captures. Work runs when it is submitted, or under a seed when somebody waits: one queue for all
 * streams, in the order of submission, which every order of events allows. */
#include "stream.h"

#include <algorithm>
#include <deque>
#include <set>
#include <thread>

#include "device.h"
#include "thread.h"

namespace emulator {

namespace {

CUstream_st legacy;
std::set<CUstream_st *> streams;
std::vector<std::shared_ptr<capture>> captures; /* that have begun and not ended */
std::deque<operation> pending;
thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;

CUstream_st &per_thread() {
  thread_local CUstream_st stream;
  return stream;
}

bool blocks_legacy(const capture &c) {
  return std::any_of(c.streams.begin(), c.streams.end(),
                     [](const CUstream_st *s) { return !(s->flags & cudaStreamNonBlocking); });
}

/* Work on the legacy stream waits for all blocking streams, which a capture cannot express. */
cudaError_t refuse_on_legacy(bool invalidate) {
  for (const auto &c : captures) {
    if (!blocks_legacy(*c)) continue;
    if (invalidate) c->invalid = true;
    return cudaErrorStreamCaptureImplicit;
  }
  return cudaSuccess;
}

void flush() {
  while (!pending.empty()) {
    const operation work = std::move(pending.front());
    pending.pop_front();
    work.run();
  }
}

}  // namespace

CUstream_st *find_stream(cudaStream_t handle) {
  if (handle == nullptr || handle == cudaStreamLegacy) return &legacy;
  if (handle == cudaStreamPerThread) return &per_thread();
  return streams.count(handle) ? handle : nullptr;
}

bool capturing(cudaStream_t handle) {
  const CUstream_st *s = find_stream(handle);
  return s && s->recording;
}

cudaError_t submit(cudaStream_t handle, operation work) {
  CUstream_st *s = find_stream(handle);
  if (!s) return cudaErrorInvalidResourceHandle;
  if (s->recording) {
    if (s->recording->invalid) return cudaErrorStreamCaptureInvalidated;
    s->recording->work.push_back(std::move(work));
    return cudaSuccess;
  }
  if (s == &legacy) {
    const cudaError_t refused = refuse_on_legacy(true);
    if (refused) return refused;
  }
  pending.push_back(std::move(work));
  if (seed() == 0) flush();
  return cudaSuccess;
}

cudaError_t wait_for_all() {
  flush();
  return cudaSuccess;
}

cudaError_t refuse_in_capture() {
  if (thread_mode == cudaStreamCaptureModeRelaxed) return cudaSuccess;
  cudaError_t status = cudaSuccess;
  for (const auto &c : captures) {
    const bool mine = c->owner == std::this_thread::get_id();
    if (c->mode == cudaStreamCaptureModeRelaxed) continue;
    if (!mine && (c->mode != cudaStreamCaptureModeGlobal || thread_mode != cudaStreamCaptureModeGlobal)) continue;
    c->invalid = true;
    status = cudaErrorStreamCaptureUnsupported;
  }
  return status;
}

/* Waiting for a stream that is being captured would never end. */
static cudaError_t wait_for(cudaStream_t handle) {
  CUstream_st *s = find_stream(handle);
  if (!s) return cudaErrorInvalidResourceHandle;
  if (s->recording) {
    s->recording->invalid = true;
    return cudaErrorStreamCaptureUnsupported;
  }
  if (s == &legacy) {
    const cudaError_t refused = refuse_on_legacy(true);
    if (refused) return refused;
  }
  return wait_for_all();
}

static cudaError_t begin(cudaStream_t handle, cudaStreamCaptureMode mode) {
  CUstream_st *s = find_stream(handle);
  if (!s) return cudaErrorInvalidResourceHandle;
  if (s == &legacy) return cudaErrorStreamCaptureUnsupported;
  if (s->recording) return cudaErrorIllegalState;
  static unsigned long long number = 0;
  s->recording = std::make_shared<capture>();
  s->recording->number = ++number;
  s->recording->mode = mode;
  s->recording->owner = std::this_thread::get_id();
  s->recording->streams = {s};
  captures.push_back(s->recording);
  return cudaSuccess;
}

static cudaError_t end(cudaStream_t handle, cudaGraph_t *graph) {
  CUstream_st *s = find_stream(handle);
  if (!s) return cudaErrorInvalidResourceHandle;
  if (!s->recording) return cudaErrorIllegalState;
  const std::shared_ptr<capture> c = s->recording;
  if (c->streams.front() != s) return cudaErrorStreamCaptureUnmatched;
  if (c->mode != cudaStreamCaptureModeRelaxed && c->owner != std::this_thread::get_id())
    return cudaErrorStreamCaptureWrongThread;
  for (CUstream_st *member : c->streams) member->recording = nullptr;
  captures.erase(std::find(captures.begin(), captures.end(), c));
  *graph = c->invalid ? nullptr : new CUgraph_st{c->work};
  return c->invalid ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
}

/* On the legacy stream this tells whether any blocking stream is being captured, and harms nothing. */
static cudaError_t status_of(cudaStream_t handle, cudaStreamCaptureStatus *status) {
  const CUstream_st *s = find_stream(handle);
  if (!s) return cudaErrorInvalidResourceHandle;
  if (!status) return cudaErrorInvalidValue;
  *status = !s->recording           ? cudaStreamCaptureStatusNone
            : s->recording->invalid ? cudaStreamCaptureStatusInvalidated
                                    : cudaStreamCaptureStatusActive;
  return s == &legacy ? refuse_on_legacy(false) : cudaSuccess;
}

}  // namespace emulator

using namespace emulator;

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
  return api(__func__, [&] {
    if (!stream || flags > cudaStreamNonBlocking) return cudaErrorInvalidValue;
    *stream = new CUstream_st;
    (*stream)->flags = flags;
    streams.insert(*stream);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamCreate(cudaStream_t *stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int) {
  return cudaStreamCreateWithFlags(stream, flags);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return api(__func__, [&] {
    if (!streams.count(stream)) return cudaErrorInvalidResourceHandle;
    wait_for_all();
    if (stream->recording) {
      stream->recording->invalid = true;
      auto &members = stream->recording->streams;
      members.erase(std::find(members.begin(), members.end(), stream));
      if (members.empty()) captures.erase(std::find(captures.begin(), captures.end(), stream->recording));
    }
    streams.erase(stream);
    delete stream;
    return cudaSuccess;
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return api(__func__, [&] { return wait_for(stream); });
}

cudaError_t cudaDeviceSynchronize(void) {
  return api(__func__, [&] {
    const cudaError_t refused = refuse_in_capture();
    return refused ? refused : wait_for_all();
  });
}

/* Under a seed the first question finds work unfinished, and the next does not. */
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return api(__func__, [&] {
    const bool busy = !pending.empty();
    const cudaError_t status = wait_for(stream);
    return status ? status : busy ? cudaErrorNotReady : cudaSuccess;
  });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *data) {
  return api(__func__, [&] { return submit(stream, {"host function", [=] { function(data); }}); });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return api(__func__, [&] { return begin(stream, mode); });
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
  return api(__func__, [&] { return graph ? end(stream, graph) : cudaErrorInvalidValue; });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *status) {
  return api(__func__, [&] { return status_of(stream, status); });
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus *status, unsigned long long *number,
                                     cudaGraph_t *graph, const cudaGraphNode_t **, const cudaGraphEdgeData **,
                                     size_t *) {
  return api(__func__, [&] {
    if (graph) return cudaErrorNotSupported;
    const cudaError_t failed = status_of(stream, status);
    if (!failed && number && capturing(stream)) *number = find_stream(stream)->recording->number;
    return failed;
  });
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode *mode) {
  return api(__func__, [&] {
    if (!mode) return cudaErrorInvalidValue;
    std::swap(*mode, thread_mode);
    return cudaSuccess;
  });
}
