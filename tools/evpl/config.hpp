#pragma once

namespace tool {

/// `evpl info --config`: every setting, its value in force and where that comes from. What is wrong goes to standard error;
/// the status is exit_failure then.
int run_config(bool json);

}  // namespace tool
