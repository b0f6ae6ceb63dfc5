//# refuse R-RESUME worker
//# near accept
// The place at which a call waits is kept in the heap, and is one of the old version.
#include <stdio.h>
#include <stdlib.h>
struct task {
    void *next;
    int n;
};
#ifdef FIXED
#define ROOM 512
#else
#define ROOM 256
#endif
#ifdef NEAR
#define TOLD "near %d\n"
#else
#define TOLD "%d\n"
#endif
__attribute__((noinline)) void use(char *p, int n) {
    p[0] = (char)n;
}
__attribute__((noinline)) int worker(struct task *task, int in) {
    char room[ROOM];
    use(room, ROOM);
    if (task->next)
        goto *task->next;
    for (;;) {
        task->next = &&again;
        return task->n;
    again:
        task->n += in;
        use(room, in);
        task->next = &&other;
        return task->n * 2;
    other:
        task->n += 2 * in;
        use(room, task->n);
    }
}
int main(void) {
    struct task *task = calloc(1, sizeof *task);
    for (int n = 0; n < 9; n++)
        printf(TOLD, worker(task, 1));
}
