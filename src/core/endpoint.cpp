#include "evpl/endpoint.hpp"

#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "evpl/address.hpp"

namespace evpl {

namespace {

constexpr std::size_t npos = std::string_view::npos;

bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }
bool is_lower(char c) noexcept { return c >= 'a' && c <= 'z'; }
bool is_letter(char c) noexcept { return is_lower(c) || (c >= 'A' && c <= 'Z'); }
bool is_control(char c) noexcept { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

/// Letters, digits, dot, hyphen, underscore, and bytes beyond ASCII: whether such a name exists is the resolver's to say.
bool is_host_letter(char c) noexcept { return is_letter(c) || is_digit(c) || c == '.' || c == '-' || c == '_' || static_cast<unsigned char>(c) >= 0x80; }

/// Schemes whose host is a path or a name that may hold anything up to the question mark.
bool is_path_scheme(std::string_view scheme) noexcept { return scheme == "unix" || scheme == "uring-unix" || scheme == "inproc"; }

int hex_value(char c) noexcept {
    if (is_digit(c)) return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/// Input as it may be shown: short, and without anything that would upset a terminal.
struct Shown {
    char text[68];
    explicit Shown(std::string_view input) noexcept {
        const bool cut = input.size() > 64;
        const std::size_t size = cut ? 61 : input.size();
        for (std::size_t i = 0; i < size; ++i) text[i] = is_control(input[i]) ? '?' : input[i];
        std::memcpy(text + size, cut ? "..." : "", cut ? 4 : 1);
    }
};

}  // namespace

/// One parse: `out.text_` holds the copy, and the cursor moves through it from left to right.
struct EndpointParser {
    Endpoint& out;
    std::string_view url;
    Diagnostic* why;

    using Failure = Error;
    static constexpr Error done{};

    [[gnu::format(printf, 2, 3)]] Failure refuse(const char* format, ...) const noexcept {
        if (why != nullptr) {
            std::va_list arguments;
            va_start(arguments, format);
            std::vsnprintf(why->text, sizeof why->text, format, arguments);
            va_end(arguments);
        }
        return {Errc::bad_endpoint, Step::parse, Who::local};
    }

    std::string_view scheme() const noexcept { return out.scheme(); }
    std::string_view text() const noexcept { return {out.text_, url.size()}; }
    static Endpoint::Part part_of(std::size_t from, std::size_t to) noexcept { return {std::uint16_t(from), std::uint16_t(to - from)}; }

    Failure check_text() const noexcept {
        if (url.empty()) return refuse("the endpoint is empty: write scheme://host:port, for example tcp://127.0.0.1:7000");
        if (url.size() > Endpoint::text_bytes_max)
            return refuse("endpoint \"%s\" has %zu bytes: at most %zu are allowed", Shown(url).text, url.size(), Endpoint::text_bytes_max);
        for (std::size_t i = 0; i < url.size(); ++i)
            if (is_control(url[i]))
                return refuse("endpoint \"%s\" has a control character (0x%02x) at byte %zu: remove it", Shown(url).text, static_cast<unsigned char>(url[i]),
                              i);
        return done;
    }

    Failure read_scheme(std::size_t& at) noexcept {
        const std::size_t end = text().find("://");
        if (end == npos || end == 0)
            return refuse("endpoint \"%s\" has no scheme: write scheme://host:port, for example tcp://127.0.0.1:7000", Shown(url).text);
        const std::string_view name = text().substr(0, end);
        bool good = is_lower(name[0]);
        for (const char c : name) good = good && (is_lower(c) || is_digit(c) || c == '-' || c == '+');
        if (!good)
            return refuse("scheme \"%s\" of endpoint \"%s\": a scheme has lower-case letters, digits and hyphens only, for example tcp", Shown(name).text,
                          Shown(url).text);
        out.scheme_ = part_of(0, end);
        at = end + 3;
        return done;
    }

    Failure read_query(std::size_t from) noexcept {
        out.query_ = part_of(from, url.size());
        std::string_view rest = out.query();
        while (!rest.empty()) {
            const std::size_t end = rest.find('&');
            const std::string_view item = rest.substr(0, end);
            if (item.empty() || item[0] == '=' || end == rest.size() - 1)
                return refuse("the query of endpoint \"%s\" has an option without a name: write ?name=value&name=value", Shown(url).text);
            rest = end == npos ? std::string_view{} : rest.substr(end + 1);
        }
        return done;
    }

    /// Decodes %41 in place; the text only gets shorter.
    Failure read_path(std::size_t from, std::size_t to) noexcept {
        std::size_t write = from;
        for (std::size_t read = from; read < to; ++read, ++write) {
            char c = out.text_[read];
            if (c == '%') {
                const int high = read + 2 < to ? hex_value(out.text_[read + 1]) : -1;
                const int low = read + 2 < to ? hex_value(out.text_[read + 2]) : -1;
                if (high < 0 || low < 0)
                    return refuse("endpoint \"%s\" has a %% without two hexadecimal digits: write %%25 for the character itself", Shown(url).text);
                c = char(high * 16 + low);
                if (is_control(c)) return refuse("endpoint \"%s\" encodes a control character (0x%02x): remove it", Shown(url).text, unsigned(c));
                read += 2;
            }
            out.text_[write] = c;
        }
        out.host_ = part_of(from, write);
        const std::string_view host = out.host();
        if (host.empty() || host == "@")
            return refuse("endpoint \"%s\" names nothing: write %s", Shown(url).text,
                          scheme() == "inproc" ? "inproc://name" : "unix:///path/to/socket or unix://@name");
        return done;
    }

    Failure read_port(std::string_view digits) noexcept {
        std::uint32_t port = 0;
        bool good = !digits.empty() && digits.size() <= 5;
        for (const char c : digits.substr(0, 5)) {
            good = good && is_digit(c);
            port = port * 10 + std::uint32_t(c - '0');
        }
        if (!good || port > 65535)
            return refuse("port \"%s\" of endpoint \"%s\": a port is a decimal number from 0 to 65535", Shown(digits).text, Shown(url).text);
        out.port_ = std::uint16_t(port);
        out.has_port_ = true;
        return done;
    }

    /// "[::1]:7000"; `from` is behind the opening bracket.
    Failure read_bracketed(std::size_t from, std::size_t to) noexcept {
        const std::string_view rest = text().substr(from, to - from);
        const std::size_t close = rest.find(']');
        if (close == npos)
            return refuse("endpoint \"%s\" lacks the closing bracket: write %.*s://[::1]:7000", Shown(url).text, int(scheme().size()), scheme().data());
        const std::string_view host = rest.substr(0, close);
        const std::size_t zone = host.find('%');  // a zone may be an interface's name, which Address does not know
        const Result<Address> address = Address::parse(host.substr(0, zone), 0);
        if (!address || address->family != Address::Family::ipv6 || (zone != npos && zone + 1 == host.size()))
            return refuse("\"%s\" in endpoint \"%s\": brackets hold an IPv6 address, for example [::1] or [fe80::1%%2]", Shown(host).text, Shown(url).text);
        out.host_ = part_of(from, from + close);
        const std::string_view behind = rest.substr(close + 1);
        if (behind.empty()) return done;
        if (behind[0] != ':') return refuse("\"%s\" follows the bracket in endpoint \"%s\": write [address]:port", Shown(behind).text, Shown(url).text);
        return read_port(behind.substr(1));
    }

    Failure read_host(std::size_t from, std::size_t to) noexcept {
        const std::string_view all = text().substr(from, to - from);
        if (!all.empty() && all[0] == '[') return read_bracketed(from + 1, to);
        const std::size_t colon = all.find(':');
        if (colon != npos && all.find(':', colon + 1) != npos)
            return refuse("endpoint \"%s\" has more than one colon: an IPv6 address goes in brackets, for example %.*s://[::1]:7000", Shown(url).text,
                          int(scheme().size()), scheme().data());
        const std::string_view host = all.substr(0, colon);
        if (const Error error = check_host(host, colon == npos ? std::string_view{} : all.substr(colon)); !error.ok()) return error;
        out.host_ = part_of(from, from + host.size());
        return colon == npos ? done : read_port(all.substr(colon + 1));
    }

    Failure check_host(std::string_view host, std::string_view port) const noexcept {
        const int scheme_size = int(scheme().size());
        const char* scheme_text = scheme().data();
        if (host.empty() && !port.empty())
            return refuse("endpoint \"%s\" has no host: for every address of this machine write %.*s://*%s", Shown(url).text, scheme_size, scheme_text,
                          Shown(port).text);
        if (host.empty()) return refuse("endpoint \"%s\" has no host: write %.*s://host:port", Shown(url).text, scheme_size, scheme_text);
        if (host == "*") return done;
        for (const char c : host) {
            if (c == '/')
                return refuse("endpoint \"%s\" has a path, which %.*s does not take: write %.*s://host:port", Shown(url).text, scheme_size, scheme_text,
                              scheme_size, scheme_text);
            if (!is_host_letter(c))
                return refuse("host \"%s\" of endpoint \"%s\" has a '%c': a host is a name, an IPv4 address, [IPv6] or *", Shown(host).text, Shown(url).text,
                              c);
        }
        return done;
    }

    Error run() noexcept {
        if (const Error error = check_text(); !error.ok()) return error;
        url.copy(out.text_, url.size());
        std::size_t at = 0;
        if (const Error error = read_scheme(at); !error.ok()) return error;
        const std::size_t question = text().find('?', at);
        const std::size_t end = question == npos ? url.size() : question;
        if (question != npos)
            if (const Error error = read_query(question + 1); !error.ok()) return error;
        return is_path_scheme(scheme()) ? read_path(at, end) : read_host(at, end);
    }
};

Result<Endpoint> Endpoint::parse(std::string_view url, Diagnostic* why) noexcept {
    Endpoint endpoint;
    if (const Error error = EndpointParser{endpoint, url, why}.run(); !error.ok()) return error;
    return endpoint;
}

std::string_view Endpoint::option(std::string_view name) const noexcept {
    std::string_view rest = query();
    while (!rest.empty()) {
        const std::size_t end = rest.find('&');
        const std::string_view item = rest.substr(0, end);
        const std::size_t equals = item.find('=');
        if (item.substr(0, equals) == name) return equals == npos ? item.substr(item.size()) : item.substr(equals + 1);
        rest = end == npos ? std::string_view{} : rest.substr(end + 1);
    }
    return {};
}

}  // namespace evpl
