# Sourced: how the sanitizers behave. No suppressions: what they report is mended.
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_stack_use_after_return=1:strict_string_checks=1:check_initialization_order=1:strict_init_order=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
export TSAN_OPTIONS=${TSAN_OPTIONS:-second_deadlock_stack=1:history_size=4}

# without_wide_address_randomisation ARRAY: fills ARRAY with a command prefix. ThreadSanitizer cannot place its shadow
# memory where the kernel randomises mappings by more than 28 bits.
without_wide_address_randomisation() {
    local -n prefix=$1
    local bits
    bits=$(cat /proc/sys/vm/mmap_rnd_bits 2>/dev/null || echo 0)
    [[ $bits -gt 28 ]] || return 0
    if setarch -R true 2>/dev/null; then
        prefix=(setarch -R)
    else
        echo "vm.mmap_rnd_bits is $bits and setarch -R is not permitted: ThreadSanitizer may refuse to start" >&2
    fi
}
