//# flags -fcf-protection=none
//# note R-HOOK last
//# accept
//# near accept

// A loop of the function leads to its first byte, where the hook will be. Near: its caller is replaced instead.
#include <stdio.h>

struct node {
    struct node *next;
    int value;
};

__attribute__((noinline, noclone)) int last(struct node *node) {
    struct node *last;
    do {
        last = node;
        node = node->next;
    } while (node);
#ifdef FIXED
    return last->value + 1000;
#else
    return last->value;
#endif
}

__attribute__((noinline)) int answer(struct node *node) {
#ifdef NEAR
    return last(node) * 5 + 1;
#else
    return last(node) * 5;
#endif
}

int main(int argc, char **argv) {
    struct node two = {0, argc}, one = {&two, 0};
    (void)argv;
    printf("%d\n", answer(&one));
    return 0;
}
