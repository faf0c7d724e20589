/* What a program asks of the shim it may be preloaded with. Without it the functions are null. */
#ifndef EVPL_TESTS_FAILONCE_SHIM_H
#define EVPL_TESTS_FAILONCE_SHIM_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif
/* From now on calls count, on all threads; the chosen one fails. */
__attribute__((weak)) void failonce_arm(void);
/* Calls go through again. */
__attribute__((weak)) void failonce_disarm(void);
/* Calls of this thread go through, and do not count, from now on, or no longer. Returns what held before. */
__attribute__((weak)) bool failonce_spare(bool from_now_on);
/* Counting begins anew; the `nth` allocation from now on fails. */
__attribute__((weak)) void failonce_fail_memory(long nth);
/* How often the chosen call was made to fail. */
__attribute__((weak)) long failonce_injected(void);
/* Blocks that are allocated and not yet freed. */
__attribute__((weak)) long failonce_live_blocks(void);
/* Calls `told` for each call that was counted. */
__attribute__((weak)) void failonce_report(void (*told)(const char* call, long count));
#ifdef __cplusplus
}
#endif

#endif
