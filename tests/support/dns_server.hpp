#pragma once

// A name server on a thread of its own that does what a test tells it: answers by table, late, wrong, too much, or not at all.

#include <poll.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "evpl/loop.hpp"
#include "support/patience.hpp"
#include "support/sockets.hpp"

namespace evpl::test {

/// What the server does with questions about one name and one record type.
struct DnsAnswer {
    enum class How : std::uint8_t {
        normal,
        silence,      ///< nobody answers
        garbage,      ///< the question's id, then noise
        noise_after,  ///< the question comes back whole, then noise where records should be
        cut,          ///< the last bytes are missing
        lying_count,  ///< claims more records than there are
        looping,      ///< a name that points to itself
        truncated,    ///< the TC bit, no records: the whole answer by TCP
        nothing,      ///< an empty datagram
        other_name,   ///< an answer to a question nobody asked
    };
    std::vector<std::string> addresses;
    unsigned code = 0;  ///< 0 fine, 2 SERVFAIL, 3 NXDOMAIN, 5 REFUSED (RFC 1035 section 4.1.1)
    How how = How::normal;
    Duration delay;
    std::size_t padding = 0;  ///< so many bytes of TXT records behind the answer
};

/// Answers on 127.0.0.1 by UDP, and by TCP on the same port.
class DnsServer {
public:
    using How = DnsAnswer::How;
    struct Name {
        DnsAnswer a, aaaa;
    };

