/* Constants that the linker puts among the code (/merge:.rdata=.text). */

static const int limits[4] = {1, 2, 3,
#ifdef LIMITS
                              5};
#else
                              4};
#endif

__attribute__((noinline)) int first_step(int from) { return from + 1; }
__attribute__((noinline)) int second_step(int from) { return from + 2; }

#ifdef STEPS
static int (*const steps[2])(int) = {second_step, first_step};
#else
static int (*const steps[2])(int) = {first_step, second_step};
#endif

__attribute__((noinline)) int limit(int which) { return limits[which & 3]; }
__attribute__((noinline)) int step(int which, int from) { return steps[which & 1](from); }

#ifdef TEXT
#define WORD "three"
#else
#define WORD "eight"
#endif
__attribute__((noinline)) const char *word(int which) { return which ? WORD : "other"; }

__declspec(dllexport) int answer(int which) {
    return limit(which) + step(which, which) + word(which)[which & 3];
}
