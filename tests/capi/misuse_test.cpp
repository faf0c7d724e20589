// Null and misuse: every function of the interface, from a list that the build reads out of the header.
#include <gtest/gtest.h>

#include <cstring>

#include "capi/world.hpp"

namespace {

std::uint16_t verdict(evpl_error error) { return error.code; }
std::uint16_t verdict(evpl_flow flow) { return flow.state == EVPL_NOT_SENT ? flow.error : std::uint16_t(EVPL_OK); }

/// The function with nothing but zeros. What can say misuse says it; what cannot, answers something harmless.
template <class Answer, class... Arguments>
void expect_misuse_of_zeros(const char* name, Answer (*function)(Arguments...)) {
    if constexpr (std::is_void_v<Answer>) {
        function(Arguments{}...);
    } else if constexpr (requires(Answer a) { verdict(a); } && !std::is_arithmetic_v<Answer>) {
        EXPECT_EQ(verdict(function(Arguments{}...)), EVPL_MISUSE) << name;
    } else {
        const Answer answer = function(Arguments{}...);
        if constexpr (std::is_same_v<Answer, bool>) {
            EXPECT_FALSE(answer) << name;
        } else if constexpr (std::is_same_v<Answer, evpl_text> || std::is_same_v<Answer, evpl_bytes>) {
            EXPECT_EQ(answer.size, 0u) << name;
        } else if constexpr (std::is_pointer_v<Answer> && !std::is_same_v<Answer, const char*>) {
            EXPECT_EQ(answer, nullptr) << name;
        }
    }
}

constexpr const char* listed[] = {
#define EVPL_FUNCTION(name) #name,
#include "capi_functions.inc"
#undef EVPL_FUNCTION
};

TEST(CapiMisuse, EveryFunctionAnswersZeros) {
    ASSERT_GT(std::size(listed), 130u) << "the list was not read out of the header";
#define EVPL_FUNCTION(name)                                                                                                                                    \
    if (std::strcmp(#name, "evpl_set_log") != 0) expect_misuse_of_zeros(#name, &name);
#include "capi_functions.inc"
#undef EVPL_FUNCTION
    EXPECT_EQ(evpl_set_log(nullptr, nullptr, 0).code, EVPL_OK);  // zeros mean silence
    EXPECT_EQ(evpl_set_log(nullptr, nullptr, 4).code, EVPL_MISUSE);
}

TEST(CapiMisuse, FreesOfWhatIsNotOursAreAnswered) {
    World world;
    evpl_loop* loop;
    ASSERT_EQ(evpl_loop_new(nullptr, &loop).code, EVPL_OK);
    EXPECT_EQ(evpl_loop_free(loop).code, EVPL_OK);
    EXPECT_EQ(evpl_loop_free(loop).code, EVPL_MISUSE);
    evpl_thread* thread;
    ASSERT_EQ(evpl_thread_start(nullptr, &thread).code, EVPL_OK);
    EXPECT_EQ(evpl_loop_free(evpl_thread_loop(thread)).code, EVPL_MISUSE);
    EXPECT_EQ(evpl_thread_free(thread).code, EVPL_OK);
    EXPECT_EQ(evpl_thread_free(thread).code, EVPL_MISUSE);
    const evpl_handler none = {sizeof none};
    evpl_listener* listener;
    ASSERT_EQ(evpl_listen(world.loop, "inproc://capi-twice", &none, nullptr, &listener).code, EVPL_OK);
    EXPECT_EQ(evpl_listener_free(listener).code, EVPL_OK);
    EXPECT_EQ(evpl_listener_free(listener).code, EVPL_MISUSE);
}

TEST(CapiMisuse, ALoopIsNotFreedInItsOwnCallback) {
    World world;
    struct Seen {
        evpl_loop* loop;
        std::uint16_t code;
    } seen{world.loop, EVPL_OK};
    evpl_defer(
        world.loop, [](void* s) { static_cast<Seen*>(s)->code = evpl_loop_free(static_cast<Seen*>(s)->loop).code; }, &seen);
    EXPECT_EQ(evpl_loop_run_until_idle(world.loop), 0);
    EXPECT_EQ(seen.code, EVPL_MISUSE);
}

TEST(CapiMisuse, RangesOutsideASliceAreAnswered) {
    World world;
    evpl_buffer buffer = {}, other = {};
    ASSERT_EQ(evpl_copy(world.loop, "abc", 3, &buffer).code, EVPL_OK);
    EXPECT_EQ(evpl_buffer_share(&buffer, 1, 3, &other).code, EVPL_MISUSE);
    EXPECT_EQ(evpl_buffer_share(&buffer, UINT32_MAX, 2, &other).code, EVPL_MISUSE);
    EXPECT_EQ(evpl_buffer_drop_front(&buffer, 4).code, EVPL_MISUSE);
    EXPECT_EQ(evpl_buffer_truncate(&buffer, 4).code, EVPL_MISUSE);
    EXPECT_EQ(evpl_buffer_size(&buffer), 3u);
    evpl_buffer_release(&buffer);
    EXPECT_EQ(evpl_allocate(world.loop, 64u << 20, &buffer).code, EVPL_TOO_LARGE);
}

TEST(CapiMisuse, ACopiedChainIsNotTheChain) {
    World world;
    evpl_chain chain = {}, copy;
    evpl_buffer buffer = {};
    ASSERT_EQ(evpl_copy(world.loop, "abc", 3, &buffer).code, EVPL_OK);
    ASSERT_EQ(evpl_chain_append(&chain, &buffer).code, EVPL_OK);
    std::memcpy(&copy, &chain, sizeof copy);
    EXPECT_EQ(evpl_chain_size(&copy), 0u);
    EXPECT_EQ(evpl_chain_append(&copy, &buffer).code, EVPL_MISUSE);
    EXPECT_EQ(evpl_chain_take_front(&copy, 1, &chain).code, EVPL_MISUSE);
    evpl_chain_clear(&copy);
    EXPECT_EQ(evpl_chain_size(&chain), 3u);
    evpl_chain_clear(&chain);
}

TEST(CapiMisuse, BadOptionsAreAnswered) {
    evpl_loop* loop;
    evpl_loop_options options = {};
    options.size_bytes = sizeof options;
    options.mode = 3;
    EXPECT_EQ(evpl_loop_new(&options, &loop).code, EVPL_MISUSE);
    EXPECT_EQ(loop, nullptr);
    World world;
    const evpl_handler sizeless = {};
    evpl_listener* listener;
    EXPECT_EQ(evpl_listen(world.loop, "inproc://capi-none", &sizeless, nullptr, &listener).code, EVPL_MISUSE);
    evpl_factory factory = {};
    factory.size_bytes = sizeof factory;
    const evpl_handler none = {sizeof none};
    EXPECT_EQ(evpl_listen_each(world.loop, "inproc://capi-none", &none, &factory, &listener).code, EVPL_MISUSE);
}

}  // namespace
