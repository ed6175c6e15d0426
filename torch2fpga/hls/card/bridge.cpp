// SPDX-License-Identifier: Apache-2.0
#include "bridge.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <system_error>

namespace t2f_card {

namespace {

std::string setting(const char *name) {
  const char *value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// A section of an xclbin, or null.
template <typename T>
const T *section(const axlf *top, axlf_section_kind kind) {
  const axlf_section_header *header = ::xclbin::get_axlf_section(top, kind);
  if (header == nullptr) return nullptr;
  return reinterpret_cast<const T *>(reinterpret_cast<const char *>(top) + header->m_sectionOffset);
}

// Settings that are not understood are refused before the program begins.
__attribute__((constructor)) void check_settings() {
  try {
    const Faults faults(setting("T2F_CARD_FAULTS"));
  } catch (const std::invalid_argument &error) {
    std::cerr << "emulated card: T2F_CARD_FAULTS: " << error.what() << "\n";
    std::_Exit(2);
  }
}

}  // namespace

Bridge::Bridge() : faults_(setting("T2F_CARD_FAULTS")), log_(setting("T2F_CARD_LOG")) {}

Bridge &Bridge::get() {
  static auto *bridge = new Bridge;
  return *bridge;
}

Engine &Bridge::engine() {
  if (engine_ == nullptr) {
    const std::string library = setting("T2F_CARD_LIBRARY");
    if (library.empty()) throw Refused("T2F_CARD_LIBRARY does not name the design's card library");
    const std::string timed = setting("T2F_CARD_TIMED");
    std::unique_ptr<Timed> clock;
    if (!timed.empty()) clock = std::make_unique<Timed>(timed, setting("T2F_CARD_TIMED_SETTINGS"));
    engine_ = std::make_unique<Engine>(library, std::move(clock), faults_, log_);
  }
  return *engine_;
}

// --- the device -----------------------------------------------------------------

void Bridge::opened() {
  const bool broken = lost || engine().stuck();
  if (broken) reset("the device was opened again");
  lost = false;
}

void Bridge::reset(const char *why) {
  engine().reset(why);
  const std::lock_guard<std::mutex> lock(mutex);
  ++generation;
  banks_.clear();
  connected_.clear();
}

void Bridge::claim(const std::string &kernel) {
  const std::string path = setting("T2F_CARD_LOCK");
  const std::lock_guard<std::mutex> lock(mutex);
  if (path.empty() || lock_ >= 0) return;
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) throw std::system_error(errno, std::generic_category(), "T2F_CARD_LOCK: " + path);
  if (flock(file, LOCK_EX | LOCK_NB) == 0) {
    lock_ = file;
    return;
  }
  const int why = errno == EWOULDBLOCK ? EBUSY : errno;
  close(file);
  throw std::system_error(why, std::generic_category(), "exclusive access to kernel " + kernel);
}

void Bridge::start(const std::shared_ptr<Launch> &launch) {
  if (!engine().start(launch)) return;
  lost = true;
  reset("T2F_CARD_FAULTS");
}

void Bridge::check_open(const char *what) const {
  if (lost) {
    throw Refused(std::string(what) + ": the device was reset while kernels ran; open it again, load the " +
                  "xclbin and make buffers and runs anew");
  }
}

void Bridge::check(std::uint64_t of, const char *what) const {
  check_open(what);
  if (of != generation) {
    throw Refused(std::string(what) + ": this object was made before the device was reset; make it anew");
  }
}

void Bridge::loaded(const axlf *xclbin) {
  const std::lock_guard<std::mutex> lock(mutex);
  const auto *topology = section<mem_topology>(xclbin, MEM_TOPOLOGY);
  if (topology == nullptr) throw Refused("the xclbin has no memory topology");
  std::vector<Bank> banks;
  for (int i = 0; i < topology->m_count; ++i) {
    const mem_data &memory = topology->m_mem_data[i];
    const auto *tag = reinterpret_cast<const char *>(memory.m_tag);
    banks.push_back({std::string(tag, strnlen(tag, sizeof memory.m_tag)), memory.m_size << 10, {}});
  }
  // The same xclbin again leaves the card as it is.
  if (banks.size() != banks_.size()) banks_ = std::move(banks);
  connect(xclbin);
}

// Which bank each argument is connected to, by its name.
void Bridge::connect(const axlf *xclbin) {
  const auto *layout = section<ip_layout>(xclbin, IP_LAYOUT);
  const auto *wires = section<connectivity>(xclbin, CONNECTIVITY);
  if (layout == nullptr || wires == nullptr) throw Refused("the xclbin says not where kernels are connected");
  connected_.clear();
  for (int i = 0; i < wires->m_count; ++i) {
    const connection &wire = wires->m_connection[i];
    if (wire.m_ip_layout_index < 0 || wire.m_ip_layout_index >= layout->m_count) continue;
    const std::string name = reinterpret_cast<const char *>(layout->m_ip_data[wire.m_ip_layout_index].m_name);
    const int index = engine().kernel(name.substr(0, name.find(':')));
    if (index < 0) continue;
    const t2f_card_kernel &kernel = engine().design().kernels[index];
    if (wire.arg_index < 0 || wire.arg_index >= kernel.count) continue;
    connected_.emplace(kernel.arguments[wire.arg_index].name, static_cast<unsigned>(wire.mem_data_index));
  }
}

// --- memory ---------------------------------------------------------------------

Bank &Bridge::bank(unsigned group) {
  if (banks_.empty()) {
    throw Refused("a buffer needs an xclbin that says which memory there is: load one first");
  }
  if (group >= banks_.size()) {
    throw Refused("there is no memory " + std::to_string(group) + ", only 0 (" + banks_.front().name +
                  ") to " + std::to_string(banks_.size() - 1) + " (" + banks_.back().name + ")");
  }
  return banks_[group];
}

std::shared_ptr<Buffer> Bridge::allocate(std::uint64_t size, xrt::bo::flags flags, unsigned group) {
  const std::lock_guard<std::mutex> lock(mutex);
  check_open("allocation");
  buffers.sweep();
  if (flags == xrt::bo::flags::host_only || flags == xrt::bo::flags::svm) {
    throw Refused("kernels have no connection to the host's memory; use xrt::bo::flags::normal");
  }
  Bank &memory = bank(group & 0xFFFF);
  if (size == 0) throw Refused("a buffer of 0 bytes in " + memory.name);
  if (const Fault *fault = faults_.allocation(++allocations_)) {
    log_.write(Log::Line("fault").add("fault", fault->text));
    throw OutOfMemory("allocation " + std::to_string(allocations_) + " of " + std::to_string(size) +
                      " bytes in " + memory.name + " fails (T2F_CARD_FAULTS)");
  }
  auto buffer = std::make_shared<Buffer>();
  buffer->region = memory.allocate(size);
  buffer->size = size;
  buffer->bank = group & 0xFFFF;
  buffer->generation = generation;
  buffer->host_mapped = flags != xrt::bo::flags::device_only;
  return buffer;
}

void Bridge::transfer(Buffer &buffer, bool to_card, unsigned char *host, std::uint64_t size,
                      std::uint64_t offset) {
  const Fault *fault = nullptr;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    check(buffer.generation, "transfer");
    fault = faults_.transfer(to_card, buffer.bank, connected_);
  }
  unsigned char *card = buffer.data() + offset;
  std::memcpy(to_card ? card : host + offset, to_card ? host + offset : card, size);
  if (fault == nullptr) return;
  log_.write(Log::Line("fault").add("fault", fault->text).add("memory", buffer.bank).add("bytes", size));
  if (fault->bit / 8 >= size) {
    throw Refused("T2F_CARD_FAULTS: " + fault->text + ": this transfer has " + std::to_string(size) +
                  " bytes");
  }
  unsigned char &byte = (to_card ? card : host + offset)[fault->bit / 8];
  byte = static_cast<unsigned char>(byte ^ (1U << (fault->bit % 8)));
}

}  // namespace t2f_card
