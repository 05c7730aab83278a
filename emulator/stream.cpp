/* SPDX-License-Identifier: Apache-2.0 */
/* Streams and their captures. */
#include "stream.h"

#include <algorithm>
#include <set>
#include <thread>

#include "device.h"
#include "thread.h"

namespace emulator {

namespace {

/* Never ended: a stream whose destruction was made to fail is nobody's leak but the test's. */
std::set<CUstream_st *> &streams = *new std::set<CUstream_st *>;
std::vector<std::shared_ptr<capture>> captures; /* that have begun and not ended */
thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;

/* The two streams that every device has, made when first used and never ended. */
CUstream_st *default_stream(bool legacy, CUstream_st *(&all)[4]) {
  CUstream_st *&stream = all[current_device()];
  if (!stream) {
    stream = new CUstream_st;
    stream->device = current_device();
    stream->is_legacy = legacy;
  }
  return stream;
}

CUstream_st *legacy_stream() {
  static CUstream_st *all[4] = {};
  return default_stream(true, all);
}

CUstream_st *stream_of_thread() {
  thread_local CUstream_st *all[4] = {};
  return default_stream(false, all);
}

bool blocks_legacy(const capture &c, int device) {
  return std::any_of(c.streams.begin(), c.streams.end(),
                     [&](const CUstream_st *s) { return s->device == device && !(s->flags & cudaStreamNonBlocking); });
}

/* Work on the legacy stream waits for all blocking streams, which a capture cannot express. */
cudaError_t refuse_on_legacy(bool invalidate) {
  for (const auto &c : captures) {
    if (!blocks_legacy(*c, current_device())) continue;
    if (invalidate) c->invalid = true;
    return cudaErrorStreamCaptureImplicit;
  }
  return cudaSuccess;
}

void record(CUstream_st *s, operation work) {
  capture &c = *s->recording;
  c.work.push_back(std::move(work));
  c.covered[s][s]++;
}

/* What a graph's first stream does not wait for would run beyond the graph's end. */
bool is_joined(const capture &c) {
  const auto found = c.covered.find(c.streams.front());
  for (const auto &stream : c.covered) {
    const size_t own = stream.second.count(stream.first) ? stream.second.at(stream.first) : 0;
    if (own == 0) continue;
    if (found == c.covered.end() || !found->second.count(stream.first) || found->second.at(stream.first) < own)
      return false;
  }
  return true;
}

}  // namespace

CUstream_st *find_stream(cudaStream_t handle) {
  if (handle == nullptr || handle == cudaStreamLegacy) return legacy_stream();
  if (handle == cudaStreamPerThread) return stream_of_thread();
  return streams.count(handle) && handle->device == current_device() ? handle : nullptr;
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
    record(s, std::move(work));
    return cudaSuccess;
  }
  if (s->is_legacy) {
    const cudaError_t refused = refuse_on_legacy(true);
    if (refused) return refused;
  }
  put(s, std::move(work), 0);
  return cudaSuccess;
}

void spoil_capture(cudaStream_t handle) {
  const CUstream_st *s = find_stream(handle);
  if (s && s->recording) s->recording->invalid = true;
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

/* Waiting for a stream that is being captured would never end. For others it counts as unsafe, like cudaMalloc. */
cudaError_t refuse_to_wait(cudaStream_t handle) {
  CUstream_st *s = find_stream(handle);
  if (!s) return cudaErrorInvalidResourceHandle;
  if (s->recording) {
    s->recording->invalid = true;
    return cudaErrorStreamCaptureUnsupported;
  }
  const cudaError_t refused = s->is_legacy ? refuse_on_legacy(true) : cudaSuccess;
  return refused ? refused : refuse_in_capture();
}

cudaError_t wait_for(cudaStream_t handle) {
  const cudaError_t refused = refuse_to_wait(handle);
  if (refused) return refused;
  CUstream_st *s = find_stream(handle);
  wait_until(s->is_legacy ? put(s, {"wait", [] {}}, 0) : last_of(s)); /* the legacy stream's wait is as its work */
  return cudaSuccess;
}

static cudaError_t begin(cudaStream_t handle, cudaStreamCaptureMode mode) {
  CUstream_st *s = find_stream(handle);
  if (!s) return cudaErrorInvalidResourceHandle;
  if (s->is_legacy) return cudaErrorStreamCaptureUnsupported;
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
  const cudaError_t status = c->invalid      ? cudaErrorStreamCaptureInvalidated
                             : is_joined(*c) ? cudaSuccess
                                             : cudaErrorStreamCaptureUnjoined;
  *graph = status ? nullptr : new CUgraph_st{c->work};
  return status;
}

/* On the legacy stream this tells whether any blocking stream is being captured, and harms nothing. */
static cudaError_t status_of(cudaStream_t handle, cudaStreamCaptureStatus *status) {
  const CUstream_st *s = find_stream(handle);
  if (!s) return cudaErrorInvalidResourceHandle;
  if (!status) return cudaErrorInvalidValue;
  *status = !s->recording           ? cudaStreamCaptureStatusNone
            : s->recording->invalid ? cudaStreamCaptureStatusInvalidated
                                    : cudaStreamCaptureStatusActive;
  return s->is_legacy ? refuse_on_legacy(false) : cudaSuccess;
}

/* Its work still runs, but nobody can wait for it. */
static void forget(CUstream_st *s) {
  if (s->recording) {
    s->recording->invalid = true;
    auto &members = s->recording->streams;
    members.erase(std::find(members.begin(), members.end(), s));
    if (members.empty()) captures.erase(std::find(captures.begin(), captures.end(), s->recording));
    s->recording = nullptr;
  }
  streams.erase(s);
  s->destroyed = true;
  if (s->queue.empty()) delete s;
}

}  // namespace emulator

using namespace emulator;

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
  return api(__func__, [&] {
    if (!stream || flags > cudaStreamNonBlocking) return cudaErrorInvalidValue;
    *stream = new CUstream_st;
    (*stream)->flags = flags;
    (*stream)->device = current_device();
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
    forget(stream);
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

/* The first question finds work unfinished, and the next does not. */
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return api(__func__, [&] {
    const CUstream_st *s = find_stream(stream);
    const bool busy = s && last_of(s) != 0;
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

/* A word of the calling thread: no device is asked, and nothing can fail. */
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode *mode) {
  if (!mode) return cudaErrorInvalidValue;
  std::swap(*mode, thread_mode);
  return cudaSuccess;
}
