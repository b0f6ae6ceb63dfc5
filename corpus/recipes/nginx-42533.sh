# nginx 1.22: CVE-2026-42533.
#
# Each step of a compiled script checks that its result still fits. Forty-four functions change; many are called through
# pointers that lie in the heap, and their prototypes change with them, so that old and new ones must never be mixed.
# Model: a master and two workers, each with an event loop.
package=nginx
version=1.22.1-9+deb12u10
dsc_sha256=cd1966d8ac12a78feb009b0add66dec191c8c561de1cbd3a123594d2e54936ad
fix=(CVE-2026-42533.patch)
outputs=(objs/nginx)

build() {
  ./configure --with-cc-opt="$cflags" --with-ld-opt=-pie --with-threads --with-pcre-jit --with-stream --with-mail \
    --with-http_{ssl,v2,dav,stub_status,slice}_module
  make -j"$jobs" -f objs/Makefile binary
}
