#include "memory/registrar.hpp"

#include <pthread.h>
#include <signal.h>

#include <condition_variable>
#include <mutex>
#include <new>

#include "base/log_line.hpp"

namespace evpl::memory {

namespace {
struct Job {
    Domain* domain;  // null: deregister the slab from all and unmap it
    Slab* slab;
    void (*done)(void*);
    void* context;
    Job* next;
};
}  // namespace

struct Registrar::State {
    std::mutex mutex;
    std::condition_variable wake;
    std::condition_variable finished;
    Job* first = nullptr;
    Job** last = &first;
    Job* running = nullptr;
    Domain* domains[domains_max] = {};
    bool started = false;

    void push(Job* job) noexcept {
        *last = job;
        last = &job->next;
        wake.notify_one();
    }
};

Registrar& Registrar::instance() noexcept {
    alignas(Registrar) static std::byte room[sizeof(Registrar)];
    static Registrar* const registrar = new (room) Registrar;
    return *registrar;
}

Registrar::Registrar() noexcept {
    alignas(State) static std::byte room[sizeof(State)];
    state_ = new (room) State;
}

namespace {

void register_slab(Domain& domain, Slab& slab) noexcept {
    Slab::Key& key = slab.keys[domain.number()];
    const auto made = domain.register_memory(slab.base, slab.size_bytes);
    if (!made) {
        char text[160];
        made.error().describe(text, sizeof text);
        base::log_format(LogLevel::warning, "a slab could not be registered with domain %u: %s", domain.number(), text);
        key.state.store(KeyState::failed, std::memory_order_release);
        return;
    }
    key.value.store(*made, std::memory_order_relaxed);
    key.state.store(KeyState::ready, std::memory_order_release);
}

void deregister_slab(Domain& domain, Slab& slab) noexcept {
    Slab::Key& key = slab.keys[domain.number()];
    if (key.state.load(std::memory_order_acquire) == KeyState::ready) {
        domain.deregister_memory(slab.base, slab.size_bytes, key.value.load(std::memory_order_relaxed));
    }
    key.state.store(KeyState::absent, std::memory_order_release);
}

}  // namespace

void* Registrar::run(void* context) noexcept {
    auto& state = *static_cast<State*>(context);
    std::unique_lock lock(state.mutex);
    for (;;) {
        state.wake.wait(lock, [&] { return state.first != nullptr; });
        Job* job = state.first;
        state.first = job->next;
        if (state.first == nullptr) state.last = &state.first;
        state.running = job;
        Domain* domains[domains_max];
        for (unsigned i = 0; i < domains_max; ++i) domains[i] = state.domains[i];
        lock.unlock();
        if (job->domain != nullptr) {
            register_slab(*job->domain, *job->slab);
            if (job->done != nullptr) job->done(job->context);
        } else {
            for (Domain* domain : domains) {
                if (domain != nullptr) deregister_slab(*domain, *job->slab);
            }
            SlabStore::instance().unmap(job->slab);
        }
        lock.lock();
        state.running = nullptr;
        state.finished.notify_all();
        delete job;
    }
    return nullptr;
}

bool Registrar::start() noexcept {
    if (state_->started) return true;
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);  // the program's signals are not this thread's business
    pthread_t thread;
    state_->started = pthread_create(&thread, nullptr, &Registrar::run, state_) == 0;
    pthread_sigmask(SIG_SETMASK, &old, nullptr);
    if (state_->started) {
        pthread_setname_np(thread, "evpl-registrar");
        pthread_detach(thread);
    }
    return state_->started;
}

void Registrar::request(Domain& domain, Slab& slab, void (*done)(void*), void* context) noexcept {
    auto* job = new (std::nothrow) Job{&domain, &slab, done, context, nullptr};
    const std::lock_guard lock(state_->mutex);
    if (job == nullptr || !start()) {
        delete job;
        slab.keys[domain.number()].state.store(KeyState::absent, std::memory_order_release);  // asked for again later
        return;
    }
    state_->push(job);
}

void Registrar::deregister(Slab* slab) noexcept {
    auto* job = new (std::nothrow) Job{nullptr, slab, nullptr, nullptr, nullptr};
    std::unique_lock lock(state_->mutex);
    if (job != nullptr && start()) return state_->push(job);
    // No memory for a job, or no thread: here and now, after what is under way for the slab. Late is worse than slow.
    delete job;
    state_->finished.wait(lock, [&] {
        for (const Job* other = state_->first; other != nullptr; other = other->next) {
            if (other->slab == slab) return false;
        }
        return state_->running == nullptr || state_->running->slab != slab;
    });
    for (Domain* domain : state_->domains) {
        if (domain != nullptr) deregister_slab(*domain, *slab);
    }
    SlabStore::instance().unmap(slab);
}

unsigned Registrar::enroll(Domain& domain) noexcept {
    const std::lock_guard lock(state_->mutex);
    for (unsigned i = 0; i < domains_max; ++i) {
        if (state_->domains[i] == nullptr) {
            state_->domains[i] = &domain;
            return i;
        }
    }
    return domains_max;
}

void Registrar::forget(Domain& domain) noexcept {
    std::unique_lock lock(state_->mutex);
    state_->finished.wait(lock, [&] {
        if (state_->running != nullptr && (state_->running->domain == &domain || state_->running->domain == nullptr)) return false;
        for (Job* job = state_->first; job != nullptr; job = job->next) {
            if (job->domain == &domain || job->domain == nullptr) return false;
        }
        return true;
    });
    SlabStore::instance().for_each([&](Slab& slab) { deregister_slab(domain, slab); });
    state_->domains[domain.number()] = nullptr;
}

// -- Domain ---------------------------------------------------------------------------------------------------

Domain::Domain() noexcept { number_ = Registrar::instance().enroll(*this); }

Domain::~Domain() { retire(); }

void Domain::retire() noexcept {
    if (retired_ || !enrolled()) return;
    retired_ = true;
    Registrar::instance().forget(*this);
}

void Domain::request(Slab& slab, void (*done)(void* context), void* context) noexcept {
    if (!enrolled()) return;
    KeyState absent = KeyState::absent;
    // Looked at first: where a key is refused, or on its way, every message asks, and none of them is to lock the bus.
    if (slab.keys[number_].state.load(std::memory_order_acquire) != absent) return;
    if (slab.keys[number_].state.compare_exchange_strong(absent, KeyState::pending, std::memory_order_acq_rel)) {
        Registrar::instance().request(*this, slab, done, context);
    }
}

}  // namespace evpl::memory
