// Two inproc ports at the level of the contract: a link that opens, carries bytes by copy and by reference, and ends in every way there is.
#include <utility>

#include "evpl/endpoint.hpp"
#include "scenarios.hpp"
#include "transport/inproc/inproc.hpp"
#include "transport/transport.hpp"

namespace evpl::race {
namespace {

using namespace transport;

/// What a loop gives its port, and what it does with it.
class Place final : public Host {
public:
    Place() : heap_(memory::Heap::create(64u << 20)) {
        require(heap_ != nullptr, "there is memory");
        auto opened = inproc_transport().open(*this);
        require(opened.ok(), "there is memory");
        port = *opened;
    }
    void end() {
        memory::Heap::set_current(heap_);
        delete std::exchange(port, nullptr);
        heap_->flush_departures();
        memory::Heap::set_current(nullptr);
        std::exchange(heap_, nullptr)->retire();
    }
    unsigned turn() {
        again_ = false;
        const unsigned done = port->poll(64);
        heap_->drain_returns();
        heap_->flush_departures();
        return done;
    }
    void turn_or_sleep() {
        if (turn() > 0 || again_) return;
        bed.sleep_while([&] { return !port->arm().work_waiting; });
        port->disarm();
    }

    memory::Heap& heap() noexcept override { return *heap_; }
    Result<Sleeper*> sleeper() noexcept override { return Errc::not_supported; }
    Bell& bell() noexcept override { return bed.bell; }
    std::int64_t now_ns() const noexcept override { return 1; }
    std::uint32_t batch_bytes() const noexcept override { return 256u << 10; }
    void set_alarm(Port&, std::int64_t) noexcept override {}
    void poll_again() noexcept override { again_ = true; }
    void log_line(std::uint8_t, std::string_view) noexcept override {}

    Port* port = nullptr;
    Bedside bed;

private:
    memory::Heap* heap_;
    bool again_ = false;
};

/// One end of the link, and the listener of the serving side.
class Party final : public Sink, public Acceptor {
public:
    explicit Party(Place& at) : place(at) {}

    void opened() override { ++opens; }
    void delivered(Buffer&& bytes, const Arrival&) override {
        require(opens == 1 && closes == 0 && ends == 0, "bytes come between the opening and the end");
        for (const std::byte each : bytes.bytes()) require(each == std::byte(received++ % 251), "the bytes are a prefix of those sent");
    }
    void landed(std::uint32_t) override {}
    void ended() override { require(opens == 1 && ++ends == 1, "a stream ends once"); }
    void sent(std::size_t) override {}
    void send_failed(Error) override {}
    void writable() override { wants_flush = true; }
    void completed(OperationId, Error, Buffer&&) override {}
    void closed(Error) override { require(++closes == 1, "a link is closed once"); }
    void retired() override { require(closes == 1 && ++retires == 1, "a link retires once, after it was closed"); }

    bool accepted(Link& arrived) override {
        link = &arrived;
        arrived.sink = this;
        arrived.outbox = &outbox;
        return true;
    }
    bool taken(int, const Address&) override { return false; }
    void paused(Error) override {}
    void failed(Error) override {}

    void queue(std::uint32_t size) {
        auto slice = place.heap().allocate(size);
        require(slice.ok(), "there is memory");
        for (std::byte& each : slice->bytes()) each = std::byte(queued++ % 251);
        require(outbox.push(*std::move(slice)), "there is memory");
        wants_flush = true;
    }
    void step() {
        place.turn_or_sleep();
        if (std::exchange(wants_flush, false) && link != nullptr && opens == 1 && closes == 0) place.port->flush(*link);
    }

    Place& place;
    Link* link = nullptr;
    SendQueue outbox;
    std::size_t queued = 0, received = 0;
    int opens = 0, ends = 0, closes = 0, retires = 0;
    bool wants_flush = false;
};

Endpoint name() {
    Diagnostic why;
    const auto parsed = Endpoint::parse("inproc://race", &why);
    require(parsed.ok(), "it is an endpoint");
    return *parsed;
}

enum class Ending { drain, abort, port_goes, both_go };

/// The client sends and ends by `how`; the server reads until its side is closed, or goes as well.
void talk(Ending how) {
    static const Endpoint place_name = name();
    auto* const near = new Place;
    auto* const far = new Place;
    Party client(*near), server(*far);
    Diagnostic why;
    require(far->port->listen(place_name, false, server, why).ok(), "nobody else listens");
    run({[&] {
             memory::Heap::set_current(&near->heap());
             Diagnostic reason;
             auto made = near->port->connect(place_name, Address{}, client, client.outbox, reason);
             if (!made) return near->end();  // the listener was gone first
             client.link = *made;
             while (client.opens + client.closes == 0) client.step();
             if (client.closes == 0) {
                 client.queue(20);
                 client.queue(2000);
                 near->port->flush(*client.link);
             }
             if (how == Ending::drain || how == Ending::abort) {
                 if (client.closes == 0) near->port->close(*client.link, how == Ending::drain ? How::drain : How::abort);
                 while (client.retires == 0) client.step();
             }
             client.outbox.clear();
             near->end();
         },
         [&] {
             memory::Heap::set_current(&far->heap());
             while (how != Ending::both_go && server.retires == 0) {
                 server.step();
                 if (server.ends == 1 && server.closes == 0) far->port->close(*server.link, How::drain);
             }
             if (how == Ending::both_go) server.step();
             server.outbox.clear();
             far->end();
         }});
    require(how != Ending::drain || server.received == 2020, "what was drained has arrived");
    delete near;
    delete far;
}
void link_drains() { talk(Ending::drain); }
void link_aborts() { talk(Ending::abort); }
void port_goes() { talk(Ending::port_goes); }
void both_ports_go() { talk(Ending::both_go); }

}  // namespace

std::initializer_list<Scenario> port_scenarios() {
    static const std::initializer_list<Scenario> all = {
        {"link_drains", &link_drains, {4, 2, 400, 1}},
        {"link_aborts", &link_aborts, {4, 2, 400, 1}},
        {"port_goes", &port_goes, {4, 2, 400, 1}},
        {"both_ports_go", &both_ports_go, {4, 2, 400, 1}},
    };
    return all;
}

}  // namespace evpl::race
