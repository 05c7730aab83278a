/* SPDX-License-Identifier: Apache-2.0 */
/* What the emulator keeps of launches: see record.cpp. Apart from the other headers, which every kernel includes. */
#ifndef TARE_EMULATOR_RECORD_H
#define TARE_EMULATOR_RECORD_H

#include <cstddef>
#include <functional>
#include <vector>

namespace emulator {

struct launch;

/* memory.cpp */
void for_each_allocation(const std::function<void(const char *data, size_t size)> &use);

/* record.cpp: before the launch, while its memory is open */
void record_launch(const launch &l, const std::vector<std::vector<char>> &arguments);

}  // namespace emulator

#endif
