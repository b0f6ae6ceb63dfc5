//# accept
//# near accept

// As OpenSSL asks: zeroed memory in the place of memory that was not, of a size that is not constant, in another line.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((noipa)) char *CRYPTO_malloc(size_t size, const char *file, int line) {
    return line ? malloc(size) : (char *)file;
}
__attribute__((noipa)) char *CRYPTO_zalloc(size_t size, const char *file, int line) {
    char *made = CRYPTO_malloc(size, file, line);
    return made ? memset(made, 0, size) : NULL;
}

__attribute__((noinline)) char *make(size_t size) {
#ifdef FIXED
    if (size > 4000)
        return NULL;
    return CRYPTO_zalloc(size, __FILE__, __LINE__);
#elif defined(NEAR)
    return CRYPTO_malloc(size + 1, __FILE__, __LINE__);
#else
    return CRYPTO_malloc(size, __FILE__, __LINE__);
#endif
}

int main(int argc, char **argv) {
    (void)argv;
    char *first = CRYPTO_zalloc(64, __FILE__, __LINE__);
    return printf("%d%d\n", make((size_t)argc)[0], first[0]) < 0;
}