    DnsServer() {
        for (int tries = 0; tries < 20 && !stream_; ++tries) {
            datagrams_ = plain_socket(SOCK_DGRAM);
            port_ = port_of(datagrams_.get());
            Fd stream(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
            const sockaddr_in address = loopback(port_);
            if (::bind(stream.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 && ::listen(stream.get(), 16) == 0) {
                stream_ = std::move(stream);
            }
        }
        address_ = "127.0.0.1:" + std::to_string(port_);
        thread_ = std::thread([this] { serve(); });
    }
    ~DnsServer() {
        over_ = true;
        thread_.join();
    }
    DnsServer(const DnsServer&) = delete;
    DnsServer& operator=(const DnsServer&) = delete;

    /// Names not told of do not exist (NXDOMAIN), or get `name` when told of "*".
    void set(const std::string& name, Name answers) {
        const std::lock_guard lock(mutex_);
        table_[name] = std::move(answers);
    }
    /// The same to both questions.
    void set_both(const std::string& name, const DnsAnswer& answer) { set(name, {answer, answer}); }

    const char* address() const { return address_.c_str(); }
    std::uint16_t port() const { return port_; }
    LoopOptions options() const {
        LoopOptions made;
        made.mode = Mode::event;
        made.stall = 10_s;
        made.dns_servers = address_.c_str();
        return made;
    }
    int questions() const { return questions_; }
    int questions_by_tcp() const { return by_tcp_; }

private:
    using Clock = std::chrono::steady_clock;
    struct Waiting {
        Clock::time_point due;
        sockaddr_in to;
        std::string bytes;
    };

    static std::string two(std::size_t value) { return {char(value >> 8 & 0xff), char(value & 0xff)}; }
    static std::string noise(std::size_t size) {
        std::string made;
        std::uint32_t state = 0x2545f491;
        while (made.size() < size) made += char((state = state * 1664525 + 1013904223) >> 24);
        return made;
    }
    static std::string bytes_of(const std::string& address) {
        const bool six = address.find(':') != std::string::npos;
        char bytes[16] = {};
        inet_pton(six ? AF_INET6 : AF_INET, address.c_str(), bytes);
        return {bytes, six ? 16u : 4u};
    }

    void serve() {
        while (!over_) {
            std::vector<pollfd> entries{{datagrams_.get(), POLLIN, 0}, {stream_.get(), POLLIN, 0}};
            for (const Fd& peer : peers_) entries.push_back({peer.get(), POLLIN, 0});
            const auto now = Clock::now();
            int wait_ms = 10;
            for (const Waiting& one : waiting_)
                wait_ms = std::min<int>(wait_ms, std::max<int>(0, int(std::chrono::ceil<std::chrono::milliseconds>(one.due - now).count())));
            ::poll(entries.data(), entries.size(), wait_ms);
            if ((entries[0].revents & POLLIN) != 0) take_datagrams();
            if ((entries[1].revents & POLLIN) != 0) peers_.emplace_back(::accept4(stream_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
            for (std::size_t i = 2; i < entries.size(); ++i)
                if (entries[i].revents != 0) take_stream(peers_[i - 2]);
            std::erase_if(peers_, [](const Fd& peer) { return !peer; });
            send_due();
        }
    }

    void take_datagrams() {
        char bytes[1500];
        sockaddr_in from{};
        for (;;) {
            socklen_t size = sizeof from;
            const ssize_t n = ::recvfrom(datagrams_.get(), bytes, sizeof bytes, MSG_DONTWAIT, reinterpret_cast<sockaddr*>(&from), &size);
            if (n < 0) return;
            DnsAnswer what;
            std::string answer = answer_to({bytes, std::size_t(n)}, false, what);
            if (what.how == How::silence) continue;
            waiting_.push_back({Clock::now() + std::chrono::nanoseconds(what.delay.ns), from, std::move(answer)});
        }
    }

    // Questions come whole: they are small, and from this machine.
    void take_stream(Fd& peer) {
        char bytes[4096];
        const ssize_t n = ::recv(peer.get(), bytes, sizeof bytes, 0);
        if (n <= 0) return peer.reset();
        std::string_view left(bytes, std::size_t(n));
        while (left.size() > 2) {
            const std::size_t size = std::size_t(std::uint8_t(left[0])) << 8 | std::uint8_t(left[1]);
            if (left.size() < size + 2) return;
            ++by_tcp_;
            DnsAnswer what;
            const std::string answer = answer_to(std::string(left.substr(2, size)), true, what);
            const std::string framed = two(answer.size()) + answer;
            if (::send(peer.get(), framed.data(), framed.size(), MSG_NOSIGNAL) < 0) return peer.reset();
            left.remove_prefix(size + 2);
        }
    }

    void send_due() {
        const auto now = Clock::now();
        std::erase_if(waiting_, [&](const Waiting& one) {
            if (one.due > now) return false;
            ::sendto(datagrams_.get(), one.bytes.data(), one.bytes.size(), 0, reinterpret_cast<const sockaddr*>(&one.to), sizeof one.to);
            return true;
        });
    }

    DnsAnswer find(const std::string& name, bool six) {
        const std::lock_guard lock(mutex_);
        auto at = table_.find(name);
        if (at == table_.end()) at = table_.find("*");
        if (at == table_.end()) return {.addresses = {}, .code = 3};
        return six ? at->second.aaaa : at->second.a;
    }

    std::string answer_to(const std::string& question, bool by_tcp, DnsAnswer& what) {
        ++questions_;
        std::string name;
        std::size_t at = 12;
        while (at < question.size() && question[at] != 0) {
            const auto label = std::size_t(static_cast<unsigned char>(question[at]));
            name += (name.empty() ? "" : ".") + question.substr(at + 1, label);
            at += label + 1;
        }
        at += 5;  // the final zero, type and class
        if (at > question.size()) return what.how = How::silence, std::string();
        const bool six = question[at - 3] == 28;
        what = find(name, six);
        const std::string id = question.substr(0, 2);
        std::string asked = question.substr(12, at - 12);
        switch (what.how) {
        case How::nothing: return {};
        case How::garbage: return id + noise(200);
        case How::other_name: asked[1] = asked[1] == 'x' ? 'y' : 'x'; break;
        default: break;
        }
        if (what.how == How::truncated && !by_tcp) return id + std::string("\x83\x80\0\1\0\0\0\0\0\0", 10) + asked;
        if (what.how == How::noise_after) return id + std::string("\x81\x80\0\1\0\3\0\0\0\0", 10) + asked + noise(90);
        std::string records;
        std::size_t count = 0;
        for (const std::string& address : what.addresses) {
            const std::string bytes = bytes_of(address);
            if ((bytes.size() == 16) != six) continue;
            const std::string owner = what.how == How::looping ? two(0xc000 + 12 + asked.size()) : "\xc0\x0c";  // points to itself
            records += owner + two(six ? 28 : 1) + std::string("\0\1\0\0\0\x3c", 6) + two(bytes.size()) + bytes;
            ++count;
        }
        for (std::size_t left = what.padding; left > 0; ++count) {
            const std::size_t n = std::min<std::size_t>(left, 200);
            records += "\xc0\x0c" + two(16) + std::string("\0\1\0\0\0\x3c", 6) + two(n + 1) + char(n) + std::string(n, 'x');
            left -= n;
        }
        if (what.how == How::lying_count) count += 40;
        std::string answer = id + "\x81" + char(0x80 | what.code) + two(1) + two(count) + std::string(4, '\0') + asked + records;
        if (what.how == How::cut) answer.resize(answer.size() - 3);
        return answer;
    }

    Fd datagrams_, stream_;
    std::uint16_t port_ = 0;
    std::string address_;
    std::mutex mutex_;
    std::map<std::string, Name> table_;
    std::deque<Fd> peers_;
    std::vector<Waiting> waiting_;
    std::atomic<bool> over_ = false;
    std::atomic<int> questions_ = 0, by_tcp_ = 0;
    std::thread thread_;
};

}  // namespace evpl::test
