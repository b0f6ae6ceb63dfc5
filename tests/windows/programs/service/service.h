/* A small service: it keeps state that must survive a hot patch. */
typedef struct {
    int requests;
    const char *name;
    int *total;
#ifdef GROWN
    int longest;
#endif
} state;

extern state service_state;
extern int total;
int twice(int value);
