/* SPDX-License-Identifier: Apache-2.0 */
/* Events, and graphs: a graph is the list of what was submitted during a capture, with its arguments copied. */
#include <algorithm>

#include "device.h"
#include "stream.h"

using namespace emulator;

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) {
  return api(__func__, [&] {
    if (!event) return cudaErrorInvalidValue;
    *event = new CUevent_st;
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreate(cudaEvent_t *event) { return cudaEventCreateWithFlags(event, 0); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return api(__func__, [&] {
    if (!event) return cudaErrorInvalidResourceHandle;
    wait_until(event->number); /* queued work holds it */
    delete event;
    return cudaSuccess;
  });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return api(__func__, [&] {
    CUstream_st *s = find_stream(stream);
    if (!event || !s) return cudaErrorInvalidResourceHandle;
    event->recording = s->recording;
    if (s->recording) {
      event->covered = s->recording->covered[s];
      return cudaSuccess;
    }
    event->number = put(s, {"event", [event] { event->when = std::chrono::steady_clock::now(); }}, 0);
    return cudaSuccess;
  });
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) {
  return cudaEventRecord(event, stream);
}

/* An event of a capture draws the stream into it, behind what the event covers. */
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return api(__func__, [&] {
    CUstream_st *s = find_stream(stream);
    if (!event || !s) return cudaErrorInvalidResourceHandle;
    const std::shared_ptr<capture> c = event->recording.lock();
    if (!c && s->recording) return event->number ? cudaErrorStreamCaptureIsolation : cudaSuccess;
    if (!c) {
      if (!has_run(event->number)) put(s, {"wait", [] {}}, event->number);
      return cudaSuccess;
    }
    if (s->recording && s->recording != c) return cudaErrorStreamCaptureMerge;
    if (!s->recording) c->streams.push_back(s);
    s->recording = c;
    for (const auto &stream_covered : event->covered) {
      size_t &known = c->covered[s][stream_covered.first];
      known = std::max(known, stream_covered.second);
    }
    return cudaSuccess;
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return api(__func__, [&] {
    if (!event) return cudaErrorInvalidResourceHandle;
    if (event->recording.lock()) return cudaErrorCapturedEvent;
    const cudaError_t refused = refuse_in_capture();
    if (refused) return refused;
    wait_until(event->number);
    return cudaSuccess;
  });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return api(__func__, [&] {
    if (!event) return cudaErrorInvalidResourceHandle;
    if (event->recording.lock()) return cudaErrorCapturedEvent;
    const cudaError_t refused = refuse_in_capture();
    if (refused) return refused;
    const bool done = has_run(event->number);
    wait_until(event->number);
    return done ? cudaSuccess : cudaErrorNotReady;
  });
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return api(__func__, [&] {
    if (!milliseconds) return cudaErrorInvalidValue;
    if (!start || !end || !start->number || !end->number) return cudaErrorInvalidResourceHandle;
    if (!has_run(start->number) || !has_run(end->number)) return cudaErrorNotReady;
    *milliseconds = std::chrono::duration<float, std::milli>(end->when - start->when).count();
    return cudaSuccess;
  });
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count) {
  return api(__func__, [&] {
    if (!graph || !count) return cudaErrorInvalidValue;
    if (nodes) return cudaErrorNotSupported; /* only their number is known */
    *count = graph->work.size();
    return cudaSuccess;
  });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long) {
  return api(__func__, [&] {
    if (!executable || !graph) return cudaErrorInvalidValue;
    *executable = new CUgraphExec_st{graph->work};
    return cudaSuccess;
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  return api(__func__, [&] {
    if (!executable) return cudaErrorInvalidValue;
    for (const operation &work : executable->work) {
      const cudaError_t status = submit(stream, work);
      if (status) return status;
    }
    return cudaSuccess;
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return api(__func__, [&] {
    delete graph;
    return graph ? cudaSuccess : cudaErrorInvalidValue;
  });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  return api(__func__, [&] {
    delete executable;
    return executable ? cudaSuccess : cudaErrorInvalidValue;
  });
}
