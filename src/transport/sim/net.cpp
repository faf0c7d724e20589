// The net as tests hold it, what it counts, and the devices' receive blocks.

#include <time.h>

#include <algorithm>
#include <cstring>

#include "evpl/check.hpp"
#include "transport/sim/world.hpp"

namespace evpl::transport {
namespace sim {
namespace {

thread_local SimNet* current_net = nullptr;

}  // namespace

// -- the devices' receive blocks -------------------------------------------------------------------------------

DeviceMemory::DeviceMemory(World& world, std::uint32_t blocks, std::uint32_t block_bytes)
    : world_(&world), block_bytes_(block_bytes), room_(std::size_t(blocks) * block_bytes) {
    for (std::uint32_t i = 0; i < blocks; ++i) {
        blocks_.push_back({this, i, room_.data() + std::size_t(i) * block_bytes});
        free_.push_back(blocks - 1 - i);
    }
}

DeviceMemory::Block* DeviceMemory::take() noexcept {
    if (free_.empty()) return nullptr;
    Block* block = &blocks_[free_.back()];
    free_.pop_back();
    ++held_;
    world_->counted.device_buffers_held_most = std::max(world_->counted.device_buffers_held_most, held_);
    return block;
}

void DeviceMemory::give_back(void* given) noexcept {
    auto* block = static_cast<Block*>(given);
    DeviceMemory* memory = block->memory;
    std::memset(block->bytes, 0xdd, memory->block_bytes_);  // whoever still reads it is found out
    memory->free_.push_back(block->number);                 // room was reserved by its first filling
    if (--memory->held_ == 0 && memory->orphan_) {
        if (memory->world_ != nullptr) std::erase(memory->world_->memories, memory);
        delete memory;
    }
}

void DeviceMemory::orphan() noexcept {
    orphan_ = true;
    if (held_ != 0) return;
    if (world_ != nullptr) std::erase(world_->memories, this);
    delete this;
}

// -- counting --------------------------------------------------------------------------------------------------

World::World(const SimOptions& given) : options(given), random(given.seed) {
    for (unsigned i = 0; i < options.devices; ++i) devices.push_back(std::make_unique<SimDomain>());
}

void World::violation(const char* what) noexcept {
    if (counted.violations++ == 0) counted.first_violation = what;
}

void World::trace(const char* upcall, std::uint64_t link, std::uint64_t detail, std::span<const std::byte> bytes) noexcept {
    ++counted.upcalls;
    const auto mix = [this](std::uint64_t value) { hash = (hash ^ value) * 0x100000001b3u; };  // FNV-1a
    for (const char* c = upcall; *c != 0; ++c) mix(std::uint8_t(*c));
    mix(link);
    mix(detail);
    mix(std::uint64_t(now));
    for (const std::byte byte : bytes) mix(std::uint64_t(byte));
    if (on_trace != nullptr) on_trace(trace_context, {now, upcall, link, detail});
}

}  // namespace sim

// -- the net ---------------------------------------------------------------------------------------------------

using sim::World;

SimNet::SimNet(const SimOptions& options) : world_(new World(options)), previous_(sim::current_net) { sim::current_net = this; }

SimNet::~SimNet() {
    for (const auto* port : world_->ports) EVPL_CHECK(port == nullptr, "a SimNet must outlive the loops that use it", port->id, 0);
    for (auto* memory : world_->memories) memory->world_is_gone();
    sim::current_net = previous_;
    delete world_;
}

SimNet* SimNet::current() noexcept { return sim::current_net; }
const SimOptions& SimNet::options() const noexcept { return world_->options; }
std::int64_t SimNet::now_ns() const noexcept { return world_->now; }

std::int64_t SimNet::next_event_ns() const noexcept { return world_->events.empty() ? INT64_MAX : world_->events.front().at; }

void SimNet::advance(Duration by) { world_->run_until(by.ns > INT64_MAX - world_->now ? INT64_MAX - 1 : world_->now + by.ns); }

bool SimNet::step() {
    if (world_->events.empty()) return false;
    world_->run_until(world_->events.front().at);
    return true;
}

bool SimNet::completions_waiting() const noexcept {
    return std::any_of(world_->ports.begin(), world_->ports.end(), [](const sim::SimPort* port) { return port != nullptr && !port->completions.empty(); });
}

void SimNet::set_trace(void (*trace)(void*, const SimTrace&), void* context) noexcept {
    world_->on_trace = trace;
    world_->trace_context = context;
}

std::uint64_t SimNet::trace_hash() const noexcept { return world_->hash; }

SimStats SimNet::stats() const noexcept {
    SimStats stats = world_->counted;
    stats.allocations = world_->allocations;
    for (const auto* memory : world_->memories) stats.device_buffers_held += memory->held();
    for (const sim::Event& event : world_->events) stats.bytes_in_flight += event.fragment.bytes.size();
    for (const sim::SimPort* port : world_->ports) {
        if (port == nullptr) continue;
        for (const auto& link : port->links) {
            if (link->state == sim::SimLink::State::free) continue;
            ++stats.links_not_retired;
            stats.links_open += !link->closed_told;
            stats.bytes_held += link->held.bytes();
            for (const sim::Fragment& fragment : link->inbound) stats.bytes_in_flight += fragment.left();
        }
    }
    return stats;
}

std::uint64_t SimNet::upcalls() const noexcept { return world_->counted.upcalls; }

void SimNet::cut_links() {
    for (sim::SimPort* port : world_->ports) {
        if (port == nullptr) continue;
        for (auto& link : port->links)
            if (link->state == sim::SimLink::State::open) world_->cut(*link, {Errc::reset, Step::recv, Who::system});
    }
}

void SimNet::silence_links() {
    for (sim::SimPort* port : world_->ports) {
        if (port == nullptr) continue;
        for (auto& link : port->links)
            if (link->state == sim::SimLink::State::open) world_->silence(*link);
    }
}

bool SimNet::settle(unsigned real_ms) const noexcept {
    for (unsigned waited_us = 0;; waited_us += 50) {
        bool pending = false;
        memory::SlabStore::instance().for_each([&](memory::Slab& slab) {
            for (const auto& device : world_->devices)
                pending |= device->enrolled() && slab.keys[device->number()].state.load(std::memory_order_acquire) == memory::KeyState::pending;
        });
        if (!pending) return true;
        if (waited_us / 1000 >= real_ms) return false;
        const timespec nap{0, 50'000};
        nanosleep(&nap, nullptr);
    }
}

}  // namespace evpl::transport
