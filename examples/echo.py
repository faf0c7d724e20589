# Sends back what comes, in Python through ctypes: echo.py PATH-OF-LIBEVPL.SO [URL]
import ctypes as c
import sys

evpl = c.CDLL(sys.argv[1])
Event = c.CFUNCTYPE(None, c.c_void_p, c.c_void_p)
Error = type("Error", (c.Structure,), {"_fields_": [("code", c.c_uint16), ("step", c.c_uint8), ("who", c.c_uint8), ("os", c.c_int32)]})
Handler = type("Handler", (c.Structure,), {"_fields_": [("size_bytes", c.c_uint32), ("on_open", Event), ("on_recv", Event), ("on_writable", Event)]})
evpl.evpl_loop_new.restype = evpl.evpl_listen.restype = Error
evpl.evpl_connection_send_room.restype = c.c_size_t


@Event
def pass_on(_, peer):  # pulls only what it can pass on
    chain = (c.c_uint64 * 20)()
    evpl.evpl_connection_recv(c.c_void_p(peer), c.c_size_t(evpl.evpl_connection_send_room(c.c_void_p(peer))), chain)
    evpl.evpl_connection_send(c.c_void_p(peer), chain)  # the same slices go back


loop, listener = c.c_void_p(), c.c_void_p()
echo = Handler(c.sizeof(Handler), on_recv=pass_on, on_writable=pass_on)  # on_close and others are absent: the library knows by the size
evpl.evpl_loop_new(None, c.byref(loop))
error = evpl.evpl_listen(loop, (sys.argv[2] if len(sys.argv) > 2 else "tcp://127.0.0.1:7000").encode(), c.byref(echo), None, c.byref(listener))
sys.exit(evpl.evpl_complain(loop, error) if error.code else evpl.evpl_loop_run_until_signal(loop))
