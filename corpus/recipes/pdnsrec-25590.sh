# PowerDNS Recursor 4.8: CVE-2024-25590.
#
# Answers with very many records are no longer kept. Static members are added, an element of a boost container that
# lives in the running cache gets a flag, and templates are instantiated anew. Model: C++ with threads and coroutines.
package=pdns-recursor
version=4.8.8-1+deb12u1
fix=(0001-Backport-4.9.8-patch-for-CVE-2024-25590.patch)
outputs=(pdns_recursor)

build() {
  [[ -x configure ]] || autoreconf -fi
  ./configure --with-lua=lua5.3 --disable-systemd --disable-nod --disable-dnstap --without-net-snmp --without-libcap \
    --disable-lto CFLAGS="$cflags" CXXFLAGS="$cflags" LDFLAGS=-pie
  # What the build makes first, and its libraries, are only in the order of `make all`.
  make htmlfiles.h
  make -j"$jobs" -C ext
  make -j"$jobs" pdns_recursor
}
