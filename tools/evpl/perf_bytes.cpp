#include "perf_bytes.hpp"

#include <fmt/format.h>

namespace tool {

bool Checker::take(const evpl::Chain& bytes) {
    for (const evpl::Buffer& slice : bytes) {
        const std::size_t good = worker_.pattern().agreeing(start_ + received_, slice.bytes());
        if (good < slice.size()) {
            worker_.corrupt(fmt::format("wrong bytes came back from {}: byte {} of the connection differs", worker_.plan().url, received_ + good));
            return false;
        }
        received_ += slice.size();
    }
    return true;
}

evpl::Flow send_message(const Worker& worker, evpl::Connection& peer, std::uint64_t at) {
    const std::uint32_t size = worker.plan().size;
    if (size <= copied_bytes_max) return peer.send(worker.pattern().bytes(at, size));
    evpl::Chain message = Pattern::chain(worker.table(), at, size);
    if (message.size() < size) return {evpl::Flow::State::refused, evpl::Errc::out_of_memory};
    return peer.send(std::move(message));
}

bool receive(evpl::Connection& peer, evpl::Chain& into) {
    if (peer.caps().kind == evpl::Kind::message) {
        auto message = peer.recv_message();
        into = message ? *std::move(message) : evpl::Chain{};
    } else {
        into = peer.recv();
    }
    return !into.empty();
}

}  // namespace tool
