// The resolver of a loop against a name server of our own that answers well, late, badly or never.
#include "core/resolver.hpp"

#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/loop_core.hpp"
#include "evpl/loop.hpp"
#include "support/dns_server.hpp"
#include "support/patience.hpp"
#include "support/peer.hpp"

namespace evpl::test {
namespace {

using core::Resolver;
using How = DnsServer::How;

std::string text_of(const Address& address) {
    char text[64];
    return {text, address.describe(text, sizeof text)};
}

/// One question and what came of it.
struct Asker : Resolver::Query {
    std::vector<std::string> addresses;
    int answers = 0, early = 0;
    Error error;
    std::function<void()> when_told;

    Asker() {
        answered = [](Resolver::Query& query, const Resolver::Answer& answer) {
            auto& self = static_cast<Asker&>(query);
            EXPECT_EQ(self.answers, 0) << "told after the last answer";
            EXPECT_EQ(self.is_asking(), !answer.last);
            ++(answer.last ? self.answers : self.early);
            for (const Address& address : answer.addresses) self.addresses.push_back(text_of(address));
            if (answer.last) self.error = answer.error;
            if (const auto todo = std::exchange(self.when_told, {})) todo();  // may destroy this
        };
    }
    ~Asker() { cancel(); }
};

class ResolverTest : public testing::Test {
protected:
    void SetUp() override {
#ifndef EVPL_WITH_CARES
        GTEST_SKIP() << "built without c-ares";
#endif
    }
    core::LoopCore& core() { return *CoreAccess::core(loop); }
    Resolver& resolver() { return *core().resolver(); }
    Error start(Asker& asker, const std::string& name) {
        Diagnostic why;
        const Error error = resolver().start(asker, name, why);
        EXPECT_EQ(error.ok(), why.text[0] == '\0') << why.text;
        return error;
    }
    /// Asks and waits for the last answer.
    void ask(Asker& asker, const std::string& name) {
        ASSERT_TRUE(start(asker, name).ok());
        EXPECT_EQ(asker.answers, 0) << "told inside start()";
        EXPECT_TRUE(drive(loop, [&] { return asker.answers == 1; }));
    }
    void expect_idle() {
        EXPECT_EQ(resolver().asking(), 0u);
        EXPECT_EQ(resolver().orphaned(), 0u);
        EXPECT_EQ(resolver().sockets(), 0u);
        loop.run_until_idle();  // would not return
    }

