#include "evpl/endpoint.hpp"

#include <gtest/gtest.h>

#include <string>

namespace evpl {
namespace {

Endpoint parsed(std::string_view url) {
    Diagnostic why;
    Result<Endpoint> endpoint = Endpoint::parse(url, &why);
    EXPECT_TRUE(endpoint) << url << ": " << why.view();
    return endpoint ? *endpoint : Endpoint{};
}

/// The sentence of a refused URL; empty when it was accepted.
std::string refusal(std::string_view url) {
    Diagnostic why;
    const Result<Endpoint> endpoint = Endpoint::parse(url, &why);
    if (endpoint) return {};
    EXPECT_EQ(endpoint.error(), Error(Errc::bad_endpoint, Step::parse));
    EXPECT_FALSE(Endpoint::parse(url));  // the sentence is optional
    return std::string(why.view());
}

void expect_refused(std::string_view url, std::string_view remedy) {
    const std::string sentence = refusal(url);
    EXPECT_NE(sentence.find(remedy), std::string::npos) << url << ": " << sentence;
}

TEST(EndpointTest, SplitsSchemeHostPortAndQuery) {
    const Endpoint endpoint = parsed("uring-udp://example.org:7000?nodelay&backlog=10");
    EXPECT_EQ(endpoint.scheme(), "uring-udp");
    EXPECT_EQ(endpoint.host(), "example.org");
    EXPECT_TRUE(endpoint.has_port());
    EXPECT_EQ(endpoint.port(), 7000);
    EXPECT_EQ(endpoint.query(), "nodelay&backlog=10");
}

TEST(EndpointTest, HostMayBeNameAddressBracketsOrStar) {
    EXPECT_EQ(parsed("tcp://127.0.0.1:0").host(), "127.0.0.1");
    EXPECT_EQ(parsed("tcp://[::1]:7000").host(), "::1");
    EXPECT_EQ(parsed("tcp://[fe80::1%2]:7000").host(), "fe80::1%2");
    EXPECT_EQ(parsed("tcp://[fe80::1%eth0]").host(), "fe80::1%eth0");
    EXPECT_EQ(parsed("tcp://*:7000").host(), "*");
    EXPECT_EQ(parsed("tcp://my_host-1.example:65535").port(), 65535);
    EXPECT_EQ(parsed("tcp://b\xc3\xbc"
                     "cher.example:1")
                  .host(),
              "b\xc3\xbc"
              "cher.example");
}

TEST(EndpointTest, PortMayBeAbsent) {
    EXPECT_FALSE(parsed("tcp://host").has_port());
    EXPECT_FALSE(parsed("tcp://[::1]?x=1").has_port());
    EXPECT_TRUE(parsed("tcp://host:0").has_port());
}

TEST(EndpointTest, PathsAndNamesGoToTheHost) {
    EXPECT_EQ(parsed("unix:///run/evpl.sock?mode=msg").host(), "/run/evpl.sock");
    EXPECT_EQ(parsed("unix:///run/evpl.sock?mode=msg").query(), "mode=msg");
    EXPECT_EQ(parsed("unix://@name").host(), "@name");
    EXPECT_EQ(parsed("uring-unix:///a:b").host(), "/a:b");
    EXPECT_EQ(parsed("inproc://bench").host(), "bench");
    EXPECT_FALSE(parsed("inproc://name:7000").has_port());
}

TEST(EndpointTest, PathsArePercentDecoded) {
    EXPECT_EQ(parsed("unix:///a%3Fb%25c%2f?x=%41").host(), "/a?b%c/");
    EXPECT_EQ(parsed("unix:///a%3Fb?x=%41").option("x"), "%41");  // values are taken literally
    expect_refused("unix:///a%", "%25");
    expect_refused("unix:///a%4", "%25");
    expect_refused("unix:///a%4?1", "%25");  // never reads across the question mark
    expect_refused("unix:///a%zz", "%25");
    expect_refused("unix:///a%00", "control character");
    expect_refused("unix:///a%0a", "control character");
}

TEST(EndpointTest, OptionsAreFoundByTheirWholeName) {
    const Endpoint endpoint = parsed("tcp://h:1?abc=1&ab=2&bare&empty=&last=a=b");
    EXPECT_EQ(endpoint.option("ab"), "2");
    EXPECT_EQ(endpoint.option("last"), "a=b");
    EXPECT_EQ(endpoint.option("bare"), "");
    EXPECT_NE(endpoint.option("bare").data(), nullptr);
    EXPECT_NE(endpoint.option("empty").data(), nullptr);
    EXPECT_EQ(endpoint.option("a").data(), nullptr);
    EXPECT_EQ(endpoint.option("").data(), nullptr);
    EXPECT_EQ(parsed("tcp://h:1?").option("").data(), nullptr);
    EXPECT_EQ(parsed("tcp://h:1?bare").option("bare").size(), 0u);
}

TEST(EndpointTest, CopiesHaveTheirOwnText) {
    Endpoint copy;
    {
        const Endpoint original = parsed("tcp://host:1?a=b");
        copy = original;
    }
    EXPECT_EQ(copy.host(), "host");
    EXPECT_EQ(copy.option("a"), "b");
}

TEST(EndpointTest, RefusalsSayWhatWouldBeRight) {
    expect_refused("", "tcp://127.0.0.1:7000");
    expect_refused("host:7000", "scheme://host:port");
    expect_refused("://host", "has no scheme");
    expect_refused("TCP://host:1", "lower-case");
    expect_refused("1tcp://host:1", "lower-case");
    expect_refused("tcp://:7000", "tcp://*:7000");
    expect_refused("tcp://", "no host");
    expect_refused("tcp://?a=b", "no host");
    expect_refused("tcp://::1:7000", "brackets");
    expect_refused("tcp://[::1:7000", "closing bracket");
    expect_refused("tcp://[127.0.0.1]:1", "IPv6");
    expect_refused("tcp://[]:1", "IPv6");
    expect_refused("tcp://[::1%]:1", "IPv6");
    expect_refused("tcp://[::1]7000", "[address]:port");
    expect_refused("tcp://host:7000/path", "0 to 65535");
    expect_refused("tcp://host/path", "path");
    expect_refused("tcp://user@host:1", "'@'");
    expect_refused("tcp://a b:1", "' '");
    expect_refused("tcp://**:1", "'*'");
    expect_refused("unix://", "names nothing");
    expect_refused("unix://@", "names nothing");
    expect_refused("inproc://?a", "inproc://name");
}

TEST(EndpointTest, RefusesBadPorts) {
    for (const char* url : {"tcp://h:", "tcp://h:65536", "tcp://h:99999", "tcp://h:123456", "tcp://h:-1", "tcp://h:+1", "tcp://h:0x1", "tcp://h: 1",
                            "tcp://h:1a", "tcp://[::1]:", "tcp://h:18446744073709551617"})
        expect_refused(url, "0 to 65535");
}

TEST(EndpointTest, RefusesOptionsWithoutName) {
    for (const char* url : {"tcp://h:1?=1", "tcp://h:1?a&&b", "tcp://h:1?a&", "tcp://h:1?&", "tcp://h:1?&a"}) expect_refused(url, "without a name");
}

TEST(EndpointTest, RefusesControlCharacters) {
    using namespace std::string_view_literals;
    expect_refused("tcp://h\n:1"sv, "byte 7");
    expect_refused("tcp://h\0:1"sv, "0x00");
    expect_refused("tcp://h:1?a=\x7f"sv, "0x7f");
    EXPECT_EQ(refusal("tcp://h\x1b[1m:1").find('\x1b'), std::string::npos);  // a terminal never sees it
}

TEST(EndpointTest, LengthIsBounded) {
    const std::string longest = "unix://" + std::string(Endpoint::text_bytes_max - 7, 'x');
    EXPECT_EQ(parsed(longest).host().size(), Endpoint::text_bytes_max - 7);
    expect_refused(longest + "x", "at most 480");
    EXPECT_LT(refusal(std::string(100'000, 'a')).size(), sizeof Diagnostic::text);
}

}  // namespace
}  // namespace evpl
