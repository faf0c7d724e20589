#include "field.hpp"

#include <sys/mman.h>
#include <time.h>

#include <cerrno>
#include <utility>

namespace probe {

Field* Field::here = nullptr;

namespace {

void* allocate(std::size_t bytes) {
    void* const at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return nullptr;
    Field::here->block = {static_cast<std::byte*>(at), bytes, Field::here->block.asked + 1};
    return at;
}
void keep(void*) {}
void registered(void* at, std::size_t bytes, std::size_t) { Field::here->registered = {static_cast<std::byte*>(at), bytes, 0}; }

void on_event(abi::Socket socket, std::uintptr_t userdata, int event, int value) {
    Field::here->record.push_back({Call::event, socket, userdata, std::uintptr_t(event), value, Field::here->polling});
}
void on_completion(abi::Socket socket, std::uintptr_t userdata, std::uintptr_t operation) {
    Field::here->record.push_back({Call::completion, socket, userdata, operation, 0, Field::here->polling});
}
void on_received(abi::Socket socket, std::uintptr_t userdata, void* data, std::size_t bytes, abi::Buf* buf) {
    Field& field = *Field::here;
    field.record.push_back({Call::received, socket, userdata, bytes, 0, field.polling});
    field.received_bytes.emplace_back(socket, std::string(static_cast<const char*>(data), bytes));
    const auto* const at = static_cast<const std::byte*>(data);
    field.outside_block |= at < field.block.base || at + bytes > field.block.base + field.block.bytes;
    if (std::exchange(field.hold_next, false)) field.held = buf;
    else field.calls.group_buf_free(field.group, buf);
}
void on_accepted(abi::Socket made, abi::Socket parent, std::uintptr_t userdata) {
    Field::here->forget(made);
    Field::here->record.push_back({Call::accepted, made, userdata, parent, 0, Field::here->polling});
}

}  // namespace

std::int64_t Field::now_ms() {
    timespec t{};
    clock_gettime(CLOCK_MONOTONIC, &t);
    return std::int64_t(t.tv_sec) * 1000 + t.tv_nsec / 1'000'000;
}

int Field::start() {
    const abi::InitAttr attr{0, &probe::registered, &allocate, &keep};
    if (calls.init(&attr) != 0) return errno != 0 ? errno : EIO;
    group = make_group();
    return group != 0 ? 0 : errno;
}

abi::Group Field::make_group(bool accepts) {
    const abi::GroupAttr attr{0, &on_event, &on_completion, &on_received, accepts ? &on_accepted : nullptr};
    abi::Group made = 0;
    return calls.group_create(&attr, &made) == 0 ? made : 0;
}

abi::Socket Field::make_socket(abi::Group of, std::uintptr_t userdata) {
    const abi::SocketAttr attr{0, AF_INET, of, userdata};
    abi::Socket made = 0;
    if (calls.socket_create(&attr, &made) != 0) return 0;
    forget(made);
    return made;
}

/// A socket that has ended may leave its handle to the next one.
void Field::forget(abi::Socket socket) {
    for (Call& one : record)
        if (one.socket == socket) one.socket = 0;
    std::erase_if(received_bytes, [=](const auto& one) { return one.first == socket; });
}

int Field::connect(abi::Socket socket, const sockaddr_in& to) {
    return calls.socket_connect(socket, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0 ? 0 : errno;
}

void Field::poll(abi::Group of) {
    polling = true;
    calls.group_poll(of);
    polling = false;
}

unsigned Field::count(Call::What what, abi::Socket socket, std::uintptr_t value) const {
    unsigned found = 0;
    for (const Call& one : record) found += one.what == what && one.socket == socket && one.value == value ? 1 : 0;
    return found;
}

const Call* Field::find_event(abi::Socket socket, int event) const {
    for (const Call& one : record)
        if (one.what == Call::event && one.socket == socket && one.value == std::uintptr_t(event)) return &one;
    return nullptr;
}

std::string Field::bytes_of(abi::Socket socket) const {
    std::string all;
    for (const auto& [from, bytes] : received_bytes)
        if (from == socket) all += bytes;
    return all;
}

}  // namespace probe
