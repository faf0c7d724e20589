// Remote memory over inproc: bounds, rights, keys, revocation, and operations that outlive their link.
#include "unit/inproc_world.hpp"

namespace evpl::transport::inproc_test {
namespace {

class InprocRemoteTest : public testing::TestWithParam<Where> {};
class InprocRemoteDeathTest : public testing::TestWithParam<Where> {};

struct Remote : Pair {
    explicit Remote(const Where& where) : Pair(where, "remote") {
        b.enter();
        auto made = b.heap().allocate(10'000);
        EXPECT_TRUE(made.ok());
        memory = *std::move(made);
        std::memcpy(memory.data(), pattern(10'000).data(), 10'000);
    }
    ~Remote() {
        if (b.port != nullptr) b.enter();
        memory.reset();
    }
    RemoteRegion expose(std::uint32_t offset, std::uint32_t size, Access access) {
        b.enter();
        const auto region = b.port->expose(*server.link, memory.share(offset, size), access);
        EXPECT_TRUE(region.ok());
        return region ? *region : RemoteRegion();
    }
    Buffer buffer(std::uint32_t size, char fill = '.') {
        a.enter();
        auto made = a.heap().allocate(size);
        EXPECT_TRUE(made.ok());
        std::memset(made->data(), fill, size);
        return *std::move(made);
    }
    Error read(const RemoteRegion& region, std::uint64_t offset, std::uint32_t size) {
        const auto started = a.port->read(*client.link, {++last}, region, offset, buffer(size));
        return started ? wait() : started.error();
    }
    Error write(const RemoteRegion& region, std::uint64_t offset, std::uint32_t size, char fill) {
        const auto started = a.port->write(*client.link, {++last}, region, offset, buffer(size, fill));
        return started ? wait() : started.error();
    }
    Error wait() {
        const std::size_t before = client.completions.size();
        EXPECT_TRUE(until([&] { return client.completions.size() > before; }));
        EXPECT_EQ(client.completions.back().id.value, last);
        return client.completions.back().error;
    }
    std::string_view bytes_read() const {
        const Buffer& filled = client.completions.back().buffer;
        return {reinterpret_cast<const char*>(filled.data()), filled.size()};
    }
    std::string_view bytes(std::uint32_t from, std::uint32_t size) const { return {reinterpret_cast<const char*>(memory.data()) + from, size}; }

    Buffer memory;
    std::uint64_t last = 0;
};

TEST_P(InprocRemoteTest, ReadsAndWrites) {
    Remote remote{GetParam()};
    const RemoteRegion region = remote.expose(100, 5000, Access::read_write);
    EXPECT_EQ(region.size_bytes, 5000u);
    EXPECT_TRUE(remote.read(region, 0, 5000).ok());
    EXPECT_TRUE(remote.bytes_read() == pattern(5000, 100));
    EXPECT_TRUE(remote.read(region, 4999, 1).ok());
    EXPECT_TRUE(remote.read(region, 5000, 0).ok()) << "nothing at the end is within";
    EXPECT_TRUE(remote.write(region, 10, 20, 'w').ok());
    EXPECT_EQ(remote.bytes(110, 20), std::string(20, 'w'));
    EXPECT_TRUE(remote.bytes(130, 100) == pattern(100, 130));
    EXPECT_TRUE(remote.bytes(0, 110) == pattern(110));
}

TEST_P(InprocRemoteTest, RefusesWhatIsOutOfBounds) {
    Remote remote{GetParam()};
    const RemoteRegion region = remote.expose(100, 200, Access::read_write);
    const auto refused = [](Error error) { return error == Errc::remote_access && error.who() == Who::peer; };
    EXPECT_TRUE(refused(remote.read(region, 0, 201)));
    EXPECT_TRUE(refused(remote.read(region, 200, 1)));
    EXPECT_TRUE(refused(remote.read(region, 201, 0)));
    EXPECT_TRUE(refused(remote.read(region, std::uint64_t(-1), 1)));
    EXPECT_TRUE(refused(remote.read(region, std::uint64_t(-1), 2)));
    EXPECT_TRUE(refused(remote.write(region, 199, 2, 'x')));
    RemoteRegion larger = region;
    larger.size_bytes = 100'000;
    EXPECT_TRUE(refused(remote.write(larger, 200, 10, 'x'))) << "what the asking side believes does not matter";
    EXPECT_TRUE(remote.bytes(0, 10'000) == pattern(10'000));
}

TEST_P(InprocRemoteTest, RefusesWrongKeysAndRights) {
    Remote remote{GetParam()};
    const RemoteRegion readable = remote.expose(0, 100, Access::read);
    const RemoteRegion writable = remote.expose(100, 100, Access::write);
    EXPECT_NE(readable.key, writable.key);
    EXPECT_EQ(remote.write(readable, 0, 10, 'x'), Errc::remote_access);
    EXPECT_EQ(remote.read(writable, 0, 10), Errc::remote_access);
    for (const std::uint64_t change : {std::uint64_t(1), std::uint64_t(1) << 30, std::uint64_t(1) << 63, std::uint64_t(0xffffff)}) {
        RemoteRegion forged = readable;
        forged.key ^= change;
        EXPECT_EQ(remote.read(forged, 0, 10), Errc::remote_access);
    }
    RemoteRegion mixed = readable;
    mixed.key = writable.key;
    EXPECT_EQ(remote.write(mixed, 0, 10, 'x'), Errc::remote_access);
    EXPECT_TRUE(remote.bytes(0, 10'000) == pattern(10'000));
}

// Goal: a region is its link's alone.
TEST_P(InprocRemoteTest, RefusesTheRegionOfAnotherLink) {
    Remote remote{GetParam()};
    End other(remote.a), other_server(remote.b);
    remote.door.ready.push_back(&other_server);
    other.connect(remote.url);
    ASSERT_TRUE(remote.until([&] { return other.opens == 1 && other_server.opens == 1; }));
    const RemoteRegion region = remote.expose(0, 100, Access::read);
    ASSERT_TRUE(remote.a.port->read(*other.link, {7}, region, 0, remote.buffer(10)).ok());
    ASSERT_TRUE(remote.until([&] { return other.completions.size() == 1; }));
    EXPECT_EQ(other.completions[0].error, Errc::remote_access);
    EXPECT_EQ(remote.b.port->revoke(*other_server.link, region).error(), Errc::misuse);
    EXPECT_TRUE(remote.read(region, 0, 10).ok());
    other.completions.clear();
    other.close(How::abort);
    remote.settle();
}

TEST_P(InprocRemoteTest, RefusesWhatWasRevoked) {
    Remote remote{GetParam()};
    const RemoteRegion region = remote.expose(0, 100, Access::read);
    EXPECT_TRUE(remote.read(region, 0, 100).ok());
    EXPECT_TRUE(remote.b.port->revoke(*remote.server.link, region).ok());
    EXPECT_TRUE(memory::is_sole(remote.memory)) << "revoking lets the buffer go";
    EXPECT_EQ(remote.b.port->revoke(*remote.server.link, region).error(), Errc::misuse);
    EXPECT_EQ(remote.read(region, 0, 100), Errc::remote_access);
    const RemoteRegion again = remote.expose(0, 100, Access::read);
    EXPECT_NE(again.key, region.key);
    EXPECT_EQ(remote.read(region, 0, 100), Errc::remote_access) << "an old key stays dead";
}

TEST_P(InprocRemoteTest, FindsEachOfManyRegions) {
    Remote remote{GetParam()};
    std::vector<RemoteRegion> regions;
    for (std::uint32_t i = 0; i < 500; ++i) regions.push_back(remote.expose(i * 20, 20, Access::read));
    for (std::uint32_t i = 0; i < 500; i += 7) {
        EXPECT_TRUE(remote.read(regions[i], 0, 20).ok());
        EXPECT_TRUE(remote.bytes_read() == pattern(20, i * 20));
    }
    for (const RemoteRegion& region : regions) EXPECT_TRUE(remote.b.port->revoke(*remote.server.link, region).ok());
    EXPECT_TRUE(memory::is_sole(remote.memory));
}

// Goal: more operations than the peer takes at a time wait their turn; all complete, in order, also from several links.
TEST_P(InprocRemoteTest, CompletesManyOperationsInOrder) {
    Remote remote{GetParam()};
    const RemoteRegion region = remote.expose(0, 10'000, Access::read_write);
    constexpr std::uint64_t count = 1000;
    for (std::uint64_t i = 1; i <= count; ++i) {
        const auto size = std::uint32_t(1 + i % 90);
        ASSERT_TRUE(remote.a.port->read(*remote.client.link, {i}, region, i * 9, remote.buffer(size)).ok());
    }
    EXPECT_TRUE(remote.client.completions.empty()) << "no upcall from inside read";
    ASSERT_TRUE(remote.until([&] { return remote.client.completions.size() == count; }));
    for (std::uint64_t i = 1; i <= count; ++i) {
        const Completion& done = remote.client.completions[i - 1];
        ASSERT_EQ(done.id.value, i);
        ASSERT_TRUE(done.error.ok());
        ASSERT_EQ(std::memcmp(done.buffer.data(), pattern(1 + i % 90, i * 9).data(), done.buffer.size()), 0);
    }
}

// Goal: bytes sent after a write arrive after it was done, also when the write had to wait.
TEST_P(InprocRemoteTest, SendsBytesAfterEarlierWrites) {
    Remote remote{GetParam()};
    const RemoteRegion region = remote.expose(0, 10'000, Access::write);
    for (std::uint64_t i = 1; i <= 200; ++i) ASSERT_TRUE(remote.a.port->write(*remote.client.link, {i}, region, i * 40, remote.buffer(40, 'w')).ok());
    remote.client.put("written", true);
    remote.client.flush();
    ASSERT_TRUE(remote.until([&] { return remote.server.received == "written"; }));
    EXPECT_EQ(remote.bytes(40, 200 * 40), std::string(200 * 40, 'w'));
    EXPECT_TRUE(remote.until([&] { return remote.client.completions.size() == 200; }));
}

// Goal: whatever ends the link, each operation completes once and before closed(); exposed memory is let go.
TEST_P(InprocRemoteTest, CompletesEachOperationWhenTheLinkEnds) {
    enum class Way { our_abort, their_abort, their_finish };
    for (const Way how : {Way::our_abort, Way::their_abort, Way::their_finish}) {
        SCOPED_TRACE(int(how));
        Remote remote{GetParam()};
        const RemoteRegion region = remote.expose(0, 10'000, Access::read);
        for (std::uint64_t i = 1; i <= 200; ++i) ASSERT_TRUE(remote.a.port->read(*remote.client.link, {i}, region, 0, remote.buffer(100)).ok());
        if (how == Way::our_abort) remote.client.close(How::abort);
        if (how == Way::their_abort) remote.server.close(How::abort);
        if (how == Way::their_finish) {
            remote.server.close(How::finish);
            remote.b.turn();
            remote.client.close(How::finish);
        }
        ASSERT_TRUE(remote.until([&] { return remote.client.over() && remote.server.over(); }));
        ASSERT_EQ(remote.client.completions.size(), 200u);
        std::vector<bool> seen(201);
        for (const Completion& done : remote.client.completions) {
            EXPECT_FALSE(seen[done.id.value]);
            seen[done.id.value] = true;
            EXPECT_TRUE(done.error.ok() || done.error == (how == Way::our_abort ? Errc::closed : Errc::reset));
        }
        EXPECT_TRUE(memory::is_sole(remote.memory)) << "the end of a link lets exposed memory go";
        remote.settle();
        const auto late = remote.a.heap().blocks_out();
        remote.client.loop->enter();
        remote.client.completions.clear();
        remote.settle();
        EXPECT_LE(remote.a.heap().blocks_out(), late);
    }
}

TEST_P(InprocRemoteTest, AnswersMisuse) {
    Remote remote{GetParam()};
    const RemoteRegion region = remote.expose(0, 100, Access::read);
    remote.client.close(How::abort);
    EXPECT_EQ(remote.a.port->read(*remote.client.link, {1}, region, 0, remote.buffer(10)).error(), Errc::misuse);
    EXPECT_EQ(remote.a.port->expose(*remote.client.link, remote.buffer(10), Access::read).error(), Errc::misuse);
    ASSERT_TRUE(remote.until([&] { return remote.client.over(); }));
}

// Goal: a port that goes away, on either side, completes what the other had asked of it and frees what it had in hand.
TEST_P(InprocRemoteDeathTest, SurvivesAPortThatGoes) {
    for (const bool target_goes : {false, true}) {
        Remote remote{GetParam()};
        const RemoteRegion region = remote.expose(0, 10'000, Access::read);
        for (std::uint64_t i = 1; i <= 100; ++i) ASSERT_TRUE(remote.a.port->read(*remote.client.link, {i}, region, 0, remote.buffer(100)).ok());
        remote.memory.reset();
        if (target_goes) {
            remote.server.abandoned = true;
            remote.b.end();
            for (int i = 0; i < 5; ++i) remote.a.turn();
            EXPECT_TRUE(remote.client.over());
            ASSERT_EQ(remote.client.completions.size(), 100u);
            for (const Completion& done : remote.client.completions) {
                EXPECT_EQ(done.error, Errc::reset);
                EXPECT_EQ(done.buffer.size(), 100u) << "a dead port touches nothing: the buffers come back";
            }
        } else {
            remote.client.abandoned = true;
            remote.a.end();
            for (int i = 0; i < 5; ++i) remote.b.turn();
            EXPECT_TRUE(remote.server.over());
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Inproc, InprocRemoteTest, everywhere(), name_of_where);
INSTANTIATE_TEST_SUITE_P(Inproc, InprocRemoteDeathTest, testing::Values(Where{true, false}, Where{true, true}), name_of_where);

}  // namespace
}  // namespace evpl::transport::inproc_test
