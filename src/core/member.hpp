#pragma once

#include <cstddef>
#include <cstdint>

#include "evpl/error.hpp"

namespace evpl::core {

class LoopCore;

/// What a loop keeps: connections, datagram sockets, listeners. In the loop's list from birth to bury(), and in two queues of a turn.
class Member {
public:
    explicit Member(LoopCore& owner) noexcept : core(owner) {}
    Member(const Member&) = delete;
    Member& operator=(const Member&) = delete;

    /// Calls the application back about what was noted since it was marked.
    virtual void dispatch() = 0;
    /// Hands the outbox to the port.
    virtual void flush_outbox() = 0;
    /// At the end of a turn: small leftovers leave the shared receive block.
    virtual void settle() = 0;
    /// The loop stops: gracefully (drain), or now, with this reason.
    virtual void stop(bool drain, Error reason) = 0;
    /// True until its last callback has returned.
    virtual bool is_alive() const noexcept = 0;
    virtual bool is_connection() const noexcept = 0;
    /// The loop ends: true when a handle of the application's still refers to the object, and will free it.
    virtual bool left_to_handle() noexcept { return false; }
    /// Frees the object. Nobody refers to it any more.
    virtual void destroy() noexcept = 0;

    LoopCore& core;
    Member* next = nullptr;
    Member* previous = nullptr;
    Member* next_marked = nullptr;
    Member* next_dirty = nullptr;
    Member* next_touched = nullptr;
    bool marked = false;
    bool dirty = false;
    bool touched = false;
    bool buried = false;

protected:
    ~Member() = default;
};

/// Where the handler begins that lies behind a State, in one allocation with it.
template <class State>
constexpr std::size_t handler_offset(std::size_t align) noexcept {
    return (sizeof(State) + align - 1) & ~(align - 1);
}

/// A first-in first-out list of members through one of their links.
template <Member* Member::*link, bool Member::*flag>
class MemberQueue {
public:
    bool empty() const noexcept { return first_ == nullptr; }
    void push(Member& member) noexcept {
        if (member.*flag) return;
        member.*flag = true;
        member.*link = nullptr;
        if (first_ == nullptr) first_ = &member;
        else last_->*link = &member;
        last_ = &member;
    }
    Member* pop() noexcept {
        Member* member = first_;
        if (member == nullptr) return nullptr;
        first_ = member->*link;
        member->*flag = false;
        return member;
    }
    void take(MemberQueue& other) noexcept {
        first_ = other.first_;
        last_ = other.last_;
        other.first_ = other.last_ = nullptr;
    }
    /// Cold: walks the list.
    void remove(Member& member) noexcept {
        if (!(member.*flag)) return;
        member.*flag = false;
        Member* before = nullptr;
        for (Member* at = first_; at != nullptr; before = at, at = at->*link) {
            if (at != &member) continue;
            if (before == nullptr) first_ = at->*link;
            else before->*link = at->*link;
            if (last_ == at) last_ = before;
            return;
        }
    }

private:
    Member* first_ = nullptr;
    Member* last_ = nullptr;
};

}  // namespace evpl::core
