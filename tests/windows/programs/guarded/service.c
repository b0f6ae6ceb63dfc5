#include "../service/service.c"
