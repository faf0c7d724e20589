#pragma once

// Drives inproc ports at the level of the contract: a fake loop, sinks that take note and check the order of upcalls, and a pair of
// ends over one loop or two.

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "evpl/endpoint.hpp"
#include "memory/heap.hpp"
#include "transport/inproc/inproc.hpp"

namespace evpl::transport::inproc_test {

inline Endpoint endpoint(std::string_view url) {
    Diagnostic why;
    const auto parsed = Endpoint::parse(url, &why);
    EXPECT_TRUE(parsed.ok()) << url << ": " << why.view();
    return parsed ? *parsed : Endpoint();
}

inline std::string fresh_name(const char* test) {
    static unsigned last = 0;
    return std::string("inproc://") + test + "-" + std::to_string(++last);
}

/// Bytes that depend on their place: a byte that is lost, doubled or out of order shows.
inline char pattern_at(std::size_t at) { return char((at * 2654435761u) >> 13); }
inline std::string pattern(std::size_t size, std::size_t from = 0) {
    std::string text(size, '\0');
    for (std::size_t i = 0; i < size; ++i) text[i] = pattern_at(from + i);
    return text;
}

/// What a loop gives its ports. Bells live as long as the process.
class FakeLoop final : public Host {
public:
    FakeLoop() : heap_(memory::Heap::create(512u << 20)), bell_(*new_bell()) {
        enter();
        EXPECT_TRUE(bell_.open());
        epoll_event event{};
        event.events = EPOLLIN | EPOLLET;
        EXPECT_EQ(epoll_ctl(waiter_, EPOLL_CTL_ADD, bell_.fd(), &event), 0);
        auto opened = inproc_transport().open(*this);
        EXPECT_TRUE(opened.ok());
        port = *opened;
    }
    ~FakeLoop() { end(); }
    FakeLoop(const FakeLoop&) = delete;

    /// The port, then the heap; safe to call twice.
    void end() {
        if (heap_ == nullptr) return;
        enter();
        delete std::exchange(port, nullptr);
        heap_->flush_departures();
        memory::Heap::set_current(nullptr);
        std::exchange(heap_, nullptr)->retire();
        bell_.close();
        ::close(waiter_);
    }
    /// Sleeps as core does, unless there is something to do. False: nobody rang for 20 s.
    bool sleep() {
        bool rang = true;
        bell_.prepare_sleep();
        if (!port->arm().work_waiting) {
            epoll_event event;
            int events = -1;
            do events = epoll_wait(waiter_, &event, 1, 20'000);
            while (events < 0 && errno == EINTR);  // a ring that an earlier test has closed lets go of its last requests on this thread
            rang = events == 1;
        }
        bell_.cancel_sleep();
        port->disarm();
        return rang;
    }

    void enter() { memory::Heap::set_current(heap_); }
    /// One turn of the loop without callbacks.
    unsigned turn(unsigned budget = 64) {
        enter();
        again_ = false;
        in_poll = true;
        const unsigned done = port->poll(budget);
        in_poll = false;
        heap_->drain_returns();
        heap_->flush_departures();
        return done;
    }
    bool again() const { return again_; }

    memory::Heap& heap() noexcept override { return *heap_; }
    Result<Sleeper*> sleeper() noexcept override { return Errc::not_supported; }
    Bell& bell() noexcept override { return bell_; }
    std::int64_t now_ns() const noexcept override { return 1; }
    std::uint32_t batch_bytes() const noexcept override { return 256u << 10; }
    void set_alarm(Port&, std::int64_t) noexcept override {}
    void poll_again() noexcept override { again_ = true; }
    void log_line(std::uint8_t, std::string_view) noexcept override {}

    Port* port = nullptr;
    bool in_poll = false;  ///< upcalls are allowed
    bool in_flush = false;

private:
    static Bell* new_bell() {
        static std::deque<Bell>* bells = new std::deque<Bell>;  // made on one thread, before the test's threads start
        return &bells->emplace_back();
    }
    memory::Heap* heap_;
    Bell& bell_;
    int waiter_ = epoll_create1(EPOLL_CLOEXEC);
    bool again_ = false;
};

/// One end of a link.
class End final : public Sink {
public:
    explicit End(FakeLoop& on) : loop(&on) {}
    ~End() { EXPECT_TRUE(link == nullptr || retires == 1 || abandoned) << "a link was not retired"; }

