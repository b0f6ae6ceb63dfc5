# Mosquitto 2.0: CVE-2023-28366.
#
# Duplicates of a message that must arrive exactly once were stored again each time. A member of a structure that every
# client has changes its type, a function gets a parameter, another one is new. Model: one event loop.
package=mosquitto
version=2.0.11-1.2+deb12u2
fix=(CVE-2023-28366.patch CVE-2023-28366-regression.patch)
outputs=(src/mosquitto)

build() {
  make -C src -j"$jobs" WITH_DOCS=no WITH_SYSTEMD=no WITH_WEBSOCKETS=no WITH_CJSON=no WITH_STRIP=no \
    CFLAGS="$cflags -Wall" LDFLAGS="-pie -Wl,--dynamic-list=linker.syms -rdynamic" mosquitto
}
