// From a C table and a C factory to what the library keeps.
#include <new>

#include "capi.hpp"

namespace evpl::capi {
namespace {

constexpr std::uint32_t state_bytes_max = 64u << 10;

Result<void*> build(void* context, Connection& peer, void* room) {
    const auto& source = *static_cast<const Source*>(context);
    const evpl_factory& factory = source.factory;
    if (factory.size_bytes == 0) return source.self;
    if (factory.state_bytes != 0) std::memset(room, 0, factory.state_bytes);
    void* state = room;
    if (factory.build != nullptr) {
        const evpl_error error = factory.build(factory.context, reinterpret_cast<evpl_connection*>(&peer), room, &state);
        if (error.code != EVPL_OK) return from_c(error);
    }
    return state;
}

void drop(void* context) {
    auto* const source = static_cast<Source*>(context);
    if (source->shared != nullptr) source->shared->unref();
    else if (source->factory.drop != nullptr) source->factory.drop(source->factory.context);
    delete source;
}

}  // namespace

void SharedDrop::unref() noexcept {
    if (refs.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    if (drop != nullptr) drop(context);
    delete this;
}

bool make_source(const evpl_handler* handler, const evpl_factory* factory, void* self, Source& source) noexcept {
    if (handler == nullptr || handler->size_bytes < offsetof(evpl_handler, on_recv)) return false;
    source.table = read(handler);
    source.table.size_bytes = sizeof source.table;
    source.factory = read(factory);
    source.self = self;
    if (factory == nullptr) return true;
    if (source.factory.size_bytes < offsetof(evpl_factory, build) || source.factory.state_bytes > state_bytes_max) return false;
    return source.factory.build != nullptr || source.factory.state_bytes != 0;
}

detail::ConnectionFactory factory_of(const Source& source) noexcept {
    detail::ConnectionFactory made;
    auto* const kept = new (std::nothrow) Source(source);
    made.context = kept;  // null: the library answers out_of_memory
    if (kept == nullptr && source.shared == nullptr && source.factory.drop != nullptr) source.factory.drop(source.factory.context);
    if (kept != nullptr && source.shared != nullptr) source.shared->refs.fetch_add(1, std::memory_order_relaxed);
    made.table = reinterpret_cast<const HandlerTable*>(kept != nullptr ? &kept->table : nullptr);
    made.handler_bytes = source.factory.state_bytes;
    made.handler_align = alignof(std::max_align_t);
    made.build = &build;
    made.destroy = source.factory.destroy;
    made.drop = &drop;
    return made;
}

}  // namespace evpl::capi
