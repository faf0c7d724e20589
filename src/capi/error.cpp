// Errors, names, addresses, endpoints.
#include <algorithm>

#include "capi.hpp"

using namespace evpl;
using namespace evpl::capi;

static_assert(EVPL_IO_ERROR + 1 == int(Errc::count_) && EVPL_MISUSE == int(Errc::misuse) && EVPL_TOO_LARGE == int(Errc::too_large));
static_assert(EVPL_STEP_LOOP + 1 == int(Step::count_) && EVPL_STEP_TLS == int(Step::tls));
static_assert(EVPL_SYSTEM + 1 == int(Who::count_));

extern "C" {

size_t evpl_error_text(evpl_error error, char* text, size_t room) { return text == nullptr ? 0 : from_c(error).describe(text, room); }
const char* evpl_code_name(uint16_t code) { return code < uint16_t(Errc::count_) ? name_of(Errc(code)) : "unknown"; }
const char* evpl_step_name(uint8_t step) { return step < uint8_t(Step::count_) ? name_of(Step(step)) : "unknown"; }
const char* evpl_who_name(uint8_t who) { return who < uint8_t(Who::count_) ? name_of(Who(who)) : "unknown"; }
const char* evpl_version(void) { return version(); }

evpl_error evpl_address_parse(const char* host, uint16_t port, evpl_address* address) {
    if (host == nullptr || address == nullptr) return misuse;
    const auto parsed = Address::parse(host, port);
    if (parsed) cpp(address) = *parsed;
    return status(parsed);
}
size_t evpl_address_text(const evpl_address* address, char* text, size_t room) {
    if (address == nullptr || text == nullptr) return 0;
    return cpp(address).describe(text, room);
}

evpl_error evpl_endpoint_parse(const char* url, char* why, size_t room, evpl_endpoint** endpoint) {
    if (endpoint == nullptr) return misuse;
    *endpoint = nullptr;
    if (url == nullptr) return misuse;
    Diagnostic diagnostic;
    const auto parsed = Endpoint::parse(url, &diagnostic);
    if (why != nullptr && room > 0) {
        const std::size_t size = std::min(room - 1, diagnostic.view().size());
        std::memcpy(why, diagnostic.text, size);
        why[size] = '\0';
    }
    if (!parsed) return to_c(parsed.error());
    *endpoint = reinterpret_cast<evpl_endpoint*>(new (std::nothrow) Endpoint(*parsed));
    return *endpoint != nullptr ? success : no_memory;
}
evpl_text evpl_endpoint_scheme(const evpl_endpoint* endpoint) { return endpoint == nullptr ? evpl_text{} : to_c(cpp(endpoint).scheme()); }
evpl_text evpl_endpoint_host(const evpl_endpoint* endpoint) { return endpoint == nullptr ? evpl_text{} : to_c(cpp(endpoint).host()); }
evpl_text evpl_endpoint_query(const evpl_endpoint* endpoint) { return endpoint == nullptr ? evpl_text{} : to_c(cpp(endpoint).query()); }
uint16_t evpl_endpoint_port(const evpl_endpoint* endpoint) { return endpoint == nullptr ? uint16_t(0) : cpp(endpoint).port(); }
bool evpl_endpoint_has_port(const evpl_endpoint* endpoint) { return endpoint != nullptr && cpp(endpoint).has_port(); }
evpl_text evpl_endpoint_option(const evpl_endpoint* endpoint, const char* name) {
    return endpoint == nullptr || name == nullptr ? evpl_text{} : to_c(cpp(endpoint).option(name));
}
void evpl_endpoint_free(evpl_endpoint* endpoint) { delete reinterpret_cast<Endpoint*>(endpoint); }

}  // extern "C"
