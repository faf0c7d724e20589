// Remote memory, where a transport has it: expose, read, write, revoke, bounds.
#include "support/world.hpp"

namespace evpl::test {
namespace {

class RemoteTest : public TransportTest {
protected:
    /// Opens the pair and a region of `size` bytes at the server, which holds the pattern of key 1.
    bool open(World& world, std::uint32_t size, Access access) {
        client_.when_completed = [this](Connection&, Completion& done) {
            ids_.push_back(done.id);
            errors_.push_back(done.error);
            values_.push_back(done.value);
            buffers_.push_back(std::move(done.buffer));
        };
        if (!world.open(server_, client_)) return false;
        auto memory = world.loop().allocate(size);
        if (!memory) return false;
        fill_pattern(memory->bytes(), 1, 0);
        memory_ = memory->share();
        auto region = server_.get()->expose(*std::move(memory), access);
        EXPECT_TRUE(region.ok()) << region.error();
        if (!region) return false;
        region_ = *region;
        EXPECT_EQ(region_.size_bytes, size);
        return true;
    }
    std::vector<Buffer> buffers_;
    Buffer memory_;
    RemoteRegion region_;
    std::vector<OperationId> ids_;
    std::vector<Error> errors_;
    std::vector<std::uint64_t> values_;
    /// Fills the region with numbers 100, 101, ...
    void fill_numbers() {
        for (std::uint64_t i = 0; i < memory_.size() / 8; ++i) set_number(i, 100 + i);
    }
    void set_number(std::size_t i, std::uint64_t value) { std::memcpy(memory_.data() + 8 * i, &value, sizeof value); }
    std::uint64_t number(std::size_t i) const {
        std::uint64_t value = 0;
        std::memcpy(&value, memory_.data() + 8 * i, sizeof value);
        return value;
    }
    Peer server_, client_;
    void forget() {
        memory_.reset();
        buffers_.clear();
    }
};

// Goal: reads fill the buffer from the region at the offset asked for.
TEST_P(RemoteTest, ReadsWhatThePeerExposed) {
    EVPL_NEEDS(rma);
    World world{GetParam()};
    ASSERT_TRUE(open(world, 100'000, Access::read));
    auto into = world.loop().allocate(40'000);
    const auto id = client_.get()->read(region_, 1234, *std::move(into));
    ASSERT_TRUE(id.ok()) << id.error();
    EXPECT_TRUE(errors_.empty()) << "no callback runs inside a call";
    ASSERT_TRUE(world.until([&] { return errors_.size() == 1; }));
    EXPECT_TRUE(errors_[0].ok()) << errors_[0];
    EXPECT_EQ(ids_[0], *id);
    ASSERT_EQ(buffers_[0].size(), 40'000u);
    EXPECT_EQ(pattern_mismatch(buffers_[0].bytes(), 1, 1234), 40'000u);
    forget();
}

// Goal: writes change exactly the bytes asked for.
TEST_P(RemoteTest, WritesIntoWhatThePeerExposed) {
    EVPL_NEEDS(rma);
    World world{GetParam()};
    ASSERT_TRUE(open(world, 10'000, Access::read_write));
    auto from = world.loop().allocate(3000);
    fill_pattern(from->bytes(), 2, 0);
    ASSERT_TRUE(client_.get()->write(region_, 4000, *std::move(from)).ok());
    ASSERT_TRUE(world.until([&] { return errors_.size() == 1; }));
    EXPECT_TRUE(errors_[0].ok()) << errors_[0];
    EXPECT_EQ(pattern_mismatch(memory_.bytes().subspan(0, 4000), 1, 0), 4000u);
    EXPECT_EQ(pattern_mismatch(memory_.bytes().subspan(4000, 3000), 2, 0), 3000u);
    EXPECT_EQ(pattern_mismatch(memory_.bytes().subspan(7000), 1, 7000), 3000u);
    forget();
}

// Goal: a write can tell: the peer hears its word, whatever the 32 bits are, once the bytes are there, and nothing else arrives.
TEST_P(RemoteTest, TellsThePeerOfAWrite) {
    EVPL_NEEDS(remote_tells);
    const std::vector<std::uint32_t> words = {7, 0, 0xffffffff, 0x80000001, 0x40000000, 0xffff};
    std::vector<std::uint32_t> heard;
    World world{GetParam()};
    server_.when_written = [&](Connection&, std::uint32_t word) {
        EXPECT_EQ(pattern_mismatch(memory_.bytes().subspan(heard.size() * 1000, 1000), 2, heard.size()), 1000u) << "told before the bytes are there";
        heard.push_back(word);
    };
    ASSERT_TRUE(open(world, 10'000, Access::write));
    for (std::size_t i = 0; i < words.size(); ++i) {
        auto from = world.loop().allocate(1000);
        fill_pattern(from->bytes(), 2, i);
        const auto id = client_.get()->write_telling(region_, i * 1000, *std::move(from), words[i]);
        ASSERT_TRUE(id.ok()) << id.error();
    }
    ASSERT_TRUE(world.until([&] { return heard.size() == words.size() && errors_.size() == words.size(); })) << heard.size() << " " << errors_.size();
    EXPECT_EQ(heard, words);
    for (const Error& error : errors_) EXPECT_TRUE(error.ok()) << error;
    EXPECT_EQ(pattern_mismatch(memory_.bytes().subspan(6000), 1, 6000), 4000u);
    EXPECT_EQ(server_.recvs, 0);
    forget();
}

// Goal: a word is told once what was sent before the write is there, and before on_recv tells of what was sent after it.
TEST_P(RemoteTest, TellsInOrderWithWhatIsSent) {
    EVPL_NEEDS(remote_tells);
    constexpr std::uint32_t count = 20;
    std::size_t read = 0, sent = 0;
    std::vector<std::size_t> sent_before;  // each write
    std::uint32_t told = 0;
    World world{GetParam()};
    server_.when_recv = [&](Connection& c) { read += c.recv().size(); };
    server_.when_written = [&](Connection& c, std::uint32_t word) {
        EXPECT_EQ(word, told++);
        EXPECT_GE(read + c.available(), sent_before[word]) << "told ahead of what was sent before";
        EXPECT_LE(read, sent_before[word]) << "told behind what was sent after";
    };
    ASSERT_TRUE(open(world, 100, Access::read_write));
    for (std::uint32_t i = 0; i < count; ++i) {
        client_.get()->send("before");
        ASSERT_TRUE(world.until([&] { return client_.get()->queued() == 0; }));
        sent_before.push_back(sent += 6);
        ASSERT_TRUE(client_.get()->write_telling(region_, 0, *world.loop().allocate(10), i).ok());
        client_.get()->send("after");
        sent += 5;
    }
    ASSERT_TRUE(world.until([&] { return told == count && read == sent; })) << told << " " << read << client_.closed_with;
    forget();
}

// Goal: a peer that does not read is not told, either; what waits is bounded by the transport, and all of it arrives once the peer reads.
TEST_P(RemoteTest, HoldsWordsForAPeerThatDoesNotRead) {
    EVPL_NEEDS(remote_tells);
    EVPL_NEEDS(receive_pause);
    constexpr std::uint32_t count = 3000;
    bool reads = false;
    std::uint32_t heard = 0;
    std::size_t bytes = 0;
    World world{GetParam()};
    server_.when_recv = [&](Connection& c) {
        if (reads) bytes += c.recv().size();
    };
    server_.when_written = [&](Connection&, std::uint32_t word) { EXPECT_EQ(word, heard++); };
    ASSERT_TRUE(open(world, 100, Access::read_write));
    QueueLimits small;
    small.receive = 1000;
    server_.get()->set_limits(small);
    const std::string text = pattern(5000);
    client_.get()->send(text);
    ASSERT_TRUE(world.until([&] { return server_.get()->available() >= 1000; }));
    drive_for(world.loop(), 5_ms);
    std::uint32_t asked = 0;
    for (; asked < count; ++asked) ASSERT_TRUE(client_.get()->write_telling(region_, 0, *world.loop().allocate(8), asked).ok());
    drive_for(world.loop(), 20_ms);
    EXPECT_EQ(heard, 0u) << "told ahead of bytes that are not read";
    reads = true;
    server_.when_recv(*server_.get());
    ASSERT_TRUE(world.until([&] { return heard == count && errors_.size() == count; })) << heard << " " << errors_.size() << client_.closed_with;
    EXPECT_EQ(bytes, text.size());
    forget();
}

// Goal: a write that the region's rights forbid tells nobody.
TEST_P(RemoteTest, DoesNotTellOfAWriteThatFailed) {
    EVPL_NEEDS(remote_tells);
    World world{GetParam()};
    int heard = 0;
    server_.when_written = [&](Connection&, std::uint32_t) { ++heard; };
    ASSERT_TRUE(open(world, 1000, Access::read));
    ASSERT_TRUE(client_.get()->write_telling(region_, 0, *world.loop().allocate(10), 1).ok());
    ASSERT_TRUE(world.until([&] { return errors_.size() == 1; }));
    EXPECT_EQ(errors_[0], Errc::remote_access);
    drive_for(world.loop(), 10_ms);
    EXPECT_EQ(heard, 0);
    EXPECT_EQ(pattern_mismatch(memory_.bytes(), 1, 0), 1000u);
    forget();
}

// Goal: a number of the peer's is added to, or swapped where it is what was expected; what it was before comes back, and its neighbours stay.
TEST_P(RemoteTest, ChangesNumbersOfThePeer) {
    EVPL_NEEDS(remote_atomics);
    World world{GetParam()};
    ASSERT_TRUE(open(world, 64, Access::atomic));
    fill_numbers();
    set_number(3, UINT64_MAX - 1);
    Connection& c = *client_.get();
    ASSERT_TRUE(c.fetch_add(region_, 8, 5).ok());
    ASSERT_TRUE(c.fetch_add(region_, 24, 3).ok());
    ASSERT_TRUE(c.compare_swap(region_, 32, 104, 0x123456789abcdef0).ok());
    ASSERT_TRUE(c.compare_swap(region_, 40, 999, 1).ok());
    const auto last = c.fetch_add(region_, 8, std::uint64_t(-1));
    ASSERT_TRUE(last.ok()) << last.error();
    ASSERT_TRUE(world.until([&] { return errors_.size() == 5; })) << client_.closed_with;
    for (const Error& error : errors_) EXPECT_TRUE(error.ok()) << error;
    EXPECT_EQ(values_, (std::vector<std::uint64_t>{101, UINT64_MAX - 1, 104, 105, 106}));
    EXPECT_EQ(ids_[4], *last);
    const std::uint64_t wanted[] = {100, 105, 102, 1, 0x123456789abcdef0, 105, 106, 107};
    for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(number(i), wanted[i]) << i;
    for (const Buffer& buffer : buffers_) EXPECT_TRUE(buffer.empty());
    forget();
}

// Goal: of many atomics under way none is lost and none done twice; reads and writes among them do not disturb them.
TEST_P(RemoteTest, LosesNoAtomic) {
    EVPL_NEEDS(remote_atomics);
    constexpr std::uint64_t count = 300;
    World world{GetParam()};
    ASSERT_TRUE(open(world, 64, Access::atomic | Access::read_write));
    set_number(0, 0);
    for (std::uint64_t i = 0; i < count; ++i) {
        ASSERT_TRUE(client_.get()->fetch_add(region_, 0, 1).ok());
        if (i % 10 == 0) {
            ASSERT_TRUE(client_.get()->read(region_, 8, *world.loop().allocate(8)).ok());
        }
    }
    ASSERT_TRUE(world.until([&] { return errors_.size() == count + count / 10; })) << client_.closed_with;
    EXPECT_EQ(number(0), count);
    std::uint64_t next = 0;
    for (std::size_t i = 0; i < values_.size(); ++i) {
        EXPECT_TRUE(errors_[i].ok()) << errors_[i];
        if (buffers_[i].empty()) {
            EXPECT_EQ(values_[i], next++);
        }
    }
    EXPECT_EQ(next, count);
    forget();
}

// Goal: a number that is not at a multiple of 8, or not wholly within the region, is refused at once, as misuse; nothing is touched.
TEST_P(RemoteTest, RefusesANumberThatIsNotAligned) {
    EVPL_NEEDS(remote_atomics);
    World world{GetParam()};
    ASSERT_TRUE(open(world, 64, Access::atomic | Access::read_write));
    for (const std::uint64_t offset : {std::uint64_t(1), std::uint64_t(4), std::uint64_t(60), std::uint64_t(64), UINT64_MAX - 7}) {
        EXPECT_EQ(client_.get()->fetch_add(region_, offset, 1).error(), Errc::misuse) << offset;
        EXPECT_EQ(client_.get()->compare_swap(region_, offset, 0, 1).error(), Errc::misuse) << offset;
    }
    drive_for(world.loop(), 10_ms);
    EXPECT_TRUE(errors_.empty());
    EXPECT_EQ(pattern_mismatch(memory_.bytes(), 1, 0), 64u);
    forget();
}

// Goal: atomics need a right of their own, which gives no other.
TEST_P(RemoteTest, KeepsTheRightToAtomics) {
    EVPL_NEEDS(remote_atomics);
    for (const bool exposed_for_atomics : {false, true}) {
        SCOPED_TRACE(exposed_for_atomics);
        World world{GetParam()};
        Peer server, client;
        std::vector<Error> errors;
        client.when_completed = [&](Connection&, Completion& done) { errors.push_back(done.error); };
        ASSERT_TRUE(world.open(server, client));
        auto memory = world.loop().allocate(64);
        fill_pattern(memory->bytes(), 1, 0);
        Buffer seen = memory->share();
        const auto region = server.get()->expose(*std::move(memory), exposed_for_atomics ? Access::atomic : Access::read_write);
        ASSERT_TRUE(region.ok()) << region.error();
        if (exposed_for_atomics) ASSERT_TRUE(client.get()->write(*region, 0, *world.loop().allocate(8)).ok());
        else ASSERT_TRUE(client.get()->fetch_add(*region, 0, 1).ok());
        ASSERT_TRUE(world.until([&] { return errors.size() == 1; }));
        EXPECT_EQ(errors[0], Errc::remote_access);
        EXPECT_EQ(pattern_mismatch(seen.bytes(), 1, 0), 64u);
        seen.reset();
    }
}

// Goal: each of many operations under way completes exactly once.
TEST_P(RemoteTest, CompletesEachOperationOnce) {
    EVPL_NEEDS(rma);
    constexpr std::size_t count = 200;
    World world{GetParam()};
    ASSERT_TRUE(open(world, 100'000, Access::read_write));
    std::vector<OperationId> asked;
    for (std::size_t i = 0; i < count; ++i) {
        auto buffer = world.loop().allocate(300);
        fill_pattern(buffer->bytes(), 1, i * 400);
        const auto id = i % 2 == 0 ? client_.get()->read(region_, i * 400, *std::move(buffer)) : client_.get()->write(region_, i * 400, *std::move(buffer));
        ASSERT_TRUE(id.ok()) << id.error();
        asked.push_back(*id);
    }
    ASSERT_TRUE(world.until([&] { return errors_.size() >= count; }));
    drive_for(world.loop(), 10_ms);
    ASSERT_EQ(errors_.size(), count);
    for (const OperationId id : asked) EXPECT_EQ(std::count(ids_.begin(), ids_.end(), id), 1);
    for (const Error& error : errors_) EXPECT_TRUE(error.ok()) << error;
    EXPECT_EQ(pattern_mismatch(memory_.bytes(), 1, 0), memory_.size());
    forget();
}

// Goal: what lies outside the region is refused at once, as misuse; nothing is touched.
TEST_P(RemoteTest, StaysWithinTheRegion) {
    EVPL_NEEDS(rma);
    World world{GetParam()};
    ASSERT_TRUE(open(world, 1000, Access::read_write));
    const std::pair<std::uint64_t, std::uint32_t> outside[] = {{0, 1001}, {1, 1000}, {1000, 1}, {UINT64_MAX, 1}, {UINT64_MAX - 5, 10}};
    for (const auto& [offset, size] : outside) {
        EXPECT_EQ(client_.get()->read(region_, offset, *world.loop().allocate(size)).error(), Errc::misuse) << offset;
        EXPECT_EQ(client_.get()->write(region_, offset, *world.loop().allocate(size)).error(), Errc::misuse) << offset;
    }
    drive_for(world.loop(), 10_ms);
    EXPECT_TRUE(errors_.empty());
    EXPECT_EQ(pattern_mismatch(memory_.bytes(), 1, 0), 1000u);
    forget();
}

// Goal: a region that lies about its size or its key reaches nothing: the operation ends with remote_access.
TEST_P(RemoteTest, DoesNotBelieveAForgedRegion) {
    EVPL_NEEDS(rma);
    World world{GetParam()};
    ASSERT_TRUE(open(world, 1000, Access::read_write));
    RemoteRegion longer = region_;
    longer.size_bytes = 5000;
    ASSERT_TRUE(client_.get()->read(longer, 500, *world.loop().allocate(2000)).ok());
    ASSERT_TRUE(world.until([&] { return errors_.size() == 1; }));
    EXPECT_EQ(errors_[0], Errc::remote_access);
    if (client_.open()) {  // a device may end the connection with it
        RemoteRegion other = region_;
        other.key ^= 0x5a5a5a5a;
        ASSERT_TRUE(client_.get()->write(other, 0, *world.loop().allocate(10)).ok());
        ASSERT_TRUE(world.until([&] { return errors_.size() == 2; }));
        EXPECT_EQ(errors_[1], Errc::remote_access);
    }
    EXPECT_EQ(pattern_mismatch(memory_.bytes(), 1, 0), 1000u);
    forget();
}

// Goal: rights are kept: a region exposed for reading cannot be written.
TEST_P(RemoteTest, KeepsRights) {
    EVPL_NEEDS(rma);
    World world{GetParam()};
    ASSERT_TRUE(open(world, 1000, Access::read));
    auto from = world.loop().allocate(10);
    fill_pattern(from->bytes(), 2, 0);
    ASSERT_TRUE(client_.get()->write(region_, 0, *std::move(from)).ok());
    ASSERT_TRUE(world.until([&] { return errors_.size() == 1; }));
    EXPECT_EQ(errors_[0], Errc::remote_access);
    EXPECT_EQ(pattern_mismatch(memory_.bytes(), 1, 0), 1000u);
    forget();
}

// Goal: after revoke no access starts.
TEST_P(RemoteTest, EndsAccessWithRevoke) {
    EVPL_NEEDS(rma);
    World world{GetParam()};
    ASSERT_TRUE(open(world, 1000, Access::read_write));
    ASSERT_TRUE(server_.get()->revoke(region_).ok());
    EXPECT_FALSE(server_.get()->revoke(region_).ok()) << "it is revoked already";
    ASSERT_TRUE(client_.get()->read(region_, 0, *world.loop().allocate(10)).ok());
    ASSERT_TRUE(world.until([&] { return errors_.size() == 1; }));
    EXPECT_EQ(errors_[0], Errc::remote_access);
    forget();
}

// Goal: a message takes back what its receiver has exposed: who hears of it can rely on that, and the sender reaches it no more.
TEST_P(RemoteTest, TakesBackAnExposureWithAMessage) {
    EVPL_NEEDS(remote_invalidate);
    std::vector<std::uint64_t> keys;
    World world{GetParam()};
    ASSERT_TRUE(open(world, 1000, Access::read_write));
    server_.when_recv = [&](Connection& c) {
        while (c.has_message()) {
            (void)c.recv_message();
            keys.push_back(c.invalidated_key());
        }
    };
    ASSERT_TRUE(client_.get()->read(region_, 0, *world.loop().allocate(10)).ok());
    ASSERT_TRUE(world.until([&] { return errors_.size() == 1; }));
    EXPECT_TRUE(errors_[0].ok()) << errors_[0];
    client_.get()->send("before");
    EXPECT_TRUE(client_.get()->send_invalidating(chain_of(world.loop(), "thank you", 9), region_.key));
    client_.get()->send("after");
    ASSERT_TRUE(world.until([&] { return keys.size() == 3; })) << server_.closed_with << client_.closed_with;
    EXPECT_EQ(keys, (std::vector<std::uint64_t>{0, region_.key, 0}));
    EXPECT_EQ(server_.get()->revoke(region_).error(), Errc::misuse) << "it is revoked already";
    ASSERT_TRUE(client_.get()->read(region_, 0, *world.loop().allocate(10)).ok());
    ASSERT_TRUE(world.until([&] { return errors_.size() == 2; }));
    EXPECT_EQ(errors_[1], Errc::remote_access);
    forget();
}

// Goal: operations under way when the connection ends complete with an error before on_close, each once.
TEST_P(RemoteTest, CompletesWhatIsUnderWayBeforeTheEnd) {
    EVPL_NEEDS(rma);
    World world{GetParam()};
    ASSERT_TRUE(open(world, 100'000, Access::read));
    for (int i = 0; i < 20; ++i) ASSERT_TRUE(client_.get()->read(region_, 0, *world.loop().allocate(50'000)).ok());
    std::size_t at_close = 0;
    client_.when_close = [&](Connection&, Error) { at_close = errors_.size(); };
    client_.get()->close();
    ASSERT_TRUE(world.until([&] { return client_.closed(); }));
    drive_for(world.loop(), 10_ms);
    EXPECT_EQ(at_close, 20u);
    EXPECT_EQ(errors_.size(), 20u);
    forget();
}

// Goal: close() and throwing inside on_completed work as in every callback.
TEST_P(RemoteTest, ClosesInsideOnCompleted) {
    EVPL_NEEDS(rma);
    World world{GetParam()};
    ASSERT_TRUE(open(world, 1000, Access::read));
    client_.when_completed = [](Connection& c, Completion&) { c.close(); };
    ASSERT_TRUE(client_.get()->read(region_, 0, *world.loop().allocate(10)).ok());
    EXPECT_TRUE(world.until([&] { return client_.closed(); }));
    EXPECT_EQ(client_.closed_with, Errc::closed);
    forget();
}

// Goal: where there is no remote memory the calls say so.
TEST_P(RemoteTest, SaysWhereItIsNotSupported) {
    if (caps().rma) GTEST_SKIP() << GetParam().name << " has remote memory";
    Peer server, client;
    World world{GetParam()};
    ASSERT_TRUE(world.open(server, client));
    EXPECT_EQ(client.get()->expose(*world.loop().allocate(10), Access::read).error(), Errc::not_supported);
    EXPECT_EQ(client.get()->read({}, 0, *world.loop().allocate(10)).error(), Errc::not_supported);
    EXPECT_EQ(client.get()->write({}, 0, *world.loop().allocate(10)).error(), Errc::not_supported);
    EXPECT_EQ(client.get()->write_telling({}, 0, *world.loop().allocate(10), 1).error(), Errc::not_supported);
    EXPECT_EQ(client.get()->fetch_add({}, 0, 1).error(), Errc::not_supported);
    EXPECT_EQ(client.get()->compare_swap({}, 0, 1, 2).error(), Errc::not_supported);
    EXPECT_FALSE(client.get()->revoke({}).ok());
    EXPECT_EQ(client.get()->send_invalidating(chain_of(world.loop(), "x", 1), 1).error(), Errc::not_supported);
    EXPECT_TRUE(client.open());
}

INSTANTIATE_TEST_SUITE_P(Conformance, RemoteTest, connection_rows(), name_of_row);

}  // namespace
}  // namespace evpl::test
