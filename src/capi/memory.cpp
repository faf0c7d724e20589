// Buffers, chains, parcels.
#include "capi.hpp"

using namespace evpl;
using namespace evpl::capi;

namespace {

evpl_error give(Result<Buffer> made, evpl_buffer* buffer) noexcept {
    if (!made) return to_c(made.error());
    cpp(buffer) = *std::move(made);
    return success;
}

}  // namespace

extern "C" {

evpl_error evpl_allocate(evpl_loop* loop, uint32_t size, evpl_buffer* buffer) {
    if (loop == nullptr || buffer == nullptr || size == 0) return misuse;
    return give(cpp(loop).allocate(size), buffer);
}
evpl_error evpl_copy(evpl_loop* loop, const void* bytes, size_t size, evpl_buffer* buffer) {
    if (loop == nullptr || buffer == nullptr || bytes == nullptr || size == 0) return misuse;
    return give(cpp(loop).copy(std::span(static_cast<const std::byte*>(bytes), size)), buffer);
}
evpl_error evpl_wrap(evpl_loop* loop, void* bytes, size_t size, void (*release)(void*), void* context, evpl_buffer* buffer) {
    if (loop == nullptr || buffer == nullptr || bytes == nullptr || release == nullptr || size == 0 || size > UINT32_MAX) return misuse;
    return give(cpp(loop).wrap(std::span(static_cast<std::byte*>(bytes), size), release, context), buffer);
}

void* evpl_buffer_data(const evpl_buffer* buffer) { return buffer == nullptr ? nullptr : cpp(buffer).data(); }
uint32_t evpl_buffer_size(const evpl_buffer* buffer) { return buffer == nullptr ? 0 : cpp(buffer).size(); }
evpl_error evpl_buffer_share(const evpl_buffer* buffer, uint32_t offset, uint32_t size, evpl_buffer* other) {
    if (buffer == nullptr || other == nullptr) return misuse;
    const Buffer& from = cpp(buffer);
    if (offset > from.size() || size > from.size() - offset) return misuse;
    cpp(other) = from.share(offset, size);
    return success;
}
evpl_error evpl_buffer_drop_front(evpl_buffer* buffer, uint32_t n) {
    if (buffer == nullptr || n > cpp(buffer).size()) return misuse;
    cpp(buffer).drop_front(n);
    return success;
}
evpl_error evpl_buffer_truncate(evpl_buffer* buffer, uint32_t n) {
    if (buffer == nullptr || n > cpp(buffer).size()) return misuse;
    cpp(buffer).truncate(n);
    return success;
}
void evpl_buffer_release(evpl_buffer* buffer) {
    if (buffer != nullptr) cpp(buffer).reset();
}

evpl_error evpl_buffer_pack(evpl_buffer* buffer, evpl_parcel* parcel) {
    if (buffer == nullptr || parcel == nullptr || !cpp(buffer)) return misuse;
    Parcel packed = std::move(cpp(buffer)).pack();
    if (!packed) return no_memory;
    cpp(parcel) = std::move(packed);
    return success;
}
uint32_t evpl_parcel_size(const evpl_parcel* parcel) { return parcel == nullptr ? 0 : cpp(parcel).size(); }
evpl_error evpl_parcel_open(evpl_parcel* parcel, evpl_loop* loop, evpl_buffer* buffer) {
    if (parcel == nullptr || loop == nullptr || buffer == nullptr || !cpp(parcel)) return misuse;
    cpp(buffer) = std::move(cpp(parcel)).open(cpp(loop));
    return success;
}
void evpl_parcel_drop(evpl_parcel* parcel) {
    if (parcel != nullptr) cpp(parcel) = Parcel();
}

size_t evpl_chain_size(const evpl_chain* chain) {
    const Chain* const c = chain_in(chain);
    return c == nullptr ? 0 : c->size();
}
uint32_t evpl_chain_count(const evpl_chain* chain) {
    const Chain* const c = chain_in(chain);
    return c == nullptr ? 0 : uint32_t(c->slices().size());
}
evpl_bytes evpl_chain_slice(const evpl_chain* chain, uint32_t i) {
    if (i >= evpl_chain_count(chain)) return {};
    const Buffer& slice = chain_in(chain)->slices()[i];
    return {slice.data(), slice.size()};
}
evpl_error evpl_chain_share_slice(const evpl_chain* chain, uint32_t i, evpl_buffer* buffer) {
    if (buffer == nullptr || i >= evpl_chain_count(chain)) return misuse;
    cpp(buffer) = chain_in(chain)->slices()[i].share();
    return success;
}
evpl_error evpl_chain_append(evpl_chain* chain, evpl_buffer* buffer) {
    if (chain == nullptr || buffer == nullptr || is_copied(chain)) return misuse;
    if (Chain* const c = chain_in(chain)) return c->append(std::move(cpp(buffer))) ? success : no_memory;
    put(chain, Chain(std::move(cpp(buffer))));
    return success;
}
evpl_error evpl_chain_append_chain(evpl_chain* chain, evpl_chain* other) {
    if (chain == nullptr || other == nullptr || chain == other || is_copied(chain) || is_copied(other)) return misuse;
    Chain* const c = chain_in(chain);
    if (c == nullptr) {
        put(chain, take(other));
        return success;
    }
    Chain* const more = chain_in(other);
    if (more != nullptr && !c->append(std::move(*more))) return no_memory;
    clear(other);
    return success;
}
evpl_error evpl_chain_take_front(evpl_chain* chain, size_t n, evpl_chain* front) {
    if (chain == nullptr || front == nullptr || chain == front || is_copied(chain)) return misuse;
    Chain* const c = chain_in(chain);
    put(front, c == nullptr ? Chain() : c->take_front(n));
    return success;
}
evpl_error evpl_chain_drop_front(evpl_chain* chain, size_t n) {
    if (chain == nullptr || is_copied(chain)) return misuse;
    if (Chain* const c = chain_in(chain)) c->drop_front(n);
    return success;
}
evpl_error evpl_chain_share(const evpl_chain* chain, evpl_chain* other) {
    if (chain == nullptr || other == nullptr || chain == other || is_copied(chain)) return misuse;
    const Chain* const c = chain_in(chain);
    Chain shared = c == nullptr ? Chain() : c->share();
    if (c != nullptr && shared.empty() && !c->empty()) return no_memory;
    put(other, std::move(shared));
    return success;
}
size_t evpl_chain_copy_to(const evpl_chain* chain, void* target, size_t room, size_t offset) {
    const Chain* const c = chain_in(chain);
    if (c == nullptr || target == nullptr || offset >= c->size()) return 0;
    return c->copy_to(std::span(static_cast<std::byte*>(target), room), offset);
}
void evpl_chain_clear(evpl_chain* chain) { clear(chain); }

evpl_error evpl_limit_process_memory(uint64_t bytes) {
    if (bytes == 0) return misuse;
    limit_process_memory(bytes);
    return success;
}

}  // extern "C"
