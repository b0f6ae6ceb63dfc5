#include "../service/twice.c"
