# Dropbear 2022.83: CVE-2023-48795, known as Terrapin.
#
# Strict key exchange. The structure of a session grows, and with it the global `ses` that each process has; a table of
# algorithms grows too. Model: one process that forks for each connection.
package=dropbear
version=2022.83-1+deb12u3
fix=(CVE-2023-48795.patch)
outputs=(dropbear dropbearkey)

build() {
  [[ -x configure ]] || autoreconf -fi
  ./configure --enable-bundled-libtom --disable-harden CFLAGS="$cflags" LDFLAGS=-pie
  make -j"$jobs" PROGRAMS="dropbear dropbearkey"
}
