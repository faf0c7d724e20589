/** The C interface: C11, and C++. Everything the C++ headers offer, with plain functions over opaque handles.
 *
 * Rules for all of it:
 * - Sizes are bytes, times are nanoseconds (int64_t; EVPL_FOREVER: no limit), texts are UTF-8 and end with a zero byte when they
 *   are given; an evpl_text that comes back is a view (data and size) and says how long it is valid.
 * - A call that can fail answers an evpl_error; code EVPL_OK (0) is success. A null handle, a null pointer to put a result into,
 *   or a broken rule is answered EVPL_MISUSE. A question to a null handle is answered 0, false or an empty view.
 * - No exception leaves the library. No callback runs inside a call made here, except build, drop, release and log functions.
 * - Structs whose first member is size_bytes: set it to sizeof the struct and zero the rest (designated initialisers do). Zero means
 *   the default. A library newer or older than the program reads and writes only what both know.
 * - Structs with only `opaque` members are values: all zeros is the empty one. Never copy one that holds something, except the refs.
 * - Thread: the owning loop's, unless the comment says `any`. Cost: some ns and no allocation, unless the comment says more.
 */
#ifndef EVPL_EVPL_H
#define EVPL_EVPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EVPL_API __attribute__((visibility("default")))
#define EVPL_FOREVER INT64_MAX
#define EVPL_MS INT64_C(1000000)
#define EVPL_S INT64_C(1000000000)

