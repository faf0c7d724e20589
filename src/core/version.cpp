#include "evpl/version.hpp"

#ifndef EVPL_VERSION_STRING
#define EVPL_VERSION_STRING "0.1.0"
#endif

namespace evpl {

const char* version() noexcept { return EVPL_VERSION_STRING; }

}  // namespace evpl