    // -- Sink
    void opened() override {
        allowed();
        EXPECT_EQ(opens++, 0);
    }
    void delivered(Buffer&& bytes, const Arrival& arrival) override {
        alive();
        EXPECT_FALSE(link->receive_paused && loop->in_poll && !pausing) << "delivered to a paused link";
        EXPECT_EQ(ends, 0) << "delivered after the end";
        ++deliveries;
        largest = std::max(largest, bytes.size());
        received_bytes += bytes.size();
        if (check_only) {
            for (std::byte b : bytes.bytes()) good &= char(b) == pattern_at(checked++);
        } else {
            message.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
            received.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        }
        EXPECT_EQ(arrival.end_of_message, (BufferAccess::flags(bytes) & BufferAccess::end_of_message) != 0);
        if (arrival.end_of_message) messages.push_back(std::exchange(message, {}));
        if (keep) kept.push_back(std::move(bytes));
        if (pause_after != 0 && received_bytes >= pause_after) {
            loop->port->pause(*link);
            pause_after = 0;
        }
    }
    void landed(std::uint32_t) override { FAIL(); }
    void ended() override {
        alive();
        EXPECT_EQ(ends++, 0);
    }
    void sent(std::size_t bytes) override {
        alive();
        sent_bytes += bytes;
    }
    void send_failed(Error) override { FAIL(); }
    void writable() override {
        alive();
        ++writables;
    }
    void completed(OperationId operation, Error error, Buffer&& buffer) override {
        alive();
        completions.push_back({operation, error, std::move(buffer)});
    }
    void closed(Error error) override {
        allowed();
        EXPECT_FALSE(loop->in_flush) << "closed() inside flush";
        EXPECT_EQ(closes++, 0);
        EXPECT_FALSE(error.ok());
        why = error;
    }
    void retired() override {
        allowed();
        EXPECT_EQ(closes, 1) << "retired before closed";
        EXPECT_EQ(retires++, 0);
    }

    // -- what a test does
    void connect(std::string_view url) {
        loop->enter();
        Diagnostic diagnostic;
        auto made = loop->port->connect(endpoint(url), Address{}, *this, outbox, diagnostic);
        ASSERT_TRUE(made.ok()) << diagnostic.view();
        link = *made;
        EXPECT_EQ(opens + closes, 0) << "an upcall from inside connect";
    }
    void put(Buffer&& slice, bool last = false) {
        BufferAccess::set_flags(slice, last ? BufferAccess::end_of_message : 0);
        queued_bytes += slice.size();
        ASSERT_TRUE(outbox.push(std::move(slice)));
    }
    /// Queues a copy; `slice_bytes` cuts it.
    void put(std::string_view text, bool last = false, std::size_t slice_bytes = memory::block_bytes_max) {
        loop->enter();
        do {
            const std::size_t n = std::min(text.size(), slice_bytes);
            auto slice = loop->heap().copy(reinterpret_cast<const std::byte*>(text.data()), std::uint32_t(n));
            ASSERT_TRUE(slice.ok());
            text.remove_prefix(n);
            put(*std::move(slice), last && text.empty());
        } while (!text.empty());
    }
    Flushed flush() {
        loop->enter();
        loop->in_flush = true;
        const Flushed done = loop->port->flush(*link);
        loop->in_flush = false;
        return done;
    }
    void send(std::string_view text, bool last = false) {
        put(text, last);
        flush();
    }
    void close(How how) {
        loop->enter();
        loop->port->close(*link, how);
    }
    bool over() const { return retires == 1; }

    FakeLoop* loop;
    Link* link = nullptr;
    SendQueue outbox;
    bool abandoned = false;   ///< its port is gone: no further upcalls
    bool keep = false;        ///< hold on to what is received
    bool check_only = false;  ///< compare with the pattern instead of collecting
    bool pausing = false;     ///< pauses inside delivered
    std::size_t pause_after = 0;

