# memcached 1.6: CVE-2026-47783 and CVE-2026-47784.
#
# Looking up a SASL password takes the same time for every user, and no longer ends at the first line of a user. One
# static function changes, its code only. Model: four worker threads, one event loop each.
package=memcached
version=1.6.18-1+deb12u1
fix=(0008-CVE-2026-47783-CVE-2026-47784.patch)
outputs=(memcached)

build() {
  # The generated files of the tarball are good; equal file times would have make run autoconf again.
  if [[ -x configure ]]; then touch aclocal.m4 && touch configure config.h.in Makefile.in; else ./autogen.sh; fi
  ./configure --enable-sasl --enable-sasl-pwdb --disable-docs --disable-coverage CFLAGS="$cflags" LDFLAGS=-pie
  make -j"$jobs" memcached
}
