#pragma once

#include "memory/domain.hpp"
#include "transport/common/region_table.hpp"
#include "transport/xlio/abi.hpp"

namespace evpl::transport::xlio {

/// Our slabs in one of the card's protection domains. Several ports of one card share it; it stays for the process, like the library.
class Domain final : public memory::Domain {
public:
    /// Null: out of memory. Thread: any. Cost: a lock, and a walk over the few domains there are; once per connection.
    static Domain* of(abi::ProtectionDomain* pd, const abi::Calls& calls) noexcept;

    Result<std::uint64_t> register_memory(std::byte* base, std::size_t size_bytes) noexcept override;
    void deregister_memory(std::byte* base, std::size_t size_bytes, std::uint64_t key) noexcept override;
    /// The half of a slab's key that the card understands; the other half is our number of the region.
    static std::uint32_t lkey_of(std::uint64_t key) noexcept { return RegionTable<abi::MemoryRegion>::lkey_of(key); }

private:
    Domain(abi::ProtectionDomain* pd, const abi::Calls& calls) noexcept : pd_(pd), calls_(calls) {}

    abi::ProtectionDomain* const pd_;
    const abi::Calls& calls_;
    Domain* next_ = nullptr;
    RegionTable<abi::MemoryRegion> regions_;
};

}  // namespace evpl::transport::xlio
