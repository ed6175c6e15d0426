// SPDX-License-Identifier: Apache-2.0
#include "xclbin.hpp"

#include <xclbin.h>

#include <cstddef>
#include <cstring>
#include <exception>
#include <map>
#include <set>
#include <vector>

#include "failure.hpp"
#include "files.hpp"
#include "tables.hpp"

namespace host {
namespace {

using Problems = std::vector<std::string>;

// Value of a member of a flat JSON object of strings without escapes; empty where it has none.
std::string member(const std::string &text, const std::string &key) {
  const std::size_t at = text.find("\"" + key + "\"");
  if (at == std::string::npos) return "";
  const std::size_t colon = text.find_first_not_of(" \t\r\n", at + key.size() + 2);
  if (colon == std::string::npos || text[colon] != ':') return "";
  const std::size_t open = text.find_first_not_of(" \t\r\n", colon + 1);
  if (open == std::string::npos || text[open] != '"') return "";
  const std::size_t close = text.find('"', open + 1);
  return close == std::string::npos ? "" : text.substr(open + 1, close - open - 1);
}

// The section for users, where torch2fpga says whose xclbin it is; empty where there is none.
std::string user_metadata(const xrt::xclbin &image) {
  const axlf *top = image.get_axlf();
  const axlf_section_header *section = ::xclbin::get_axlf_section(top, USER_METADATA);
  if (section == nullptr) return "";
  const std::uint64_t all = top->m_header.m_length;
  const std::uint64_t begin = section->m_sectionOffset;
  const std::uint64_t size = section->m_sectionSize;
  if (begin > all || size > all - begin) return "";
  return std::string(reinterpret_cast<const char *>(top) + begin, size);
}

void check_origin(const xrt::xclbin &image, Problems &problems) {
  const std::string text = user_metadata(image);
  if (member(text, "format") != "torch2fpga xclbin") return;  // v++ writes no such section
  const std::string name = member(text, "design");
  const std::string sum = member(text, "manifest_sha256");
  if (name != design().name) {
    problems.push_back("it was made for the design " + name + ", this program for " + design().name);
  } else if (sum != design().manifest_sha256) {
    problems.push_back("it was made for a manifest with SHA-256 " + sum + ", this program for " +
                       design().manifest_sha256);
  }
}

std::string tags(const std::vector<xrt::xclbin::mem> &memories) {
  std::string text;
  for (const auto &memory : memories) text += (text.empty() ? "" : ", ") + memory.get_tag();
  return text.empty() ? "no memory" : text;
}

// What is wrong with the file's frame, before XRT follows its offsets; empty if nothing is.
std::string broken(const Bytes &content) {
  axlf head;
  if (content.size() < sizeof head || std::memcmp(content.data(), "xclbin2", 8) != 0) {
    return "it does not begin like one";
  }
  std::memcpy(&head, content.data(), sizeof head);
  const std::size_t all = content.size();
  const std::size_t sections = head.m_header.m_numSections;
  const std::size_t first = offsetof(axlf, m_sections);
  if (head.m_header.m_length > all || sections > (all - first) / sizeof(axlf_section_header)) {
    return "it has " + std::to_string(all) + " bytes, it says " +
           std::to_string(head.m_header.m_length) + ": it is cut off";
  }
  for (std::size_t i = 0; i < sections; ++i) {
    axlf_section_header section;
    std::memcpy(&section, content.data() + first + i * sizeof section, sizeof section);
    if (section.m_sectionOffset <= all && section.m_sectionSize <= all - section.m_sectionOffset) continue;
    return "section " + std::to_string(i) + " lies outside of it";
  }
  return "";
}

bool connected(const std::vector<xrt::xclbin::mem> &memories, const std::string &tag) {
  for (const auto &memory : memories) {
    if (memory.get_tag() == tag) return true;
  }
  return false;
}

using Arguments = std::map<std::size_t, xrt::xclbin::arg>;

// Is there an argument of that index and name?
bool named(const Arguments &arguments, int index, const char *name, const std::string &kernel,
           Problems &problems) {
  const auto found = arguments.find(static_cast<std::size_t>(index));
  if (found != arguments.end() && found->second.get_name() == name) return true;
  problems.push_back(
      "argument " + std::to_string(index) + " of " + kernel + " is " +
      (found == arguments.end() ? "missing" : found->second.get_name()) + ", expected " + name);
  return false;
}

void check_kernel(const xrt::xclbin &image, int number, Problems &problems) {
  const Kernel &kernel = design().kernels[static_cast<std::size_t>(number)];
  const xrt::xclbin::kernel found = image.get_kernel(kernel.name);
  if (found.get_cus().size() != 1) {
    problems.push_back(std::string("kernel ") + kernel.name + " has " +
                       std::to_string(found.get_cus().size()) + " instances, expected one");
  }
  Arguments arguments;
  for (const auto &argument : found.get_args()) arguments.emplace(argument.get_index(), argument);
  std::set<std::size_t> known(kernel.streams.begin(), kernel.streams.end());
  for (const Scalar &scalar : kernel.scalars) {
    known.insert(static_cast<std::size_t>(scalar.index));
    named(arguments, scalar.index, scalar.name, kernel.name, problems);
  }
  for (const Port &port : design().ports) {
    if (port.kernel != number) continue;
    known.insert(static_cast<std::size_t>(port.index));
    if (!named(arguments, port.index, port.name, kernel.name, problems)) continue;
    const auto memories = arguments.at(static_cast<std::size_t>(port.index)).get_mems();
    const std::string want = "HBM[" + std::to_string(port.channel) + "]";
    if (connected(memories, want)) continue;
    problems.push_back(std::string("argument ") + port.name + " of " + kernel.name +
                       " is connected to " + tags(memories) + ", expected " + want);
  }
  for (const auto &argument : arguments) {
    if (known.count(argument.first) != 0) continue;
    problems.push_back("argument " + std::to_string(argument.first) + " of " + kernel.name + ", " +
                       argument.second.get_name() + ", is not known here");
  }
}

}  // namespace

xrt::xclbin read_xclbin(const std::string &path) {
  Bytes content;
  try {
    content = read_file(path);
  } catch (const Failure &failure) {
    throw Failure(std::string("xclbin: ") + failure.what() +
                  "; make it with `make hw`, or name another one with --xclbin FILE");
  }
  const std::string problem = broken(content);
  if (!problem.empty()) throw Failure(path + " is no xclbin that can be used: " + problem);
  try {
    return xrt::xclbin(path);
  } catch (const std::exception &error) {
    throw Failure(path + " is no xclbin that can be used: " + error.what());
  }
}

void check_xclbin(const xrt::xclbin &image, const std::string &path) {
  Problems problems;
  try {
    check_origin(image, problems);
    std::set<std::string> there;
    for (const auto &kernel : image.get_kernels()) there.insert(kernel.get_name());
    for (std::size_t i = 0; i < design().kernels.size(); ++i) {
      const char *name = design().kernels[i].name;
      if (there.erase(name) != 0) {
        check_kernel(image, static_cast<int>(i), problems);
      } else {
        problems.push_back(std::string("kernel ") + name + " is missing");
      }
    }
    for (const std::string &name : there) problems.push_back("kernel " + name + " is not known here");
  } catch (const std::exception &error) {
    problems.push_back(std::string("it cannot be read: ") + error.what());
  }
  if (problems.empty()) return;
  throw Failure(path + " is the wrong xclbin for " + design().name + ":\n  " + joined(problems));
}

}  // namespace host
