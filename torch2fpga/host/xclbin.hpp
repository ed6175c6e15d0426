// SPDX-License-Identifier: Apache-2.0
// Is an xclbin the one of this design? Its kernels, arguments and memory connections against the tables.
#ifndef HOST_XCLBIN_HPP
#define HOST_XCLBIN_HPP

#if __has_include(<xrt/experimental/xrt_xclbin.h>)
#include <xrt/experimental/xrt_xclbin.h>
#else
#include <experimental/xrt_xclbin.h>
#endif

#include <string>

namespace host {

// Reads the file. Throws Failure: missing, no permission, not an xclbin.
xrt::xclbin read_xclbin(const std::string &path);

// Throws Failure with everything that differs. `path` is for the text.
void check_xclbin(const xrt::xclbin &image, const std::string &path);

}  // namespace host

#endif
