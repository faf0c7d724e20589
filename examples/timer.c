// A periodic timer, a single one, and one that is cancelled, in C.
#include <evpl/evpl.h>
#include <stdio.h>

static void tick(void* count) { printf("tick %d\n", ++*(int*)count); }
static void end(void* loop) { evpl_loop_stop(loop, 0); }
static void fail(void* unused) { (void)unused, puts("this is never printed"); }

int main(void) {
    evpl_loop* loop;
    evpl_timer ticks = {{0}}, never = {{0}};
    int count = 0;
    if (evpl_loop_new(NULL, &loop).code != EVPL_OK) return 1;
    const evpl_error error = evpl_every(loop, 20 * EVPL_MS, tick, &count, &ticks);
    if (error.code != EVPL_OK) return evpl_complain(loop, error);
    evpl_after(loop, 110 * EVPL_MS, end, loop, NULL);  // runs on its own
    evpl_after(loop, 50 * EVPL_MS, fail, NULL, &never);
    evpl_timer_cancel(&never);
    const int status = evpl_loop_run(loop);
    puts(count >= 1 && count <= 5 ? "done" : "a timer came early or never");
    return evpl_timer_cancel(&ticks), evpl_loop_free(loop), status;
}
