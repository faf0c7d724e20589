#pragma once

// Compiled once for all sources of the command. Whoever uses one of these still includes it: with ccache, and for a reader, this file is not there.
#include <fmt/format.h>
#include <algorithm>
#include <cstdint>
#include <evpl/evpl.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>
