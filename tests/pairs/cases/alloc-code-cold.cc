//# accept
//# near accept

// A code is told through a pointer, and then the function may go on in its cold part: what was told is no size for that.
#include <cstdio>
#include <stdexcept>

struct Server {
    virtual void tell(int code) { std::printf("%d\n", code); }
    virtual ~Server() = default;
};

__attribute__((noipa)) int serve(Server *server, int x, int y) {
#ifdef FIXED
    server->tell(408);
#elif defined(NEAR)
    server->tell(416);
#else
    server->tell(400);
#endif
    if (x > y)
        throw std::runtime_error("too many");
    return x + y;
}

int main(int argc, char **argv) {
    (void)argv;
    Server server;
    return serve(&server, argc, argc + 1) < 0;
}
