// Loads a libxlio and asks for its function table, in a process of its own: some set-ups make the library end whoever loads it.
// usage: evpl-xlio-probe LIBRARY; exits with 0 when the loader may try.
#include <dlfcn.h>
#include <sys/socket.h>

int main(int argc, char** argv) {
    if (argc != 2) return 2;
    void* const library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return 0;  // the loader says why itself, in words
    using Ask = int(int, int, int, void*, socklen_t*);
    auto* const ask = reinterpret_cast<Ask*>(dlsym(library, "getsockopt"));
    const void* table = nullptr;
    socklen_t size = sizeof table;
    constexpr int api_descriptor = -2, get_api = 2800;
    if (ask != nullptr) (void)ask(api_descriptor, SOL_SOCKET, get_api, &table, &size);
    return 0;
}
