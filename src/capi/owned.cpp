#include <mutex>

#include "capi.hpp"

namespace evpl::capi {

namespace {
std::mutex owned_mutex;
Owned* owned = nullptr;
thread_local Running* innermost = nullptr;
}  // namespace

void Owned::enlist(const void* handle) noexcept {
    const std::lock_guard lock(owned_mutex);
    handle_ = handle;
    next_ = owned;
    owned = this;
}

Owned* Owned::take_any(const void* handle) noexcept {
    const std::lock_guard lock(owned_mutex);
    for (Owned** at = &owned; *at != nullptr; at = &(*at)->next_) {
        Owned* const found = *at;
        if (found->handle_ != handle) continue;
        *at = found->next_;
        return found;
    }
    return nullptr;
}

bool Owned::has(const void* handle) noexcept {
    const std::lock_guard lock(owned_mutex);
    for (const Owned* at = owned; at != nullptr; at = at->next_) {
        if (at->handle_ == handle) return true;
    }
    return false;
}

Running::Running(const evpl_loop* loop) noexcept : loop_(loop), outer_(innermost) { innermost = this; }
Running::~Running() { innermost = outer_; }

bool Running::has(const evpl_loop* loop) noexcept {
    for (const Running* at = innermost; at != nullptr; at = at->outer_) {
        if (at->loop_ == loop) return true;
    }
    return false;
}

}  // namespace evpl::capi
