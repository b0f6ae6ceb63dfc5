/* Where a library begins. */
void initialize(void);
extern const char _tls_used[], _load_config_used[];
const void *const keep[] = {_tls_used, _load_config_used};

int __stdcall _DllMainCRTStartup(void *library, unsigned reason, void *reserved) {
    (void)library, (void)reserved;
    if (reason == 1)
        initialize();
    return 1;
}