    DnsServer names;
    Loop loop{names.options()};
};

TEST_F(ResolverTest, KnowsLiteralsAndLocalhost) {
    Address found[2];
    EXPECT_EQ(Resolver::known("192.0.2.7", found), 1u);
    EXPECT_EQ(text_of(found[0]), "192.0.2.7:0");
    EXPECT_EQ(Resolver::known("2001:db8::1", found), 1u);
    EXPECT_EQ(text_of(found[0]), "[2001:db8::1]:0");
    EXPECT_EQ(Resolver::known("fe80::1%lo", found), 1u);
    EXPECT_EQ(found[0].scope, 1u);
    for (const char* name : {"localhost", "LocalHost", "localhost.", "db.localhost"}) {
        ASSERT_EQ(Resolver::known(name, found), 2u) << name;
        EXPECT_EQ(text_of(found[0]), "[::1]:0");
        EXPECT_EQ(text_of(found[1]), "127.0.0.1:0");
    }
    for (const char* name : {"", "example.com", "notlocalhost", "1.2.3", "1.2.3.4.5", "fe80::1%nosuchif", "::1%", "localhost.example"})
        EXPECT_EQ(Resolver::known(name, found), 0u) << name;
}

// Goal: both families are asked for, and come interleaved.
TEST_F(ResolverTest, FindsBothFamilies) {
    names.set("both.example", {{.addresses = {"192.0.2.1", "192.0.2.2", "192.0.2.3"}}, {.addresses = {"::1"}}});
    Asker asker;
    ask(asker, "both.example");
    EXPECT_TRUE(asker.error.ok());
    ASSERT_EQ(asker.addresses.size(), 4u);
    EXPECT_EQ(names.questions(), 2);
    if (asker.early == 0 && Resolver::prefers_ipv6(*Address::parse("::1", 0))) {
        EXPECT_EQ(asker.addresses, (std::vector<std::string>{"[::1]:0", "192.0.2.1:0", "192.0.2.2:0", "192.0.2.3:0"}));
    }
    expect_idle();
}

TEST_F(ResolverTest, FindsOneFamilyAlone) {
    names.set("four.example", {{.addresses = {"192.0.2.1"}}, {}});
    names.set("six.example", {{}, {.addresses = {"2001:db8::1"}}});
    names.set("lying6.example", {{.addresses = {"192.0.2.9"}}, {.addresses = {}, .code = 3}});  // NXDOMAIN, for AAAA alone
    const std::pair<const char*, const char*> cases[] = {
        {"four.example", "192.0.2.1:0"}, {"six.example", "[2001:db8::1]:0"}, {"lying6.example", "192.0.2.9:0"}};
    for (const auto& [name, address] : cases) {
        SCOPED_TRACE(name);
        Asker asker;
        ask(asker, name);
        EXPECT_EQ(asker.addresses, std::vector<std::string>{address});
        EXPECT_TRUE(asker.error.ok()) << asker.error;
    }
    expect_idle();
}

// Goal: /etc/hosts is honoured, without a question to a server.
TEST_F(ResolverTest, ReadsTheHostsFile) {
    std::string name;
    FILE* hosts = fopen("/etc/hosts", "r");
    char address[128], alias[128];
    while (hosts != nullptr && fscanf(hosts, "%127s %127s%*[^\n]", address, alias) == 2)
        if (std::string_view(address) == "127.0.0.1" && std::string_view(alias) != "localhost") name = alias;
    if (hosts != nullptr) fclose(hosts);
    if (name.empty()) GTEST_SKIP() << "/etc/hosts has no other name for 127.0.0.1";
    Asker asker;
    ask(asker, name);
    ASSERT_FALSE(asker.addresses.empty());
    EXPECT_EQ(names.questions(), 0);
    expect_idle();
}

TEST_F(ResolverTest, TellsWhatIsNotThere) {
    names.set("empty.example", {});
    for (const char* name : {"nowhere.example", "empty.example", "a..b.example", "xyz.onion"}) {
        SCOPED_TRACE(name);
        Asker asker;
        ask(asker, name);
        EXPECT_EQ(asker.error, Errc::name_not_found);
        EXPECT_EQ(asker.error.step(), Step::resolve);
        EXPECT_TRUE(asker.addresses.empty());
    }
    expect_idle();
}

TEST_F(ResolverTest, RefusesWhatCannotBeAName) {
    for (const std::string& name : {std::string(), std::string("*"), std::string("a b"), std::string("a\0b", 3), std::string("1::2::3"), std::string(300, 'a'),
                                    std::string("fe80::1%none")}) {
        Asker asker;
        EXPECT_EQ(start(asker, name), Errc::name_not_found) << name;
        EXPECT_FALSE(asker.is_asking());
    }
    Asker asker;
    ask(asker, std::string(100, 'a') + ".example");  // a label that is too long
    EXPECT_EQ(asker.error, Errc::name_not_found);
    EXPECT_EQ(names.questions(), 0);
}

TEST_F(ResolverTest, TellsServersThatFail) {
    names.set_both("broken.example", {.addresses = {}, .code = 2});
    names.set_both("refused.example", {.addresses = {}, .code = 5});
    names.set("half.example", {{.addresses = {"192.0.2.5"}}, {.addresses = {}, .code = 2}});
    for (const char* name : {"broken.example", "refused.example"}) {
        Asker asker;
        ask(asker, name);
        EXPECT_EQ(asker.error, Errc::name_failed) << name;
    }
    Asker half;
    ask(half, "half.example");
    EXPECT_TRUE(half.error.ok()) << half.error;
    EXPECT_EQ(half.addresses, std::vector<std::string>{"192.0.2.5:0"});
    expect_idle();
}

// Goal: a dead server is given up after a while, and the loop turns meanwhile.
TEST_F(ResolverTest, GivesUpASilentServer) {
    names.set_both("silent.example", {.how = How::silence});
    Stopwatch last;
    Duration longest;
    auto pulse = *loop.every(2_ms, [&] {
        longest = std::max(longest, last.elapsed());
        last.restart();
    });
    Asker asker;
    ask(asker, "silent.example");
    EXPECT_EQ(asker.error, Errc::timed_out);
    EXPECT_EQ(names.questions(), 6) << "two questions, three times";
    EXPECT_LT(longest, 150_ms * patience);
    pulse.cancel();
    expect_idle();
}

// Goal: an AAAA question that is never answered delays the IPv4 addresses by 50 ms, not by the timeout (RFC 8305 section 3).
TEST_F(ResolverTest, DoesNotWaitForASilentFamily) {
    names.set("no6.example", {{.addresses = {"192.0.2.1"}}, {.how = How::silence}});
    names.set("no4.example", {{.how = How::silence}, {.addresses = {"2001:db8::1"}}});
    Asker four, six;
    const Stopwatch watch;
    ASSERT_TRUE(start(four, "no6.example").ok());
    ASSERT_TRUE(start(six, "no4.example").ok());
    EXPECT_TRUE(drive(loop, [&] { return six.early == 1; }));
    EXPECT_TRUE(drive(loop, [&] { return four.early == 1; }));
    EXPECT_GE(watch.elapsed(), 50_ms);
    EXPECT_LT(watch.elapsed(), 400_ms * patience);
    EXPECT_EQ(four.addresses, std::vector<std::string>{"192.0.2.1:0"});
    EXPECT_EQ(six.addresses, std::vector<std::string>{"[2001:db8::1]:0"});
    EXPECT_TRUE(drive(loop, [&] { return four.answers + six.answers == 2; }));
    EXPECT_TRUE(four.error.ok()) << "it had addresses";
    EXPECT_EQ(four.addresses.size() + six.addresses.size(), 2u) << "told twice";
    expect_idle();
}

// Goal: the family that comes late is still told.
TEST_F(ResolverTest, TellsALateFamilyToo) {
    names.set("late6.example", {{.addresses = {"192.0.2.1"}}, {.addresses = {"2001:db8::1"}, .delay = 200_ms}});
    names.set("late4.example", {{.addresses = {"192.0.2.1"}, .delay = 200_ms}, {.addresses = {"2001:db8::1"}}});
    for (const char* name : {"late6.example", "late4.example"}) {
        Asker asker;
        ask(asker, name);
        EXPECT_EQ(asker.early, 1);
        EXPECT_EQ(asker.addresses.size(), 2u);
    }
    expect_idle();
}

// Goal: whatever a server sends, the answer is an error or addresses, in time, and never a crash.
TEST_F(ResolverTest, SurvivesBadAnswers) {
    const std::vector<std::string> two{"192.0.2.1", "2001:db8::1"};
    std::deque<Asker> askers;
    for (const How how : {How::garbage, How::noise_after, How::cut, How::lying_count, How::looping, How::nothing, How::other_name}) {
        const std::string name = "bad" + std::to_string(int(how)) + ".example";
        names.set_both(name, {.addresses = two, .how = how});
        ASSERT_TRUE(start(askers.emplace_back(), name).ok());
    }
    EXPECT_TRUE(drive(loop, [&] { return std::all_of(askers.begin(), askers.end(), [](const Asker& one) { return one.answers == 1; }); }));
    for (const Asker& one : askers) {
        EXPECT_TRUE(one.error == Errc::name_failed || one.error == Errc::timed_out || (one.error.ok() && !one.addresses.empty())) << one.error;
    }
    expect_idle();
}

// Goal: what does not fit a datagram comes by TCP; of very many addresses the first ones are kept.
TEST_F(ResolverTest, TakesLargeAnswers) {
    DnsAnswer many{.addresses = {}, .how = How::truncated};
    for (int i = 0; i < 2000; ++i) many.addresses.push_back("192.0." + std::to_string(i / 250) + "." + std::to_string(i % 250 + 1));
    names.set("tcp.example", {many, {.how = How::truncated}});
    DnsAnswer long_one{.addresses = {"192.0.2.1"}, .padding = 3000};
    names.set("long.example", {long_one, {}});
    DnsAnswer huge{.addresses = {"192.0.2.1"}, .padding = 60'000};
    names.set("huge.example", {huge, {}});
    Asker tcp, long_answer, huge_answer;
    ask(tcp, "tcp.example");
    EXPECT_TRUE(tcp.error.ok()) << tcp.error;
    EXPECT_EQ(tcp.addresses.size(), Resolver::family_max);
    EXPECT_GT(names.questions_by_tcp(), 0);
    const int by_tcp = names.questions_by_tcp();
    ask(long_answer, "long.example");
    EXPECT_EQ(long_answer.addresses, std::vector<std::string>{"192.0.2.1:0"});
    EXPECT_EQ(names.questions_by_tcp(), by_tcp) << "3 KB come in a datagram";
    ask(huge_answer, "huge.example");  // cut by the socket's reader: then by TCP
    EXPECT_EQ(huge_answer.answers, 1);
    expect_idle();
}

// Goal: nothing is told after a cancel, and cancelling all ends all that was under way.
TEST_F(ResolverTest, CancelsAtAnyTime) {
    names.set_both("silent.example", {.how = How::silence});
    names.set_both("slow.example", {.addresses = {"192.0.2.1"}, .delay = 100_ms});
    Asker before, silent, other, slow;
    ASSERT_TRUE(start(before, "silent.example").ok());
    before.cancel();
    EXPECT_EQ(resolver().asking(), 0u);
    ASSERT_TRUE(start(silent, "silent.example").ok());
    ASSERT_TRUE(start(other, "silent.example").ok());
    ASSERT_TRUE(start(slow, "slow.example").ok());
    EXPECT_TRUE(drive(loop, [&] { return names.questions() == 4; }));
    EXPECT_EQ(resolver().asking(), 2u);
    silent.cancel();
    silent.cancel();
    EXPECT_EQ(resolver().asking(), 2u) << "somebody else waits for that name";
    other.cancel();
    EXPECT_EQ(resolver().asking(), 1u);
    EXPECT_EQ(resolver().orphaned(), 1u);
    EXPECT_TRUE(drive(loop, [&] { return slow.answers == 1; }));
    EXPECT_EQ(before.answers + silent.answers + other.answers, 0);
    expect_idle();
}

// Goal: callbacks may cancel others, ask again, and destroy.
TEST_F(ResolverTest, LetsCallbacksDoWhatTheyWant) {
    names.set_both("name.example", {.addresses = {"192.0.2.1"}, .delay = 20_ms});
    Asker again;
    auto doomed = std::make_unique<Asker>();
    std::deque<Asker> others(5);
    int left = 0;
    again.when_told = [&] {
        again.answers = 0;
        for (Asker& one : others) left += one.is_asking() ? (one.cancel(), 1) : 0;
        EXPECT_TRUE(start(again, "name.example").ok());
    };
    doomed->when_told = [&] { doomed.reset(); };
    for (Asker* one : {&others[0], &others[1], &again, doomed.get(), &others[2], &others[3], &others[4]}) ASSERT_TRUE(start(*one, "name.example").ok());
    EXPECT_TRUE(drive(loop, [&] { return again.answers == 1 && doomed == nullptr; }));
    int told = 0;
    for (const Asker& one : others) told += one.answers;
    EXPECT_EQ(told + left, 5);
    expect_idle();
}

// Goal: many who ask for the same name cost one lookup.
TEST_F(ResolverTest, AsksOnceForTheSameName) {
    names.set("name.example", {{.addresses = {"192.0.2.1"}, .delay = 20_ms}, {.delay = 20_ms}});
    std::deque<Asker> askers(500);
    for (Asker& one : askers) ASSERT_TRUE(start(one, "name.example").ok());
    EXPECT_EQ(resolver().asking(), 1u);
    EXPECT_TRUE(drive(loop, [&] { return std::all_of(askers.begin(), askers.end(), [](const Asker& one) { return one.answers == 1; }); }));
    EXPECT_EQ(names.questions(), 2);
    for (const Asker& one : askers) EXPECT_EQ(one.addresses, std::vector<std::string>{"192.0.2.1:0"});
    expect_idle();
}

// Goal: a thousand names at once all resolve, without a flood that the server's socket would drop.
TEST_F(ResolverTest, ResolvesAThousandNames) {
    names.set("*", {{.addresses = {"192.0.2.1"}}, {}});
    std::deque<Asker> askers(1000);
    const Stopwatch watch;
    for (std::size_t i = 0; i < askers.size(); ++i) ASSERT_TRUE(start(askers[i], "host" + std::to_string(i) + ".example").ok());
    EXPECT_TRUE(drive(loop, [&] { return std::all_of(askers.begin(), askers.end(), [](const Asker& one) { return one.answers == 1; }); }));
    for (const Asker& one : askers) EXPECT_TRUE(one.error.ok()) << one.error;
    EXPECT_LT(watch.elapsed(), 3_s * patience);
    EXPECT_LE(names.questions(), 2200) << "hardly any was asked twice";
    expect_idle();
}

// Goal: names that wait behind many silent ones have their turn when those are cancelled.
TEST_F(ResolverTest, ServesTheQueueWhenOthersGiveUp) {
    names.set("*", {{.how = How::silence}, {.how = How::silence}});
    names.set_both("good.example", {.addresses = {"192.0.2.1"}});
    std::deque<Asker> silent(300);
    for (std::size_t i = 0; i < silent.size(); ++i) ASSERT_TRUE(start(silent[i], "host" + std::to_string(i) + ".example").ok());
    Asker good;
    ASSERT_TRUE(start(good, "good.example").ok());
    drive_for(loop, 50_ms);
    EXPECT_EQ(good.answers, 0);
    for (Asker& one : silent) one.cancel();
    EXPECT_TRUE(drive(
        loop, [&] { return good.answers == 1; }, 2_s));
    EXPECT_TRUE(good.error.ok()) << good.error;
    for (const Asker& one : silent) EXPECT_EQ(one.answers, 0);
    expect_idle();
}

TEST_F(ResolverTest, TellsAWrongListOfServers) {
    for (const char* servers : {"", "nonsense", "127.0.0.1:99999x", ",,"}) {
        LoopOptions options;
        options.dns_servers = servers;
        Loop wrong(options);
        Asker asker;
        Diagnostic why;
        const Error error = CoreAccess::core(wrong)->resolver()->start(asker, "name.example", why);
        if (error.ok()) {  // c-ares took what it understood
            asker.cancel();
            continue;
        }
        EXPECT_EQ(error, Errc::bad_option) << servers;
        EXPECT_NE(std::string_view(why.text).find("dns_servers"), std::string_view::npos) << why.text;
    }
}

// Goal: a server that is not there at all is an error, not a wait.
TEST_F(ResolverTest, TellsAnAbsentServer) {
    const std::string nobody = "127.0.0.1:" + std::to_string(unused_port());
    LoopOptions options = names.options();
    options.dns_servers = nobody.c_str();
    Loop lonely(options);
    Asker asker;
    Diagnostic why;
    ASSERT_TRUE(CoreAccess::core(lonely)->resolver()->start(asker, "name.example", why).ok());
    EXPECT_TRUE(drive(lonely, [&] { return asker.answers == 1; }));
    EXPECT_TRUE(asker.error == Errc::name_failed || asker.error == Errc::timed_out) << asker.error;
}

// Goal: a second server is asked when the first one is silent.
TEST_F(ResolverTest, AsksTheNextServer) {
    DnsServer second;
    names.set_both("name.example", {.how = How::silence});
    second.set_both("name.example", {.addresses = {"192.0.2.1"}});
    const std::string both = std::string(names.address()) + "," + second.address();
    LoopOptions options = names.options();
    options.dns_servers = both.c_str();
    Loop two(options);
    Asker asker;
    Diagnostic why;
    ASSERT_TRUE(CoreAccess::core(two)->resolver()->start(asker, "name.example", why).ok()) << why.text;
    EXPECT_TRUE(drive(two, [&] { return asker.answers == 1; }));
    EXPECT_TRUE(asker.error.ok()) << asker.error;
}

}  // namespace
}  // namespace evpl::test
