//# refuse R-LAYOUT parse::sw_end
//# refuse R-LAYOUT kind
//# near accept

// A state lives in an int; one in the middle is new, so that the next has another number. So has a value of an enumeration that
// no variable of new code has. Near: the new one is at the end, and what counts the values of a file counts one more.
#include <stdio.h>
#include <stdlib.h>

struct request {
    int state, kind;
    const char *at;
};

enum kind {
    plain,
#ifdef FIXED
    packed,
#endif
    coded,
    other,
#ifdef NEAR
    packed,
#endif
    all_kinds
};

__attribute__((noinline)) int parse(struct request *r, int limit) {
    enum {
        sw_start,
        sw_uri,
#ifdef FIXED
        sw_space,
#endif
        sw_end,
#ifdef NEAR
        sw_space,
#endif
    } state;
    state = r->state;
    for (; *r->at && limit; r->at++, limit--) {
        switch (state) {
        case sw_start:
            state = *r->at == '/' ? sw_uri : sw_start;
            break;
        case sw_uri:
#if defined(FIXED) || defined(NEAR)
            state = *r->at == ' ' ? sw_space : sw_uri;
            break;
        case sw_space:
            state = *r->at == ' ' ? sw_space : sw_end;
#else
            state = *r->at == ' ' ? sw_end : sw_uri;
#endif
            break;
        case sw_end:
            return 1;
        }
    }
    r->state = state;
    return r->kind == coded ? 2 : r->kind == other ? 3 : 0;
}

int main(int argc, char **argv) {
    struct request *r = calloc(1, 64);
    r->at = argv[0];
    return printf("%d\n", parse(r, argc)) < 0;
}
