#include "../bare/runtime.c"
