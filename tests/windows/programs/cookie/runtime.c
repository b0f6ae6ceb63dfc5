#include "../service/runtime.c"
