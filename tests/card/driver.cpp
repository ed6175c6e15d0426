// SPDX-License-Identifier: Apache-2.0
// A host program that does what it reads, one call of XRT a line, and answers each with one line:
// "ok ..." or "refused ...".
#include <chrono>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>

#include "experimental/xrt_xclbin.h"
#include "xrt/xrt_bo.h"
#include "xrt/xrt_device.h"
#include "xrt/xrt_kernel.h"

namespace {

struct Host {
  std::unique_ptr<xrt::device> device;
  xrt::uuid id;
  std::map<std::string, xrt::kernel> kernels;
  std::map<std::string, xrt::run> runs;
  std::map<std::string, xrt::bo> buffers;
};

std::string slurp(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("driver: no file " + path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// What the real library makes of an xclbin.
std::string describe(const std::string &path) {
  const xrt::xclbin bin{path};
  std::ostringstream out;
  out << bin.get_xsa_name();
  for (const auto &kernel : bin.get_kernels()) {
    out << "|" << kernel.get_name();
    for (const auto &a : kernel.get_args()) {
      out << ";" << a.get_index() << "," << a.get_name() << "," << a.get_offset() << "," << a.get_size();
      for (const auto &memory : a.get_mems()) out << "," << memory.get_tag();
    }
  }
  out << "|";
  for (const auto &m : bin.get_mems()) {
    out << m.get_tag() << "," << m.get_base_address() << "," << m.get_size_kb() << ";";
  }
  const axlf *top = bin.get_axlf();
  const axlf_section_header *user = xclbin::get_axlf_section(top, USER_METADATA);
  const char *own = reinterpret_cast<const char *>(top) + user->m_sectionOffset;
  out << "|" << std::string(own, user->m_sectionSize - 1);
  return out.str();
}

std::string objects(Host &host, const std::string &word, std::istringstream &in) {
  std::string name, of;
  if (host.device == nullptr && word != "device") throw std::runtime_error("driver: no device is open");
  if (word == "device") {
    int index = 0;
    in >> index;
    host.device = std::make_unique<xrt::device>(index);
  } else if (word == "load") {
    in >> name;
    host.id = host.device->load_xclbin(name);
  } else if (word == "reset") {
    host.device->reset();
  } else if (word == "kernel") {
    in >> name >> of;
    host.kernels[name] = xrt::kernel(*host.device, host.id, of);
  } else if (word == "group") {
    int index = 0;
    in >> name >> index;
    return std::to_string(host.kernels.at(name).group_id(index));
  } else if (word == "run") {
    in >> name >> of;
    host.runs[name] = xrt::run(host.kernels.at(of));
  } else if (word == "bo") {
    std::size_t bytes = 0;
    unsigned group = 0;
    in >> name >> bytes >> group;
    host.buffers[name] = xrt::bo(*host.device, bytes, group);
  } else if (word == "part") {
    std::size_t bytes = 0, offset = 0;
    in >> name >> of >> bytes >> offset;
    host.buffers[name] = xrt::bo(host.buffers.at(of), bytes, offset);
  } else if (word == "drop") {
    in >> name;
    host.buffers.erase(name);
    host.runs.erase(name);
  } else {
    throw std::runtime_error("driver: unknown word " + word);
  }
  return "";
}

bool transfers(Host &host, const std::string &word, std::istringstream &in) {
  std::string name, path;
  in >> name;
  if (word == "fill") {  // the host's side from a file
    in >> path;
    const std::string content = slurp(path);
    host.buffers.at(name).write(content.data(), content.size(), 0);
  } else if (word == "byte") {  // the host's side with one value
    int value = 0;
    in >> value;
    xrt::bo &bo = host.buffers.at(name);
    std::fill_n(bo.map<unsigned char *>(), bo.size(), static_cast<unsigned char>(value));
  } else if (word == "save") {
    in >> path;
    xrt::bo &bo = host.buffers.at(name);
    std::ofstream(path, std::ios::binary).write(bo.map<char *>(), static_cast<std::streamsize>(bo.size()));
  } else if (word == "to" || word == "from") {
    const auto way = word == "to" ? XCL_BO_SYNC_BO_TO_DEVICE : XCL_BO_SYNC_BO_FROM_DEVICE;
    std::size_t size = 0, offset = 0;
    if (in >> size >> offset) {
      host.buffers.at(name).sync(way, size, offset);
    } else {
      host.buffers.at(name).sync(way);
    }
  } else if (word == "copy") {
    in >> path;
    host.buffers.at(name).copy(host.buffers.at(path));
  } else {
    return false;
  }
  return true;
}

std::string runs(Host &host, const std::string &word, std::istringstream &in) {
  std::string name, kind, of;
  in >> name;
  xrt::run &run = host.runs.at(name);
  if (word == "arg") {
    int index = 0;
    in >> index >> kind >> of;
    if (kind == "bo") run.set_arg(index, host.buffers.at(of));
    if (kind == "int") run.set_arg(index, std::stoi(of));
    if (kind == "long") run.set_arg(index, std::stoll(of));
  } else if (word == "start") {
    run.start();
  } else if (word == "wait") {
    long ms = 0;
    in >> ms;
    return std::to_string(run.wait(std::chrono::milliseconds(ms)));
  } else if (word == "state") {
    return std::to_string(run.state());
  } else if (word == "abort") {
    return std::to_string(run.abort());
  }
  return "";
}

std::string obey(Host &host, const std::string &line) {
  std::istringstream in(line);
  std::string word;
  in >> word;
  if (word == "describe") {
    in >> word;
    return describe(word);
  }
  if (word == "sleep") {
    int ms = 0;
    in >> ms;
    std::this_thread::sleep_for(std::chrono::milliseconds(ms));
    return "";
  }
  for (const char *one : {"arg", "start", "wait", "state", "abort"}) {
    if (word == one) return runs(host, word, in);
  }
  for (const char *one : {"fill", "byte", "save", "to", "from", "copy"}) {
    if (word == one && transfers(host, word, in)) return "";
  }
  return objects(host, word, in);
}

}  // namespace

int main() {
  Host host;
  std::string line;
  while (std::getline(std::cin, line)) {
    try {
      const std::string answer = obey(host, line);
      std::cout << "ok " << answer << std::endl;
    } catch (const std::exception &error) {
      std::cout << "refused " << error.what() << std::endl;
    }
  }
}
