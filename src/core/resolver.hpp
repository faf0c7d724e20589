#pragma once

namespace evpl::core {
class LoopCore;
class Resolver {
public:
    explicit Resolver(LoopCore&) noexcept {}
};
}  // namespace evpl::core
