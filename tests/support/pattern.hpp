#pragma once

// Bytes that depend on a seed and their position: any prefix, wherever it was cut, can be verified.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <string_view>

#include "evpl/connection.hpp"
#include "evpl/loop.hpp"

namespace evpl::test {

/// EVPL_TEST_SEED repeats a run; every test that uses chance prints it when it fails.
inline std::uint64_t seed() {
    static const std::uint64_t value = [] {
        const char* given = std::getenv("EVPL_TEST_SEED");
        return given != nullptr ? std::strtoull(given, nullptr, 10) : 20'260'101ull;
    }();
    return value;
}

inline std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text.data(), text.size())); }

/// Eight bytes of the stream `key` at position 8 * block (splitmix64).
inline std::uint64_t pattern_word(std::uint64_t key, std::uint64_t block) {
    std::uint64_t z = key * 0x9e3779b97f4a7c15ull + block * 0xbf58476d1ce4e5b9ull + 0x94d049bb133111ebull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

inline void fill_pattern(std::span<std::byte> target, std::uint64_t key, std::uint64_t at) {
    for (std::size_t i = 0; i < target.size();) {
        const std::uint64_t word = pattern_word(key, (at + i) / 8);
        const std::size_t from = (at + i) % 8;
        const std::size_t n = std::min<std::size_t>(8 - from, target.size() - i);
        std::memcpy(target.data() + i, reinterpret_cast<const std::byte*>(&word) + from, n);
        i += n;
    }
}

inline std::string pattern(std::size_t size_bytes, std::uint64_t key = 1, std::uint64_t at = 0) {
    std::string text(size_bytes, '\0');
    fill_pattern(std::as_writable_bytes(std::span(text)), key, at);
    return text;
}

/// Where `bytes` first differ from the pattern at position `at`; its size when they do not.
inline std::size_t pattern_mismatch(std::span<const std::byte> bytes, std::uint64_t key, std::uint64_t at) {
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        const std::uint64_t word = pattern_word(key, (at + i) / 8);
        if (std::memcmp(bytes.data() + i, reinterpret_cast<const std::byte*>(&word) + (at + i) % 8, 1) != 0) return i;
        if ((at + i) % 8 == 0)
            while (i + 8 < bytes.size()) {
                const std::uint64_t next = pattern_word(key, (at + i) / 8);
                if (std::memcmp(bytes.data() + i, &next, 8) != 0) break;
                i += 8;
            }
    }
    return bytes.size();
}

/// Takes received bytes and tells whether all of them were an exact prefix of the pattern.
struct PatternCheck {
    std::uint64_t key = 1;
    std::size_t bytes = 0;
    bool good = true;

    void take(std::span<const std::byte> slice) {
        if (pattern_mismatch(slice, key, bytes) != slice.size()) good = false;
        bytes += slice.size();
    }
    void take(const Chain& chain) {
        for (const Buffer& slice : chain) take(slice.bytes());
    }
    /// Everything there is: on a message transport one recv gives one message.
    void take_all(Connection& from) {
        for (Chain chain = from.recv(); !chain.empty(); chain = from.recv()) take(chain);
    }
};

/// Sends `total` bytes of a pattern in pieces of random size as fast as the connection lets it.
struct Pump {
    std::uint64_t key = 1;
    std::size_t total = 0;
    std::size_t least = 1;
    std::size_t most = 64u << 10;
    std::size_t sent = 0;
    std::size_t pauses = 0;
    Errc error = Errc::none;
    std::minstd_rand dice{std::uint32_t(seed())};

    bool done() const { return sent == total; }
    /// From on_open and on_writable. A piece never exceeds what one message may have.
    void operator()(Connection& to) {
        const std::uint32_t message = to.caps().message_bytes_max;
        while (sent < total && error == Errc::none) {
            std::size_t size = std::uniform_int_distribution<std::size_t>(least, most)(dice);
            if (to.caps().kind == Kind::message && message != 0) size = std::min<std::size_t>(size, message);
            size = std::min(size, total - sent);
            const Flow flow = to.send(pattern(size, key, sent));
            error = flow.error();
            if (error == Errc::none) sent += size;
            if (flow.paused()) ++pauses;
            if (!flow) return;
        }
    }
};

inline std::string text_of(const Chain& chain) {
    std::string text;
    for (const Buffer& slice : chain) text.append(reinterpret_cast<const char*>(slice.data()), slice.size());
    return text;
}

/// A chain of `text` cut into slices of `slice_bytes`.
inline Chain chain_of(Loop& loop, std::string_view text, std::size_t slice_bytes) {
    Chain chain;
    for (std::size_t at = 0; at < text.size(); at += slice_bytes) {
        auto slice = loop.copy(text.substr(at, slice_bytes));
        if (!slice || !chain.append(*std::move(slice))) return {};
    }
    return chain;
}

}  // namespace evpl::test
