# dnsmasq 2.90: CVE-2026-2291.
#
# A union that holds names grows, and with it one immediate, the size given to malloc. The blocks that were allocated
# before stay too small, on a list that reuses them: made live, this fix would overflow them. Model: one event loop.
package=dnsmasq
version=2.90-4~deb12u2
fix=(CVE-2026-2291.patch)
outputs=(src/dnsmasq)

build() {
  make -j"$jobs" CFLAGS="$cflags -Wall" LDFLAGS=-pie
}
