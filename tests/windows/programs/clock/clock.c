/* What stands for a library of Windows: two functions that may be imported as one, and who asked which. */

static unsigned asked, asked_other;

__declspec(dllexport) unsigned tick(void) {
    asked++;
    return 1;
}
__declspec(dllexport) unsigned other_tick(void) {
    asked_other++;
    return 1;
}

__declspec(dllexport) unsigned get_asked(void) { return asked; }
__declspec(dllexport) unsigned get_asked_other(void) { return asked_other; }
