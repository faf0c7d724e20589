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
    /// Success.
    Result(T value) noexcept(std::is_nothrow_move_constructible_v<T>) { new (&value_) T(std::move(value)); }
    /// Failure. An Error that says ok would be misuse.
    Result(Error error) noexcept : error_(error) {}
    /// Failure by code alone.
    Result(Errc code) noexcept : error_(code) {}
    /// The other keeps a moved-from value or the error.
    Result(Result&& other) noexcept : error_(other.error_) {
        if (error_.ok()) new (&value_) T(std::move(other.value_));
    }
    /// Drops what it held.
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

    /// Success.
    explicit operator bool() const noexcept { return error_.ok(); }
    /// Success.
    bool ok() const noexcept { return error_.ok(); }
    /// Errc::none after success.
    Error error() const noexcept { return error_; }

    /// The value; misuse of a failed one stops the program.
    T& value() & { return *checked(); }
    /// The value; misuse of a failed one stops the program.
    const T& value() const& { return *const_cast<Result*>(this)->checked(); }
    /// The value, to be moved out; misuse of a failed one stops the program.
    T&& value() && { return std::move(*checked()); }
    /// As value().
    T& operator*() & { return *checked(); }
    /// As value().
    const T& operator*() const& { return value(); }
    /// As value().
    T&& operator*() && { return std::move(*checked()); }
    /// A member of the value.
    T* operator->() { return checked(); }
    /// A member of the value.
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

/// Success, or an Error.
template <>
class [[nodiscard]] Result<void> {
public:
    Result() noexcept = default;
    /// Failure, or success when the Error says ok.
    Result(Error error) noexcept : error_(error) {}
    /// Failure by code alone.
    Result(Errc code) noexcept : error_(code) {}
    /// Success.
    explicit operator bool() const noexcept { return error_.ok(); }
    /// Success.
    bool ok() const noexcept { return error_.ok(); }
    /// Errc::none after success.
    Error error() const noexcept { return error_; }

private:
    Error error_;
};

}  // namespace evpl
#pragma GCC visibility pop
