int limit = 7;
int check(int);
int other(int n) { return n ^ limit; }
void _start(void) { limit = check(limit); for (;;); }