    std::string received, message;
    std::vector<std::string> messages;
    std::vector<Buffer> kept;
    std::vector<Completion> completions;
    std::size_t received_bytes = 0, sent_bytes = 0, queued_bytes = 0, checked = 0;
    std::uint32_t largest = 0;
    bool good = true;
    int opens = 0, ends = 0, closes = 0, retires = 0, writables = 0, deliveries = 0;
    Error why;

private:
    void allowed() const {
        EXPECT_TRUE(loop->in_poll || loop->in_flush) << "an upcall outside poll and flush";
        EXPECT_EQ(retires, 0) << "an upcall after retired";
    }
    void alive() const {
        allowed();
        EXPECT_EQ(opens, 1) << "an upcall before opened";
        EXPECT_EQ(closes, 0) << "an upcall after closed";
    }
};

/// Gives each link that is accepted the next prepared end; refuses without one.
class Door final : public Acceptor {
public:
    bool accepted(Link& link) override {
        ++callers;
        if (ready.empty()) return false;
        End* end = ready.front();
        ready.pop_front();
        link.sink = end;
        link.outbox = &end->outbox;
        end->link = &link;
        return true;
    }
    bool taken(int, const Address&) override { return false; }
    void paused(Error) override { FAIL(); }
    void failed(Error) override { FAIL(); }

    void listen(FakeLoop& loop, std::string_view url, bool shared = false) {
        loop.enter();
        Diagnostic why;
        auto made = loop.port->listen(endpoint(url), shared, *this, why);
        ASSERT_TRUE(made.ok()) << why.view();
        listening = *made;
    }

    std::deque<End*> ready;
    Listening* listening = nullptr;
    int callers = 0;
};

/// Where the two ends of a test live, and what they carry.
struct Where {
    bool two_loops;
    bool messages;
    friend std::ostream& operator<<(std::ostream& out, const Where& w) {
        return out << (w.two_loops ? "TwoLoops" : "OneLoop") << (w.messages ? "Messages" : "Stream");
    }
};

/// A listener, and one open link between `client` and `server`.
struct Pair {
    explicit Pair(const Where& where, const char* name = "pair", bool open = true)
        : near_loop(std::make_unique<FakeLoop>()),
          far_loop(where.two_loops ? std::make_unique<FakeLoop>() : nullptr),
          a(*near_loop),
          b(where.two_loops ? *far_loop : *near_loop),
          client(a),
          server(b),
          url(fresh_name(name) + (where.messages ? "?mode=msg" : "")) {
        door.listen(b, url);
        door.ready.push_back(&server);
        if (open) this->open();
    }
    void open() {
        client.connect(url);
        EXPECT_TRUE(until([&] { return client.opens == 1 && server.opens == 1; }));
    }
    /// Both loops turn; whoever was told that it may write, or has something left, flushes as core would.
    void turn() {
        a.turn();
        if (&a != &b) b.turn();
        for (End* end : {&client, &server}) {
            if (std::exchange(end->writables, 0) > 0 && end->closes == 0) end->flush();
        }
    }
    template <class Done>
    bool until(Done done, int turns = 20'000) {
        for (; turns > 0 && !done(); --turns) turn();
        return done();
    }
    void settle() {
        for (int i = 0; i < 20; ++i) turn();
    }
    void clear_kept() {
        client.loop->enter();
        client.kept.clear();
        if (server.loop->port != nullptr) server.loop->enter();
        server.kept.clear();
    }
    /// Closes what is open, so that every link retires.
    ~Pair() {
        clear_kept();
        for (End* end : {&client, &server}) {
            if (end->link != nullptr && end->closes == 0 && end->loop->port != nullptr && !end->abandoned) end->close(How::abort);
        }
        if (a.port != nullptr && b.port != nullptr) settle();
        for (End* end : {&client, &server}) {
            if (end->loop->port != nullptr) end->loop->enter();
            end->outbox.clear();
            end->completions.clear();
            end->kept.clear();
        }
    }

    std::unique_ptr<FakeLoop> near_loop, far_loop;
    FakeLoop &a, &b;
    Door door;
    End client, server;
    std::string url;
};

inline std::string name_of_where(const testing::TestParamInfo<Where>& info) { return testing::PrintToString(info.param); }
inline auto with_messages() { return testing::Values(Where{false, true}, Where{true, true}); }
inline auto everywhere() { return testing::Values(Where{false, false}, Where{false, true}, Where{true, false}, Where{true, true}); }

}  // namespace evpl::transport::inproc_test
