#pragma once

#include <new>
#include <type_traits>
#include <utility>

#include "evpl/check.hpp"
#include "evpl/error.hpp"

#pragma GCC visibility push(default)
namespace evpl {

/// A value or an Error. Small and always checked by the compiler for being looked at.
/// Asking a failed Result for its value is misuse and stops the program (EVPL_CHECK).
template <class T>
class [[nodiscard]] Result {
public:
    Result(T value) noexcept(std::is_nothrow_move_constructible_v<T>) { new (&value_) T(std::move(value)); }
    Result(Error error) noexcept : error_(error) {}
    Result(Errc code) noexcept : error_(code) {}
    Result(Result&& other) noexcept : error_(other.error_) {
        if (error_.ok()) new (&value_) T(std::move(other.value_));
    }
    Result& operator=(Result&& other) noexcept {
        if (this != &other) {
            this->~Result();
            new (this) Result(std::move(other));
        }
        return *this;
    }
    ~Result() {
        if (error_.ok()) value_.~T();
    }

    explicit operator bool() const noexcept { return error_.ok(); }
    bool ok() const noexcept { return error_.ok(); }
    Error error() const noexcept { return error_; }

    T& value() & { return *checked(); }
    const T& value() const& { return *const_cast<Result*>(this)->checked(); }
    T&& value() && { return std::move(*checked()); }
    T& operator*() & { return *checked(); }
    const T& operator*() const& { return value(); }
    T&& operator*() && { return std::move(*checked()); }
    T* operator->() { return checked(); }
    const T* operator->() const { return const_cast<Result*>(this)->checked(); }

private:
    T* checked() {
        EVPL_CHECK(error_.ok(), "value of a failed Result", error_.code(), error_.os());
        return &value_;
    }
    Error error_;
    union {
        T value_;
    };
};

template <>
class [[nodiscard]] Result<void> {
public:
    Result() noexcept = default;
    Result(Error error) noexcept : error_(error) {}
    Result(Errc code) noexcept : error_(code) {}
    explicit operator bool() const noexcept { return error_.ok(); }
    bool ok() const noexcept { return error_.ok(); }
    Error error() const noexcept { return error_; }

private:
    Error error_;
};

}  // namespace evpl
#pragma GCC visibility pop
