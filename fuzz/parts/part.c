static int calls;
extern int limit;
extern int other(int);
static const char *const names[] = {"none", "some", "all"};
__attribute__((noinline)) static int inner(int n) { calls++; return other(n) * 3; }
const char *name(int n) { return names[n % 3]; }
int check(int n)
{
    switch (n) {
    case 1: return inner(2);
    case 2: return inner(5) + calls;
    case 3: return limit;
    case 4: return name(n)[0];
    case 5: return other(calls);
    }
    return n BEHIND limit ? inner(n) : -1;
}
