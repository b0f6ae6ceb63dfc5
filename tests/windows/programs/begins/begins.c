/* Functions whose begin has no room for a jump: something leads back to right behind a short first
 * instruction, or the loader changes what is there. One long instruction further on can be
 * replaced, before which nothing that the fix changed is done. */

#define EXPORT __declspec(dllexport)
#define ALONE __declspec(noinline)

#ifdef FIXED
#define TIMES 2000
#define ADD 1
#else
#define TIMES 1000
#define ADD 0
#endif
static int helped;
ALONE int help(int value) {
    helped++;
    return value * 16;
}
EXPORT int get_helped(int value) { return helped + (value & 0); }

/* A loop, and then the mistake. */
EXPORT ALONE unsigned digits(unsigned value) {
    unsigned sum = 0;
    do {
        sum += value % 4;
        value /= 4;
#ifdef INSIDE
        /* Old code would come by with what it made in the rounds before. */
        sum *= TIMES;
#endif
    } while (value);
#ifndef INSIDE
    sum *= TIMES;
#endif
    return sum;
}

#ifdef __i386__
/* The first instruction holds an address. */
static int scale = 2;
EXPORT ALONE int scaled(int value) { return (scale + value) * TIMES; }

/* What is long enough is a call. */
EXPORT ALONE int asked(int value) {
    int answer = help(scale + value);
    return answer + 3 + ADD;
}
EXPORT int set_scale(int value) { return scale = value; }
#endif

/* Its begin has room, too. */
EXPORT ALONE int both(int value) {
    int answer = help(value);
    return answer + 3 + ADD;
}

#ifdef INSIDE
/* Another one with unwind data. */
EXPORT ALONE int twice(int value) { return help(value) + help(value + 1); }
#endif
