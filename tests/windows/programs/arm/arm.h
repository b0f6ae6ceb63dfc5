/* Code of each sort whose meaning depends on where it is, on ARM64. */
typedef struct {
    int first;
    int second;
    const char *name;
} record;

extern record records[4];
extern int total;
extern int near_page[1024], far_page[1024];
int twice(int value);
int thrice(int value);
