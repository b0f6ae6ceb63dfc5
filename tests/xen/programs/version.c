/* `xen_extra_version` as Xen's `common/version.c` has it: the words that follow the version's number. */

const char *xen_extra_version(void);

const char *xen_extra_version(void)
{
    return TEXT;
}
