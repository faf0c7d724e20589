#pragma once

namespace tool {

/// `evpl info`: every transport, present or not, why, and what would change that.
int run_info(bool json);

}  // namespace tool
