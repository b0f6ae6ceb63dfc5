/* A program of two functions whose debug data lie in files of their own. */
struct state { int count; struct state *next; };
static struct state state;

static inline int inner(struct state *at, int more) { return at->count += more; }

__attribute__((noinline)) int outer(int more) { return inner(&state, more) * 3; }

void _start(void) {
    outer(2);
    for (;;)
        ;
}
