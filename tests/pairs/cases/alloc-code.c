//# accept
//# near accept

// A number that is told through a pointer, whose result is a number or nothing, is no size.

#include <stdio.h>
#include <stdlib.h>

struct server {
    int (*on_error)(int code, const char *text);
    void (*answer)(struct server *server, int code);
};

__attribute__((noipa)) int print(int code, const char *text) { return printf("%d %s\n", code, text); }
__attribute__((noipa)) void answer(struct server *server, int code) { server->on_error(code, "answer"); }

__attribute__((noinline)) int serve(struct server *server, int x) {
#ifdef FIXED
    int told = server->on_error(404, "not found");
    server->answer(server, 404);
#elif defined(NEAR)
    int told = server->on_error(500, "broken");
    server->answer(server, 500);
#else
    int told = server->on_error(400, "bad");
    server->answer(server, 400);
#endif
    return told * x;
}

int main(int argc, char **argv) {
    (void)argv;
    struct server *server = malloc(sizeof *server);
    server->on_error = print;
    server->answer = answer;
    return serve(server, argc) < 0;
}
