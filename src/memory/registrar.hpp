#pragma once

#include "memory/domain.hpp"

namespace evpl::memory {

/// The process's thread that registers slabs with domains: started by the first request, never joined.
/// Registration pins pages and takes device locks, which a loop must not wait for.
class Registrar {
public:
    static Registrar& instance() noexcept;

    /// The slab's key state is pending. `done` is called on the registrar's thread.
    void request(Domain& domain, Slab& slab, void (*done)(void*), void* context) noexcept;
    /// Takes the slab out of every domain, then unmaps it.
    void deregister(Slab* slab) noexcept;
    /// Returns when nothing of `domain` is queued or under way; its keys are gone from all slabs.
    void forget(Domain& domain) noexcept;
    /// Domain numbers.
    unsigned enroll(Domain& domain) noexcept;

private:
    Registrar() noexcept;
    struct State;
    static void* run(void* state) noexcept;
    bool start() noexcept;
    State* state_;
};

}  // namespace evpl::memory
