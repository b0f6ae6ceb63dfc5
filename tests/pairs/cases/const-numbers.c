//# note R-CONST http
//# accept
//# near accept
// Sessions that were opened before hold the address of the base's numbers. A fix may well leave them theirs, but a person
// should know.
#include <stdio.h>
#include <stdlib.h>
struct limits {
    int body, head, lines;
};
#ifdef FIXED
static const struct limits http = {1000, 10, 5};
#else
static const struct limits http = {1000000, 10, 5};
#endif
static const struct limits other = {1, 2, 3};
struct session {
    const struct limits *limits;
} *session;
__attribute__((noinline)) struct session *open_session(int kind) {
    struct session *opened = malloc(sizeof *opened);
    opened->limits = kind ? &http : &other;
    return opened;
}
__attribute__((noinline)) int accepts(struct session *of, int size) {
    return size <= of->limits->body;
}
int main(int count, char **words) {
    (void)words;
    session = open_session(count);
#ifdef NEAR
    puts("near");
#endif
    printf("%d\n", accepts(session, 50000));
}
