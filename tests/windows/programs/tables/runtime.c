#include "../service/runtime.c"

/* The table of std::type_info, which descriptions of types begin with. */
static void nothing(void) {}
void *type_info[2] __asm__("??_7type_info@@6B@") = {(void *)nothing, (void *)nothing};
