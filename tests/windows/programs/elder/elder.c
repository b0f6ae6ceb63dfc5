/* What code for x86 is like: addresses in operands, arguments on the stack and in registers, tables
 * of addresses, frame pointers. */

#define EXPORT __declspec(dllexport)
#define ALONE __declspec(noinline)

#ifdef FIXED
#define ADD 1
/* Only the fixed build has them; others make room for the first. */
int early = 1;
static int repairs;
#elif defined(SECOND)
/* A fix of the fix, which leaves one function as it was. */
#define ADD 2
#else
#define ADD 0
#endif

int before[3] = {1, 2, 3};
#ifdef BETWEEN
int between[4] = {1, 2, 3, 4};
#endif
int table[8] = {10, 20, 30, 40, 50, 60, 70, 80};
static int calls;
static const char *last = "nobody";
struct pair {
    char kind;
    int value;
} pair = {1, 5};

/* Unchanged, with state of their own, called in three ways. */
static int helped;
ALONE int help(int value) {
    helped++;
    return value * 16;
}
ALONE int __stdcall help_std(int value, int other) {
    helped++;
    return value - other;
}
ALONE int __fastcall help_fast(int value, int other) {
    helped++;
    return value + other;
}
EXPORT int get_helped(int value) { return helped + (value & 0); }
EXPORT int get_calls(int value) { return calls + (value & 0); }
EXPORT int get_pair(int value) { return pair.value + (value & 0); }
EXPORT int get_last(int value) { return last[value]; }

EXPORT int answer(int value);
/* A constant that leads to what changed, and to what did not. */
typedef int (*function)(int);
const function functions[3] = {help, answer, get_pair};
/* A variable that does. */
function current = answer;

/* The one with the mistake. */
EXPORT ALONE int answer(int value) {
    static int rounds = 7;
    calls++;
    rounds += 2;
    pair.value = rounds;
    last = "answer";
    int sum = help(value) + help_std(value, 3) + help_fast(value, 4);
#ifdef FIXED
    if (value > 1000) {
        repairs++;
        return -repairs;
    }
#endif
#ifdef FIXED
    sum += early;
#endif
#ifdef BETWEEN
    sum += between[0] & 0;
#endif
    return sum + table[(value & 3)] + before[value & 1];
}

/* Its cases are a table of addresses. */
EXPORT ALONE int choose(int value) {
    switch (value & 7) {
    case 0:
        return help(1);
    case 1:
        return help_std(5, calls);
    case 2:
        return help_fast(6, table[2]) + ADD;
    case 3:
        calls += 3;
        return before[1];
    case 4:
        return pair.kind;
    case 5:
        return -7;
    case 6:
        return (int)(value * 1.5);
    default:
        last = "choose";
        return 99;
    }
}

/* Gives addresses of functions away. */
EXPORT ALONE int keep(int value) {
    current = value & 1 ? answer : help;
    return functions[value & 1](value) + ADD;
}
EXPORT ALONE int call_kept(int value) { return current(value); }

/* Their tables are between the instructions, as other compilers of then wrote them. */
#define LEAP(value)                                                                                \
    __asm__ volatile("andl $3, %0\n\tjmp *1f(,%0,4)\n\t.p2align 2, 0x90\n1:\t.long 2f, 3f, 4f, 5f\n"  \
                     "2:\tmovl $10, %0\n\tjmp 6f\n3:\tmovl $20, %0\n\tjmp 6f\n"                    \
                     "4:\tmovl $30, %0\n\tjmp 6f\n5:\tmovl $40, %0\n6:"                            \
                     : "+r"(value))
EXPORT ALONE int leap(int value) {
    LEAP(value);
    return value + ADD;
}
EXPORT ALONE int leap_as_before(int value) {
    LEAP(value);
    return value;
}

#ifdef COUNTED
/* Counts from one: the address in the code is one before the table. */
EXPORT ALONE int count_from_one(int value) { return table[value - 1] * 3 + ADD; }
#endif

#ifdef HANDLERS
EXPORT ALONE int guarded(int value) {
    __asm__ volatile("movl %%fs:0, %%eax" ::: "eax");
    return value + ADD;
}
#endif

#ifdef THREADS
EXPORT ALONE int of_thread(int value) {
    int *blocks;
    __asm__ volatile("movl %%fs:0x2c, %0" : "=r"(blocks));
    return blocks[0] + value + ADD;
}
#endif

#ifdef CONVENTION
/* Who calls it in the old way takes its argument from the stack himself. */
ALONE int __stdcall changed(int value) { return value ^ 5; }
#else
ALONE int changed(int value) { return value ^ 5; }
#endif
EXPORT ALONE int through(int value) { return changed(value) + 1; }
#ifdef KEPT
EXPORT int (*keeper)(int) = (int (*)(int))changed;
#endif
