/* Where a program begins. */
__declspec(dllimport) void __stdcall ExitProcess(unsigned);
int main(int, char **);
void initialize(void);
extern const char _tls_used[], _load_config_used[];
const void *const keep[] = {_tls_used, _load_config_used};

void mainCRTStartup(void) {
    char *arguments[2] = {"program", 0};
    initialize();
    ExitProcess((unsigned)main(1, arguments));
}
