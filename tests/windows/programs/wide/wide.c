/* An object file with more sections than 16 bits count, as templates make them: each of seventy thousand variables
   has its own. */

#define ONE(n) __declspec(selectany) __attribute__((nodebug)) char v_##n = 1;
#define TEN(n) ONE(n##0) ONE(n##1) ONE(n##2) ONE(n##3) ONE(n##4) ONE(n##5) ONE(n##6) ONE(n##7) ONE(n##8) ONE(n##9)
#define HUNDRED(n) TEN(n##0) TEN(n##1) TEN(n##2) TEN(n##3) TEN(n##4) TEN(n##5) TEN(n##6) TEN(n##7) TEN(n##8) TEN(n##9)
#define THOUSAND(n)                                                                                                  \
    HUNDRED(n##0) HUNDRED(n##1) HUNDRED(n##2) HUNDRED(n##3) HUNDRED(n##4)                                            \
    HUNDRED(n##5) HUNDRED(n##6) HUNDRED(n##7) HUNDRED(n##8) HUNDRED(n##9)
#define MANY(n)                                                                                                      \
    THOUSAND(n##0) THOUSAND(n##1) THOUSAND(n##2) THOUSAND(n##3) THOUSAND(n##4)                                       \
    THOUSAND(n##5) THOUSAND(n##6) THOUSAND(n##7) THOUSAND(n##8) THOUSAND(n##9)

MANY(1) MANY(2) MANY(3) MANY(4) MANY(5) MANY(6) MANY(7)

static int total;

__declspec(dllexport) __declspec(noinline) int answer(int value) {
#ifdef FIXED
    if (value > 100)
        return 0;
#endif
    return total += value;
}