#ifdef __cplusplus
extern "C" {
#endif

/* -- errors -------------------------------------------------------------------------------------------------------- */

/** What went wrong, or how something ended. Numbers are stable; new ones are added at the end. */
typedef enum evpl_errc {
    EVPL_OK = 0,
    EVPL_END,                 /**< orderly end: both sides have finished */
    EVPL_CLOSED,              /**< closed by a local close */
    EVPL_CANCELLED,           /**< ended before it completed because somebody asked for that */
    EVPL_STOPPED,             /**< the loop was stopped */
    EVPL_TIMED_OUT,           /**< a deadline passed */
    EVPL_PEER_SILENT,         /**< no sign of life from the peer */
    EVPL_REFUSED,             /**< nobody listens there, or the listener refused us */
    EVPL_RESET,               /**< the peer, or something between, cut the connection */
    EVPL_UNREACHABLE,         /**< no route to the host or network */
    EVPL_NAME_NOT_FOUND,      /**< the name does not resolve */
    EVPL_NAME_FAILED,         /**< the resolver failed */
    EVPL_ADDRESS_IN_USE,      /**< another socket is bound there */
    EVPL_ADDRESS_UNAVAILABLE, /**< not an address of this machine, or no port is left */
    EVPL_BAD_ENDPOINT,        /**< the URL cannot be parsed */
    EVPL_UNKNOWN_SCHEME,      /**< no transport of that name */
    EVPL_UNKNOWN_OPTION,      /**< the URL names an option that the transport does not have */
    EVPL_BAD_OPTION,          /**< an option's value is wrong */
    EVPL_TRANSPORT_ABSENT,    /**< the transport is not present on this machine */
    EVPL_NOT_SUPPORTED,       /**< this transport, device or kernel cannot do that */
    EVPL_PERMISSION_DENIED,   /**< the system forbids it */
    EVPL_TOO_MANY_FILES,      /**< out of descriptors */
    EVPL_OUT_OF_MEMORY,       /**< the system has no memory */
    EVPL_OUT_OF_BUFFERS,      /**< a buffer limit of the loop or the process is reached */
    EVPL_SEND_LIMIT,          /**< the outbox passed its hard limit */
    EVPL_RECEIVE_LIMIT,       /**< unread bytes passed what a transport without receive pause may hold */
    EVPL_TOO_LARGE,           /**< a message, frame or request is larger than allowed */
    EVPL_TRUNCATED,           /**< a message was cut */
    EVPL_BAD_FRAME,           /**< the framing callback found nonsense */
    EVPL_PROTOCOL_ERROR,      /**< the peer broke a protocol */
    EVPL_REFUSED_BY_HANDLER,  /**< the accept factory returned an error */
    EVPL_HANDLER_THREW,       /**< a callback threw (a C++ one) */
    EVPL_MISUSE,              /**< the caller broke a rule that can be answered */
    EVPL_LOOP_ENDED,          /**< the target loop has ended */
    EVPL_REMOTE_ACCESS,       /**< remote memory: bounds, key or rights are wrong, or it was revoked */
    EVPL_DEVICE_LOST,         /**< the device went away or its port went down */
    EVPL_DEVICE_ERROR,        /**< the device reported a failure */
    EVPL_IO_ERROR             /**< any other failure of the system; see os */
} evpl_errc;

/** In which step it happened. */
typedef enum evpl_step {
    EVPL_STEP_NONE,
    EVPL_STEP_PARSE,
    EVPL_STEP_RESOLVE,
    EVPL_STEP_OPEN,
    EVPL_STEP_BIND,
    EVPL_STEP_LISTEN,
    EVPL_STEP_ACCEPT,
    EVPL_STEP_CONNECT,
    EVPL_STEP_TLS,
    EVPL_STEP_SEND,
    EVPL_STEP_RECV,
    EVPL_STEP_REMOTE,
    EVPL_STEP_CLOSE,
    EVPL_STEP_LOOP
} evpl_step;

/** Who caused it. */
typedef enum evpl_who { EVPL_UNKNOWN, EVPL_LOCAL, EVPL_PEER, EVPL_SYSTEM } evpl_who;

/** An error: 8 bytes, passed by value. */
typedef struct evpl_error {
    uint16_t code; /**< evpl_errc */
    uint8_t step;  /**< evpl_step */
    uint8_t who;   /**< evpl_who */
    int32_t os;    /**< the system's own code (errno on sockets), 0 when there is none */
} evpl_error;

/** A text that belongs to the library: not ended by a zero byte, print it with "%.*s". */
typedef struct evpl_text {
    const char* data; /**< null: none */
    size_t size;      /**< in bytes */
} evpl_text;

/** Bytes that belong to somebody else, to be looked at. */
typedef struct evpl_bytes {
    const void* data; /**< null: none */
    size_t size;      /**< in bytes */
} evpl_bytes;

/** "connect: refused (peer, ECONNREFUSED: Connection refused)" into text, always ended when room > 0. Answers the length without the
 * end, 0 without a text. Thread: any. */
EVPL_API size_t evpl_error_text(evpl_error error, char* text, size_t room);
/** Stable names, "refused", "connect", "peer"; "unknown" for a number that this library does not know. Thread: any. */
EVPL_API const char* evpl_code_name(uint16_t code);
EVPL_API const char* evpl_step_name(uint8_t step);
EVPL_API const char* evpl_who_name(uint8_t who);
/** "major.minor.patch" of the library. Thread: any. */
EVPL_API const char* evpl_version(void);

/* -- handles and values -------------------------------------------------------------------------------------------- */

typedef struct evpl_loop evpl_loop;                   /**< one event loop; evpl_loop_new, or of a thread or pool */
typedef struct evpl_listener evpl_listener;           /**< accepts connections while it lives; evpl_listen */
typedef struct evpl_connection evpl_connection;       /**< the loop's; valid until its on_close returns */
typedef struct evpl_datagram evpl_datagram;           /**< the loop's; valid until its on_close returns */
typedef struct evpl_completion evpl_completion;       /**< valid inside on_completed */
typedef struct evpl_thread evpl_thread;               /**< a thread that runs a loop; evpl_thread_start */
typedef struct evpl_pool evpl_pool;                   /**< threads that run loops; evpl_pool_start */
typedef struct evpl_pool_listener evpl_pool_listener; /**< listeners on the threads of a pool */
typedef struct evpl_local evpl_local;                 /**< one object per thread of a pool; the pool's */
typedef struct evpl_endpoint evpl_endpoint;           /**< a parsed URL; evpl_endpoint_parse */

/* Values, see the rules above. Room is reserved so that their size stays. */
/** A slice of registered memory, one reference on its block. */
typedef struct evpl_buffer {
    uint64_t opaque[4]; /**< the library's */
} evpl_buffer;
/** A sequence of slices: what recv gives and send takes. */
typedef struct evpl_chain {
    uint64_t opaque[20]; /**< the library's */
} evpl_chain;
/** A buffer on its way to another thread. */
typedef struct evpl_parcel {
    uint64_t opaque[4]; /**< the library's */
} evpl_parcel;
/** A timer that runs. */
typedef struct evpl_timer {
    uint64_t opaque[4]; /**< the library's */
} evpl_timer;
/** A watched descriptor. */
typedef struct evpl_watch {
    uint64_t opaque[4]; /**< the library's */
} evpl_watch;
/* Names without keeping: copy and compare them freely, on any thread. */
/** Names a loop. */
typedef struct evpl_loop_ref {
    uint64_t opaque[2]; /**< the library's */
} evpl_loop_ref;
/** Names a connection. */
typedef struct evpl_connection_ref {
    uint64_t opaque[2]; /**< the library's */
} evpl_connection_ref;
/** Names a datagram socket. */
typedef struct evpl_datagram_ref {
    uint64_t opaque[2]; /**< the library's */
} evpl_datagram_ref;

/** An IP address with a port, or nothing (family 0). */
typedef struct evpl_address {
    uint16_t family;   /**< 0, 4 or 6 */
    uint16_t port;     /**< host byte order */
    uint32_t scope;    /**< IPv6 zone index, else 0 */
    uint8_t bytes[16]; /**< network byte order; IPv4 uses the first four */
} evpl_address;

/** From numbers and punctuation only, "127.0.0.1", "::1". Errors: bad_endpoint, misuse. Thread: any. */
EVPL_API evpl_error evpl_address_parse(const char* host, uint16_t port, evpl_address* address);
/** "127.0.0.1:7000" into text, always ended when room > 0; answers the length. 64 bytes always suffice. Thread: any. */
EVPL_API size_t evpl_address_text(const evpl_address* address, char* text, size_t room);

/** Parses `scheme://host:port?name=value`. `why` (may be null, room bytes) gets one sentence about a failure.
 * Errors: bad_endpoint, out_of_memory, misuse. Thread: any. Cost: one allocation, freed by evpl_endpoint_free. */
EVPL_API evpl_error evpl_endpoint_parse(const char* url, char* why, size_t room, evpl_endpoint** endpoint);
/** The parts; valid while the endpoint lives. Thread: any. */
EVPL_API evpl_text evpl_endpoint_scheme(const evpl_endpoint* endpoint);
EVPL_API evpl_text evpl_endpoint_host(const evpl_endpoint* endpoint);
EVPL_API evpl_text evpl_endpoint_query(const evpl_endpoint* endpoint);
EVPL_API uint16_t evpl_endpoint_port(const evpl_endpoint* endpoint);
EVPL_API bool evpl_endpoint_has_port(const evpl_endpoint* endpoint);
/** The value of an option; data is null when it is absent. Thread: any. */
EVPL_API evpl_text evpl_endpoint_option(const evpl_endpoint* endpoint, const char* name);
/** Null is nothing. Thread: any. */
EVPL_API void evpl_endpoint_free(evpl_endpoint* endpoint);

/* -- handlers ------------------------------------------------------------------------------------------------------ */

/** What a framing callback says about the bytes at the front of a stream. */
typedef struct evpl_frame {
    uint32_t size_bytes; /**< of the whole message, header included; 0: more bytes are needed */
    bool bad;            /**< nonsense: the connection ends with bad_frame */
} evpl_frame;

/** The events of a connection; null ones cost nothing. The library's own table: a call goes straight to these functions. */
typedef struct evpl_handler {
    uint32_t size_bytes;                                                            /**< of this struct, as the caller knows it */
    void (*on_open)(void* self, evpl_connection* peer);                             /**< it may send now */
    void (*on_recv)(void* self, evpl_connection* peer);                             /**< new bytes or messages are queued */
    void (*on_writable)(void* self, evpl_connection* peer);                         /**< the outbox has drained to the low mark */
    void (*on_sent)(void* self, evpl_connection* peer, size_t bytes);               /**< so many bytes' buffers are free again */
    void (*on_end)(void* self, evpl_connection* peer);                              /**< the peer has finished; null: drain and close */
    void (*on_completed)(void* self, evpl_connection* peer, evpl_completion* done); /**< a remote operation has ended */
    void (*on_close)(void* self, evpl_connection* peer, evpl_error why);            /**< exactly once, always last */
    evpl_frame (*frame)(void* self, evpl_bytes head);                               /**< cuts a stream into messages */
    void (*on_written)(void* self, evpl_connection* peer, uint32_t word);           /**< the peer has written to exposed memory, and says so */
} evpl_handler;

/** The events of a datagram socket. */
typedef struct evpl_datagram_handler {
    uint32_t size_bytes;                                                   /**< of this struct, as the caller knows it */
    void (*on_open)(void* self, evpl_datagram* socket);                    /**< the name of a connected socket is resolved */
    void (*on_recv)(void* self, evpl_datagram* socket);                    /**< datagrams are queued */
    void (*on_writable)(void* self, evpl_datagram* socket);                /**< the outbox has drained to the low mark */
    void (*on_error)(void* self, evpl_datagram* socket, evpl_error error); /**< a send failed; the socket goes on */
    void (*on_close)(void* self, evpl_datagram* socket, evpl_error why);   /**< exactly once, always last */
} evpl_datagram_handler;

/** A state of its own for each connection, instead of one shared self. */
typedef struct evpl_factory {
    uint32_t size_bytes;  /**< of this struct, as the caller knows it */
    uint32_t state_bytes; /**< room in the connection's own allocation, aligned to 16, up to 64 KiB; 0: none */
    void* context;        /**< given to build and drop */
    /** On the accepting loop's thread: fills *state, the self of this connection (room at first). An error refuses the peer.
     * Null: the zeroed room itself. */
    evpl_error (*build)(void* context, evpl_connection* peer, void* room, void** state);
    void (*destroy)(void* state); /**< after on_close; null: nothing */
    void (*drop)(void* context);  /**< when the listener and its connections are gone; null: nothing. Any thread of a pool. */
} evpl_factory;

/* -- loops --------------------------------------------------------------------------------------------------------- */

typedef enum evpl_mode { EVPL_HYBRID, EVPL_POLL, EVPL_EVENT } evpl_mode; /**< polls while that pays; always; never */

/** Zero: the default, named in loop.hpp. Names are copied. */
typedef struct evpl_loop_options {
    uint32_t size_bytes;       /**< of this struct, as the caller knows it */
    uint32_t mode;             /**< evpl_mode */
    int64_t spin_ns;           /**< hybrid: longest time to poll before sleeping */
    uint64_t memory_bytes_max; /**< slabs this loop may hold */
    uint32_t batch;            /**< events, timers, posts and deferrals of one kind per turn */
    uint32_t batch_bytes;      /**< bytes read before callbacks run */
    int64_t stall_ns;          /**< a longer turn is counted and logged */
    const char* name;          /**< appears in messages, first 31 bytes */
    const char* dns_servers;   /**< "127.0.0.1:5353,...": instead of the system's, first 255 bytes */
} evpl_loop_options;

/** Makes a loop; options may be null. It opens nothing yet. Errors: out_of_memory, misuse. Thread: any; it belongs to the thread that
 * runs it. Cost: one allocation. */
EVPL_API evpl_error evpl_loop_new(const evpl_loop_options* options, evpl_loop** loop);
/** Closes what is left, with its on_close, and frees. Errors: misuse (null, running on this thread, of a thread or pool, freed before). */
EVPL_API evpl_error evpl_loop_free(evpl_loop* loop);
/** Runs until evpl_loop_stop. Answers what main may return: 0, 1 when it could not run, EVPL_MISUSE for null. */
EVPL_API int evpl_loop_run(evpl_loop* loop);
/** The same; SIGINT and SIGTERM stop it, the thread's signal mask is restored. */
EVPL_API int evpl_loop_run_until_signal(evpl_loop* loop);
/** Runs until nothing is left. */
EVPL_API int evpl_loop_run_until_idle(evpl_loop* loop);
/** One turn, waiting at most wait_ns; true: something happened. Everything is armed when it returns. */
EVPL_API bool evpl_loop_run_once(evpl_loop* loop, int64_t wait_ns);
/** A descriptor that is readable when run_once has something to do. Errors: too_many_files, misuse. */
EVPL_API evpl_error evpl_loop_native_fd(evpl_loop* loop, int* fd);
/** Ends run: drains up to drain_ns (0: closes at once). Thread: any, while the loop lives. */
EVPL_API evpl_error evpl_loop_stop(evpl_loop* loop, int64_t drain_ns);
EVPL_API bool evpl_loop_stopping(const evpl_loop* loop);
/** Monotonic time at the start of this turn, and now. */
EVPL_API int64_t evpl_loop_now(const evpl_loop* loop);
EVPL_API int64_t evpl_loop_now_precise(const evpl_loop* loop);
EVPL_API evpl_error evpl_loop_set_mode(evpl_loop* loop, uint32_t mode);
/** One sentence about the last set-up call that failed; valid until the next such call. */
EVPL_API evpl_text evpl_loop_last_failure(const evpl_loop* loop);
/** Prints the last failure, or the error's own text, to standard error because you asked; answers 1, for main. */
EVPL_API int evpl_complain(const evpl_loop* loop, evpl_error error);

/** A name for other threads, valid for ever. */
EVPL_API evpl_loop_ref evpl_loop_get_ref(const evpl_loop* loop);
/** Runs run(context) on the loop's thread, in order per posting thread. When it will never run, drop(context) (may be null) is called
 * instead, once, perhaps inside this call. Errors: loop_ended, misuse. Thread: any. Cost: a system call only when the loop sleeps. */
EVPL_API evpl_error evpl_post(evpl_loop_ref loop, void (*run)(void* context), void* context, void (*drop)(void* context));
/** As evpl_loop_stop. Thread: any; with drain_ns 0 also from a signal handler. */
EVPL_API evpl_error evpl_stop(evpl_loop_ref loop, int64_t drain_ns);
/** Runs run(context) later in this turn or in the next. Errors: out_of_memory, misuse. */
EVPL_API evpl_error evpl_defer(evpl_loop* loop, void (*run)(void* context), void* context);

/** Runs run(context) once after delay_ns, never early, or every period_ns. `timer` gets the timer, what it held is cancelled; null: it
 * runs on its own. Errors: out_of_memory, misuse. */
EVPL_API evpl_error evpl_after(evpl_loop* loop, int64_t delay_ns, void (*run)(void* context), void* context, evpl_timer* timer);
EVPL_API evpl_error evpl_every(evpl_loop* loop, int64_t period_ns, void (*run)(void* context), void* context, evpl_timer* timer);
/** The callback will not run any more. Right at any time, also in the callback and after the loop has ended. */
EVPL_API void evpl_timer_cancel(evpl_timer* timer);
EVPL_API bool evpl_timer_pending(const evpl_timer* timer);

enum { EVPL_READ = 1, EVPL_WRITE = 2, EVPL_FAULT = 4 }; /**< what a descriptor is ready for */
/** Watches a foreign descriptor, level-triggered, for EVPL_READ, EVPL_WRITE or both. Errors: those of epoll_ctl(2), misuse. */
EVPL_API evpl_error evpl_watch_fd(evpl_loop* loop, int fd, uint8_t wanted, void (*ready)(void* context, uint8_t what), void* context, evpl_watch* watch);
/** Stops watching; close the descriptor only afterwards. */
EVPL_API void evpl_watch_cancel(evpl_watch* watch);

typedef void (*evpl_hook)(void* context, evpl_loop* loop);
/** Hooks of the turn: before it may sleep, after it woke, at its end. Each replaces the former; null removes. Errors: misuse. */
EVPL_API evpl_error evpl_loop_on_before_wait(evpl_loop* loop, evpl_hook hook, void* context);
EVPL_API evpl_error evpl_loop_on_after_wait(evpl_loop* loop, evpl_hook hook, void* context);
EVPL_API evpl_error evpl_loop_on_turn_end(evpl_loop* loop, evpl_hook hook, void* context);

/* -- memory -------------------------------------------------------------------------------------------------------- */

/** A fresh slice of `size` bytes (1 to 2 MiB); the same, filled; the caller's memory, with release(context) on this loop's thread when
 * the last reference is gone. What `buffer` held is released. Errors: out_of_buffers, out_of_memory, too_large, misuse. */
EVPL_API evpl_error evpl_allocate(evpl_loop* loop, uint32_t size, evpl_buffer* buffer);
EVPL_API evpl_error evpl_copy(evpl_loop* loop, const void* bytes, size_t size, evpl_buffer* buffer);
EVPL_API evpl_error evpl_wrap(evpl_loop* loop, void* bytes, size_t size, void (*release)(void* context), void* context, evpl_buffer* buffer);
/** First byte and size of the slice. */
EVPL_API void* evpl_buffer_data(const evpl_buffer* buffer);
EVPL_API uint32_t evpl_buffer_size(const evpl_buffer* buffer);
/** Another reference to [offset, offset + size) into `other`. Errors: misuse (outside the slice). */
EVPL_API evpl_error evpl_buffer_share(const evpl_buffer* buffer, uint32_t offset, uint32_t size, evpl_buffer* other);
/** Drops the first n bytes; keeps only the first n. Errors: misuse (outside the slice). */
EVPL_API evpl_error evpl_buffer_drop_front(evpl_buffer* buffer, uint32_t n);
EVPL_API evpl_error evpl_buffer_truncate(evpl_buffer* buffer, uint32_t n);
/** Gives the reference back; the buffer is empty then. Null and empty are nothing. */
EVPL_API void evpl_buffer_release(evpl_buffer* buffer);
/** Moves it into a parcel, which any thread may carry. Errors: out_of_memory (the buffer is unchanged), misuse (empty). */
EVPL_API evpl_error evpl_buffer_pack(evpl_buffer* buffer, evpl_parcel* parcel);
EVPL_API uint32_t evpl_parcel_size(const evpl_parcel* parcel);
/** Moves it into a buffer of `loop`. Errors: misuse (empty). Thread: that loop's. */
EVPL_API evpl_error evpl_parcel_open(evpl_parcel* parcel, evpl_loop* loop, evpl_buffer* buffer);
/** Gives the bytes back to where they came from. Null and empty are nothing. Thread: any. */
EVPL_API void evpl_parcel_drop(evpl_parcel* parcel);

/** Bytes in all slices; how many slices; the bytes of slice i (empty beyond the last). */
EVPL_API size_t evpl_chain_size(const evpl_chain* chain);
EVPL_API uint32_t evpl_chain_count(const evpl_chain* chain);
EVPL_API evpl_bytes evpl_chain_slice(const evpl_chain* chain, uint32_t i);
/** Another reference to slice i. Errors: misuse (beyond the last). */
EVPL_API evpl_error evpl_chain_share_slice(const evpl_chain* chain, uint32_t i, evpl_buffer* buffer);
/** Moves a buffer, or all of another chain, to the end. Errors: out_of_memory (both are unchanged), misuse. */
EVPL_API evpl_error evpl_chain_append(evpl_chain* chain, evpl_buffer* buffer);
EVPL_API evpl_error evpl_chain_append_chain(evpl_chain* chain, evpl_chain* other);
/** Moves the first n bytes (all, if there are fewer) into `front`, whose content is released. Out of memory shortens what is taken. */
EVPL_API evpl_error evpl_chain_take_front(evpl_chain* chain, size_t n, evpl_chain* front);
EVPL_API evpl_error evpl_chain_drop_front(evpl_chain* chain, size_t n);
/** Another chain over the same bytes. Errors: out_of_memory, misuse. */
EVPL_API evpl_error evpl_chain_share(const evpl_chain* chain, evpl_chain* other);
/** Copies up to `room` bytes from `offset` on; answers how many. */
EVPL_API size_t evpl_chain_copy_to(const evpl_chain* chain, void* target, size_t room, size_t offset);
/** Releases all slices. A chain that was sent needs none of it. Null and empty are nothing. */
EVPL_API void evpl_chain_clear(evpl_chain* chain);

/** Most bytes of slabs in the whole process. Errors: misuse (0: nothing could work). Thread: any. */
EVPL_API evpl_error evpl_limit_process_memory(uint64_t bytes);

/* -- listeners and connections ------------------------------------------------------------------------------------- */

/** Listens at url; all connections share `handler` (copied) and `self`. Errors: those of evpl::listen() in listener.hpp, misuse.
 * Cost: allocations and system calls. */
EVPL_API evpl_error evpl_listen(evpl_loop* loop, const char* url, const evpl_handler* handler, void* self, evpl_listener** listener);
/** The same, with a state for each connection. After an error drop was called, except after misuse. */
EVPL_API evpl_error evpl_listen_each(evpl_loop* loop, const char* url, const evpl_handler* handler, const evpl_factory* factory, evpl_listener** listener);
/** As really bound, port 0 replaced by the real one; valid while the listener lives. */
EVPL_API evpl_text evpl_listener_url(const evpl_listener* listener);
EVPL_API uint16_t evpl_listener_port(const evpl_listener* listener);
/** The descriptor of its socket for another process that shall listen on, as Listener::hand_over() in listener.hpp; -1: there is none. */
EVPL_API int evpl_listener_hand_over(evpl_listener* listener);
EVPL_API evpl_error evpl_listener_pause(evpl_listener* listener);
EVPL_API evpl_error evpl_listener_resume(evpl_listener* listener);
/** Most connections open at once, 0: no limit. */
EVPL_API evpl_error evpl_listener_limit_connections(evpl_listener* listener, uint32_t most);
/** Stops accepting, leaves the connections, frees. Also right after its loop has ended. Errors: misuse (null, freed before). */
EVPL_API evpl_error evpl_listener_free(evpl_listener* listener);

/** Starts a connection that ends with timed_out when it is not open after within_ns (0: 30 s). After an error nothing was created and no
 * callback follows; after success all news comes by callback. `connection` (may be null) names it. Errors: those of evpl::connect(). */
EVPL_API evpl_error evpl_connect(evpl_loop* loop, const char* url, const evpl_handler* handler, void* self, int64_t within_ns, evpl_connection_ref* connection);
/** The same, with a state of the connection's own. The factory's build runs before anything is sent, inside this call: there
 * evpl_connection_set_private_data has its place. After an error drop was called, except after misuse. */
EVPL_API evpl_error evpl_connect_each(evpl_loop* loop, const char* url, const evpl_handler* handler, const evpl_factory* factory, int64_t within_ns,
                                      evpl_connection_ref* connection);
EVPL_API evpl_connection_ref evpl_connection_get_ref(const evpl_connection* peer);
/** The connection, null once it is closed. */
EVPL_API evpl_connection* evpl_connection_get(evpl_connection_ref ref);

EVPL_API evpl_loop* evpl_connection_loop(const evpl_connection* peer);
/** The scheme in use; the peer as text. Valid until on_close. */
EVPL_API evpl_text evpl_connection_transport(const evpl_connection* peer);
EVPL_API evpl_text evpl_connection_remote_name(const evpl_connection* peer);
EVPL_API bool evpl_connection_is_open(const evpl_connection* peer);
EVPL_API evpl_address evpl_connection_remote_address(const evpl_connection* peer);
EVPL_API evpl_address evpl_connection_local_address(const evpl_connection* peer);
/** Who is at the other end of a Unix socket. Errors: not_supported, misuse. */
EVPL_API evpl_error evpl_connection_credentials(const evpl_connection* peer, int32_t* pid, uint32_t* uid, uint32_t* gid);
/** A kernel descriptor to look at, -1 when there is none. It stays the library's. */
EVPL_API int evpl_connection_native_fd(const evpl_connection* peer);

/** Unread bytes. */
EVPL_API size_t evpl_connection_available(const evpl_connection* peer);
/** Up to max bytes of what is queued, moved into `chain` (SIZE_MAX: all); empty when there is nothing. Never crosses the end of a
 * message. What the chain held is released. Errors: misuse. */
EVPL_API evpl_error evpl_connection_recv(evpl_connection* peer, size_t max, evpl_chain* chain);
/** Exactly n bytes, or an empty chain while they are not all there. Errors: too_large, end, misuse. */
EVPL_API evpl_error evpl_connection_recv_exactly(evpl_connection* peer, uint32_t n, evpl_chain* chain);
/** Whole messages. Errors: not_supported on a stream without frame, end after the last, misuse. */
EVPL_API bool evpl_connection_has_message(evpl_connection* peer);
EVPL_API evpl_error evpl_connection_recv_message(evpl_connection* peer, evpl_chain* chain);
/** Copies without consuming, answers how many; consume then drops them. */
EVPL_API size_t evpl_connection_peek(const evpl_connection* peer, void* target, size_t room);
EVPL_API evpl_error evpl_connection_consume(evpl_connection* peer, size_t n);
/** The next bytes land in `target` (taken); on_recv comes when it is full, landed gives it back. Errors: misuse. */
EVPL_API evpl_error evpl_connection_recv_into(evpl_connection* peer, evpl_buffer* target);
EVPL_API evpl_error evpl_connection_landed(evpl_connection* peer, evpl_buffer* buffer);
/** A descriptor that came with the bytes read last, -1: none. The caller closes it. */
EVPL_API int evpl_connection_recv_descriptor(evpl_connection* peer);

/** What a send answers: go on, wait for on_writable, or refused for the reason in `error`. */
typedef enum evpl_flow_state { EVPL_GO, EVPL_PAUSE, EVPL_NOT_SENT } evpl_flow_state;
/** An evpl_flow_state with its reason. */
typedef struct evpl_flow {
    uint16_t state; /**< evpl_flow_state */
    uint16_t error; /**< evpl_errc: misuse (closed, shut down, null), send_limit, too_large, out_of_memory, ... */
} evpl_flow;

/** Queues the bytes, which leave at the end of the turn; the chain, buffer or bytes (copied) are taken in every case. */
EVPL_API evpl_flow evpl_connection_send(evpl_connection* peer, evpl_chain* chain);
EVPL_API evpl_flow evpl_connection_send_buffer(evpl_connection* peer, evpl_buffer* buffer);
EVPL_API evpl_flow evpl_connection_send_bytes(evpl_connection* peer, const void* bytes, size_t size);
/** Takes the chain only when it fits below the high-water mark; false: it was not taken. */
EVPL_API bool evpl_connection_try_send(evpl_connection* peer, evpl_chain* chain);
/** Room below the high-water mark; bytes taken and not yet given to the system. */
EVPL_API size_t evpl_connection_send_room(const evpl_connection* peer);
EVPL_API size_t evpl_connection_queued(const evpl_connection* peer);
/** Sends what is queued now. Errors: misuse. Cost: a system call. */
EVPL_API evpl_error evpl_connection_flush(evpl_connection* peer);
/** Sends a duplicate of fd with the bytes (taken). Errors: not_supported, misuse, those of dup(2). */
EVPL_API evpl_error evpl_connection_send_descriptor(evpl_connection* peer, int fd, evpl_chain* chain);

/** Drains the outbox within limit_ns (0: no limit), then ends our direction. Errors: misuse. */
EVPL_API evpl_error evpl_connection_shutdown(evpl_connection* peer, int64_t limit_ns);
/** Drops what is queued and closes; on_close(closed), or with `reason`, follows at the end of the turn. A reason of all zeros means
 * closed. Errors: misuse. */
EVPL_API evpl_error evpl_connection_close(evpl_connection* peer, evpl_error reason);

/** How much may wait in a connection's queues; zero: unchanged. */
typedef struct evpl_queue_limits {
    uint32_t size_bytes; /**< of this struct, as the caller knows it */
    uint32_t receive;    /**< unread bytes that stop reading */
    uint32_t send_low;   /**< on_writable comes at or below */
    uint32_t send_high;  /**< send answers pause from here */
    uint32_t send_hard;  /**< a send past this ends the connection with send_limit */
    uint32_t message;    /**< largest framed message */
} evpl_queue_limits;
EVPL_API evpl_error evpl_connection_limits(const evpl_connection* peer, evpl_queue_limits* limits);
EVPL_API evpl_error evpl_connection_set_limits(evpl_connection* peer, const evpl_queue_limits* limits);
/** It ends with timed_out when no byte arrives, or queued bytes make no progress, for so long; EVPL_FOREVER: off, the default. */
EVPL_API evpl_error evpl_connection_deadline_recv(evpl_connection* peer, int64_t idle_ns);
EVPL_API evpl_error evpl_connection_deadline_send(evpl_connection* peer, int64_t stalled_ns);

/* -- private data: what goes with a connect, an accept or a reject (caps.private_data_bytes_max) --------------------- */

/** What the peer said: with its connect in a listener's factory and later; with its accept, or, in on_close, with its reject at who connected.
 * May be padded with zeros; empty: nothing, or not yet. Valid until the next event of this connection. */
EVPL_API evpl_bytes evpl_connection_private_data(const evpl_connection* peer);
/** What goes with our connect, accept or reject; copied. Only in a factory's build, which at a listener runs before the peer is answered, and
 * rejects by its error. Errors: not_supported, too_large, misuse (later), out_of_memory. */
EVPL_API evpl_error evpl_connection_set_private_data(evpl_connection* peer, const void* bytes, size_t size);

/* -- remote memory ------------------------------------------------------------------------------------------------- */

/** Memory that a peer exposed: plain, may be sent in a message. */
typedef struct evpl_remote_region {
    uint64_t address;    /**< the device's; means nothing here */
    uint64_t key;        /**< the device's */
    uint64_t size_bytes; /**< of the region */
} evpl_remote_region;
enum { EVPL_ACCESS_READ = 1, EVPL_ACCESS_WRITE = 2, EVPL_ACCESS_READ_WRITE = 3, EVPL_ACCESS_ATOMIC = 4 }; /* joined with | */

/** Lets this connection's peer access exactly the buffer (taken) until revoked. Errors: not_supported, misuse, those of registration. */
EVPL_API evpl_error evpl_connection_expose(evpl_connection* peer, evpl_buffer* range, uint8_t access, evpl_remote_region* region);
EVPL_API evpl_error evpl_connection_revoke(evpl_connection* peer, const evpl_remote_region* region);
/** Fills the buffer (taken) from the peer's region at offset, or writes it there; on_completed tells how it ended, once, and gives it
 * back. `id` may be null. Errors: not_supported, misuse. */
EVPL_API evpl_error evpl_connection_read(evpl_connection* peer, const evpl_remote_region* region, uint64_t offset, evpl_buffer* into, uint64_t* id);
EVPL_API evpl_error evpl_connection_write(evpl_connection* peer, const evpl_remote_region* region, uint64_t offset, evpl_buffer* from, uint64_t* id);
/** The same, and then the peer's on_written gets `word`. Errors: as write; not_supported where caps.remote_tells is false. */
EVPL_API evpl_error evpl_connection_write_telling(evpl_connection* peer, const evpl_remote_region* region, uint64_t offset, evpl_buffer* from, uint32_t word,
                                                  uint64_t* id);
/** evpl_connection_send, and the peer's device takes back what the peer has exposed by `key` (caps.remote_invalidate). */
EVPL_API evpl_flow evpl_connection_send_invalidating(evpl_connection* peer, evpl_chain* chain, uint64_t key);
/** The key that the message taken last has taken back; 0: none. */
EVPL_API uint64_t evpl_connection_invalidated_key(const evpl_connection* peer);
/** Adds to 8 bytes of the peer's, a number at a multiple of 8, or makes it `desired` if it is `expected`; evpl_completion_value is what was
 * there before. Errors: not_supported where caps.remote_atomics is false, misuse, out_of_buffers. */
EVPL_API evpl_error evpl_connection_fetch_add(evpl_connection* peer, const evpl_remote_region* region, uint64_t offset, uint64_t add, uint64_t* id);
EVPL_API evpl_error evpl_connection_compare_swap(evpl_connection* peer, const evpl_remote_region* region, uint64_t offset, uint64_t expected, uint64_t desired,
                                                 uint64_t* id);
EVPL_API uint64_t evpl_completion_id(const evpl_completion* done);
/** How the operation ended; misuse for null. */
EVPL_API evpl_error evpl_completion_error(const evpl_completion* done);
/** What was there before an atomic; 0 for others and null. */
EVPL_API uint64_t evpl_completion_value(const evpl_completion* done);
/** Moves the buffer out. Errors: misuse. */
EVPL_API evpl_error evpl_completion_take(evpl_completion* done, evpl_buffer* buffer);

/* -- datagrams ----------------------------------------------------------------------------------------------------- */

/** Opens a socket bound to url (open when this returns), or connected to it. `socket` (may be null) names it.
 * Errors: those of evpl::bind() and evpl::connect_datagram() in datagram.hpp, misuse. */
EVPL_API evpl_error evpl_bind(evpl_loop* loop, const char* url, const evpl_datagram_handler* handler, void* self, evpl_datagram_ref* socket);
EVPL_API evpl_error evpl_connect_datagram(evpl_loop* loop, const char* url, const evpl_datagram_handler* handler, void* self, int64_t within_ns,
                                          evpl_datagram_ref* socket);
EVPL_API evpl_datagram_ref evpl_datagram_get_ref(const evpl_datagram* socket);
EVPL_API evpl_datagram* evpl_datagram_get(evpl_datagram_ref ref);
EVPL_API evpl_loop* evpl_datagram_loop(const evpl_datagram* socket);
/** The scheme in use; the URL as really bound. Valid until on_close. */
EVPL_API evpl_text evpl_datagram_transport(const evpl_datagram* socket);
EVPL_API evpl_text evpl_datagram_url(const evpl_datagram* socket);
EVPL_API bool evpl_datagram_is_open(const evpl_datagram* socket);
EVPL_API evpl_address evpl_datagram_local_address(const evpl_datagram* socket);
EVPL_API evpl_address evpl_datagram_remote_address(const evpl_datagram* socket);
EVPL_API int evpl_datagram_native_fd(const evpl_datagram* socket);
EVPL_API bool evpl_datagram_has_packet(const evpl_datagram* socket);
/** The next datagram: true when there was one. `bytes` gets it (what it held is released); from, to and truncated may be null. */
EVPL_API bool evpl_datagram_recv(evpl_datagram* socket, evpl_buffer* bytes, evpl_address* from, evpl_address* to, bool* truncated);
/** Queues one datagram (buffer taken in every case, bytes copied); `to` null: the connected peer. */
EVPL_API evpl_flow evpl_datagram_send(evpl_datagram* socket, const evpl_address* to, evpl_buffer* bytes);
EVPL_API evpl_flow evpl_datagram_send_bytes(evpl_datagram* socket, const evpl_address* to, const void* bytes, size_t size);
EVPL_API size_t evpl_datagram_queued(const evpl_datagram* socket);
EVPL_API evpl_error evpl_datagram_flush(evpl_datagram* socket);
/** Joins or leaves a multicast group; `interface` may be null: the system's choice. Errors: not_supported, setsockopt(2), misuse. */
EVPL_API evpl_error evpl_datagram_join(evpl_datagram* socket, const evpl_address* group, const evpl_address* interface);
EVPL_API evpl_error evpl_datagram_leave(evpl_datagram* socket, const evpl_address* group, const evpl_address* interface);
EVPL_API evpl_error evpl_datagram_limits(const evpl_datagram* socket, evpl_queue_limits* limits);
EVPL_API evpl_error evpl_datagram_set_limits(evpl_datagram* socket, const evpl_queue_limits* limits);
/** Drops what is queued; on_close(closed) follows at the end of the turn. */
EVPL_API evpl_error evpl_datagram_close(evpl_datagram* socket);

/* -- threads ------------------------------------------------------------------------------------------------------- */

/** How a thread runs its loop. Zero: the default. */
typedef struct evpl_thread_options {
    uint32_t size_bytes;           /**< of this struct, as the caller knows it */
    uint32_t cpu_plus_one;         /**< pin to this CPU, counted from 1; 0: not pinned */
    const evpl_loop_options* loop; /**< may be null */
    const char* name;              /**< first 15 bytes, copied */
} evpl_thread_options;

/** Starts a thread, returns when its loop runs; options may be null. Errors: out_of_memory, bad_option, too_many_files, misuse. Thread: any. */
EVPL_API evpl_error evpl_thread_start(const evpl_thread_options* options, evpl_thread** thread);
/** Its loop, while the thread runs: only evpl_loop_stop and evpl_loop_get_ref from elsewhere. Thread: any. */
EVPL_API evpl_loop* evpl_thread_loop(const evpl_thread* thread);
/** Runs run(context) on the thread and waits for it. Errors: loop_ended, misuse (from the thread itself). Thread: any. */
EVPL_API evpl_error evpl_thread_run(evpl_thread* thread, void (*run)(void* context), void* context);
/** Asks it to end, draining up to drain_ns. Thread: any. */
EVPL_API evpl_error evpl_thread_stop(evpl_thread* thread, int64_t drain_ns);
/** Waits until it has ended. Errors: misuse (null, from the thread itself). */
EVPL_API evpl_error evpl_thread_join(evpl_thread* thread);
/** Stops at once, joins, frees. Errors: misuse (null, freed before, from the thread itself). */
EVPL_API evpl_error evpl_thread_free(evpl_thread* thread);

typedef enum evpl_spread { EVPL_SPREAD_AUTOMATIC, EVPL_SHARE_PORT, EVPL_HAND_OUT } evpl_spread; /**< see thread_pool.hpp */

/** How the threads of a pool run their loops. Zero: the default. */
typedef struct evpl_pool_options {
    uint32_t size_bytes;           /**< of this struct, as the caller knows it */
    uint32_t threads;              /**< 0: one per CPU this process may use */
    const evpl_loop_options* loop; /**< may be null */
    const char* name;              /**< threads are called "name-0", ...; first 10 bytes, copied */
    const int* cpus;               /**< pin to these, in turn; null: see pin */
    uint32_t cpu_count;            /**< of cpus */
    bool pin;                      /**< pin thread i to the i-th CPU this process may use */
} evpl_pool_options;

/** Starts the threads; options may be null. A pool is owned and called by one thread. Errors: as evpl_thread_start. */
EVPL_API evpl_error evpl_pool_start(const evpl_pool_options* options, evpl_pool** pool);
EVPL_API uint32_t evpl_pool_size(const evpl_pool* pool);
/** Loop i, null beyond the last: only evpl_loop_stop and evpl_loop_get_ref from elsewhere. */
EVPL_API evpl_loop* evpl_pool_loop(const evpl_pool* pool, uint32_t i);
/** Builds an object on every thread and returns when all are there; destroy (may be null) gets each on its thread when the pool stops.
 * Make all before the pool listens. Errors: out_of_memory, misuse (null, stopped). */
EVPL_API evpl_error evpl_pool_local(evpl_pool* pool, void* (*make)(void* context, evpl_loop* loop), void* context, void (*destroy)(void* object),
                                    evpl_local** local);
/** The object of the thread that runs `loop`; null for a loop of another pool. Thread: that loop's. Cost: a scan of the pool's threads. */
EVPL_API void* evpl_local_of(const evpl_local* local, const evpl_loop* loop);
/** Listens on the pool's threads; factory's build runs on them, concurrently. Give either a factory or a self shared by all threads.
 * Errors: as evpl_listen_each. */
EVPL_API evpl_error evpl_pool_listen(evpl_pool* pool, const char* url, const evpl_handler* handler, const evpl_factory* factory, void* self, uint32_t spread,
                                     evpl_pool_listener** listener);
EVPL_API evpl_text evpl_pool_listener_url(const evpl_pool_listener* listener);
EVPL_API uint16_t evpl_pool_listener_port(const evpl_pool_listener* listener);
/** As evpl_listener_hand_over; -1 also where each thread has a socket of its own. */
EVPL_API int evpl_pool_listener_hand_over(evpl_pool_listener* listener);
/** Stops accepting on all threads and frees. Before evpl_pool_free. Errors: misuse. */
EVPL_API evpl_error evpl_pool_listener_free(evpl_pool_listener* listener);
/** One sentence about the last listen that failed. */
EVPL_API evpl_text evpl_pool_last_failure(const evpl_pool* pool);
/** Stops accepting, drains up to drain_ns, closes what is left, joins. Twice is nothing. Errors: misuse (null, from a thread of its own). */
EVPL_API evpl_error evpl_pool_stop(evpl_pool* pool, int64_t drain_ns);
/** Stops at once and frees, its listeners too. Errors: misuse. */
EVPL_API evpl_error evpl_pool_free(evpl_pool* pool);

/* -- looking ------------------------------------------------------------------------------------------------------- */

/** Counters of a loop since it was made. */
typedef struct evpl_loop_metrics {
    uint32_t size_bytes;        /**< of this struct, as the caller knows it */
    uint32_t reserved;          /**< zero */
    uint64_t turns;             /**< rounds of polling, waiting and calling back */
    uint64_t empty_polls;       /**< turns that found nothing to do */
    uint64_t sleeps;            /**< waits in the kernel */
    uint64_t busy_ns;           /**< time in turns that did something; excludes empty polling and sleep */
    uint64_t doorbell_writes;   /**< system calls that woke another loop */
    uint64_t posts_run;         /**< tasks from post() */
    uint64_t timers_fired;      /**< callbacks of timers */
    uint64_t received_bytes;    /**< by all connections and sockets */
    uint64_t sent_bytes;        /**< given to the system or device */
    uint64_t received_messages; /**< deliveries: reads, messages or datagrams */
    uint64_t flushes;           /**< times that an outbox was given to a port */
    uint64_t accepted;          /**< connections from listeners */
    uint64_t closed;            /**< connections that had their on_close */
    uint64_t connections_open;  /**< now, not since the start */
    uint64_t accept_pauses;     /**< out of descriptors or memory: accepting waited */
    uint64_t stalls;            /**< turns longer than LoopOptions::stall */
    uint64_t longest_turn_ns;   /**< callbacks included, sleep excluded */
    uint64_t compacted_bytes;   /**< copied so that a small slice does not pin a large block */
    uint64_t buffers_out;       /**< blocks in use */
    uint64_t slab_bytes;        /**< memory held by this loop */
    uint64_t fallbacks;         /**< connects and listeners that the kernel serves because their own device cannot */
} evpl_loop_metrics;
/** Counters of a listener since it was made. */
typedef struct evpl_listener_metrics {
    uint32_t size_bytes;    /**< of this struct, as the caller knows it */
    uint32_t reserved;      /**< zero */
    uint64_t accepted;      /**< connections that opened */
    uint64_t refused;       /**< by the factory or for lack of memory */
    uint64_t open;          /**< now */
    uint64_t accept_pauses; /**< out of descriptors or memory */
} evpl_listener_metrics;
/** Counters of a connection since it was made. */
typedef struct evpl_connection_metrics {
    uint32_t size_bytes;     /**< of this struct, as the caller knows it */
    uint32_t reserved;       /**< zero */
    uint64_t received_bytes; /**< since it opened */
    uint64_t sent_bytes;     /**< given to the system or device */
    uint64_t queued_bytes;   /**< in the outbox now */
    uint64_t unread_bytes;   /**< in the inbox now */
    uint64_t pinned_bytes;   /**< of the blocks that unread bytes hold */
    uint64_t receive_pauses; /**< times that reading stopped at limits().receive */
    uint64_t send_pauses;    /**< times that the high-water mark was reached */
} evpl_connection_metrics;
/** Counters of a datagram socket since it was made. */
typedef struct evpl_datagram_metrics {
    uint32_t size_bytes;        /**< of this struct, as the caller knows it */
    uint32_t reserved;          /**< zero */
    uint64_t received_packets;  /**< delivered to the inbox */
    uint64_t received_bytes;    /**< of these */
    uint64_t sent_packets;      /**< given to the system */
    uint64_t sent_bytes;        /**< of these */
    uint64_t dropped_packets;   /**< refused at the hard limit, or unread beyond the receive limit */
    uint64_t truncated_packets; /**< larger than a receive block */
    uint64_t send_errors;       /**< told by on_error */
} evpl_datagram_metrics;
/** Fill as much as size_bytes holds. Errors: misuse (null, size_bytes below 8). */
EVPL_API evpl_error evpl_loop_get_metrics(const evpl_loop* loop, evpl_loop_metrics* metrics);
EVPL_API evpl_error evpl_listener_get_metrics(const evpl_listener* listener, evpl_listener_metrics* metrics);
EVPL_API evpl_error evpl_connection_get_metrics(const evpl_connection* peer, evpl_connection_metrics* metrics);
EVPL_API evpl_error evpl_datagram_get_metrics(const evpl_datagram* socket, evpl_datagram_metrics* metrics);

typedef enum evpl_kind { EVPL_STREAM, EVPL_MESSAGE, EVPL_DATAGRAM } evpl_kind;
/** What a link can do; meanings: Caps in transport_info.hpp. */
typedef struct evpl_caps {
    uint32_t size_bytes;             /**< of this struct, as the caller knows it */
    uint32_t kind;                   /**< evpl_kind */
    uint32_t message_bytes_max;      /**< message, datagram: the largest one; 0 on streams */
    uint32_t inline_bytes_max;       /**< up to here: copied into the work request */
    uint32_t copy_bytes_max;         /**< up to here: copied into a registered block; beyond: by reference */
    bool half_close;                 /**< shutdown() ends one direction, the other goes on */
    bool receive_pause;              /**< a reader that does not read stops the sender; else receive_limit ends the link */
    bool rma;                        /**< remote memory: expose, read, write */
    bool descriptors;                /**< descriptor passing */
    bool credentials;                /**< peer credentials */
    bool multicast;                  /**< groups can be joined */
    bool segmentation;               /**< equal-size datagrams to one peer leave and arrive in batches (GSO, GRO) */
    bool zero_copy_send;             /**< large sends leave by reference */
    bool zero_copy_receive;          /**< received bytes reach the application without a copy in user space */
    bool simulated_time;             /**< lives in virtual time (the simulated port) */
    bool remote_atomics;             /**< numbers in remote memory can be changed */
    bool remote_tells;               /**< a write to remote memory may tell the peer: evpl_connection_write_telling */
    bool remote_invalidate;          /**< a message may take back what its receiver exposed */
    uint32_t private_data_bytes_max; /**< of what may go with connect, accept or reject; 0: nothing */
    uint32_t remote_reads_max;       /**< reads and atomics that the peer serves at a time; 0: not limited, or no rma */
} evpl_caps;
EVPL_API evpl_error evpl_connection_caps(const evpl_connection* peer, evpl_caps* caps);
EVPL_API evpl_error evpl_datagram_caps(const evpl_datagram* socket, evpl_caps* caps);

/** One transport of this library on this machine; views are valid for ever. */
typedef struct evpl_transport_info {
    uint32_t size_bytes; /**< of this struct, as the caller knows it */
    bool present;        /**< on this machine */
    evpl_text scheme;    /**< "tcp" */
    evpl_text summary;   /**< one line: what it is */
    evpl_text reason;    /**< why it is absent, or what it found */
    evpl_text remedy;    /**< what would make it present; empty when present */
} evpl_transport_info;
/** How many transports the library knows, and what is known of number i. Errors: misuse (beyond the last). Thread: any.
 * Cost: the first call probes, milliseconds. */
EVPL_API size_t evpl_transport_count(void);
EVPL_API evpl_error evpl_transport_get(size_t i, evpl_transport_info* info);
EVPL_API evpl_error evpl_transport_caps(size_t i, evpl_caps* caps);

typedef enum evpl_log_level { EVPL_LOG_DEBUG, EVPL_LOG_INFO, EVPL_LOG_WARNING, EVPL_LOG_ERROR } evpl_log_level;
/** Receives one line, from any thread; must not call back into the library. */
typedef void (*evpl_log_sink)(void* context, uint8_t level, evpl_text line);
/** Sets the process's log sink (null: silence, the default) and the least level that reaches it. Errors: out_of_memory, misuse (no such
 * level). Thread: any; lines under way may still reach the old sink. */
EVPL_API evpl_error evpl_set_log(evpl_log_sink sink, void* context, uint8_t least);

#ifdef __cplusplus
}
#endif
#endif
