#pragma once

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cstdint>
#include <sstream>

namespace evpl {

/// Holds for all values that RapidCheck makes, from a fixed seed: the test repeats exactly. A counterexample is shrunk and printed.
template <class Property>
void for_all(Property property, int cases = 200, std::uint64_t seed = 0x65'76'70'6c) {
    const rc::detail::TestParams params{.seed = seed, .maxSuccess = cases};
    const auto result = rc::detail::checkTestable(property, rc::detail::TestMetadata{}, params);
    if (result.template is<rc::detail::SuccessResult>()) return;
    std::ostringstream text;
    rc::detail::printResultMessage(result, text);
    ADD_FAILURE() << text.str();
}

}  // namespace evpl
