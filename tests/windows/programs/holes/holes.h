/* What compilers for hot patching get wrong. Each hole is chosen by a word for the compiler, and with
 * NEAR the same is done in a way that they get right. */
#ifdef FIXED
#define MORE 1000
#else
#define MORE 0
#endif

extern int first, second, seen;
int others(int n);
