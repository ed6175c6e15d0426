// SPDX-License-Identifier: Apache-2.0
// Figures of repeated launches: latency, throughput, and what the host itself takes.
#ifndef HOST_BENCH_HPP
#define HOST_BENCH_HPP

#include <string>

#include "card.hpp"
#include "files.hpp"
#include "inference.hpp"
#include "launch.hpp"
#include "options.hpp"

namespace host {

// Both give the figures as JSON.
// A plain model, launch behind launch; inputs are the golden ones, repeated to the size of a launch.
std::string bench_inference(const Options &options, const Project &project, const Card &card,
                            Memory &memory, Watchdog &watchdog);

// Texts of the same request, one behind another, from an empty cache each.
std::string bench_generation(const Options &options, const Project &project, const Card &card,
                             Memory &memory, Watchdog &watchdog);

// Ids of the golden launch, for a request without a prompt.
std::vector<int> golden_prompt(const Project &project);

}  // namespace host

#endif
