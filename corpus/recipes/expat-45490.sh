# Expat 2.5: CVE-2024-45490.
#
# XML_ParseBuffer refuses a negative length. An exported function of a shared library changes; seventeen others differ
# only by the line numbers they hold. Model: a driver with two threads that parse without pause.
package=expat
version=2.5.0-1+deb12u2
fix=(CVE-2024-45490.patch)
outputs=(expat/lib/.libs/libexpat.so.1 expat/expatloop)
uses=(expatloop.c loop.h)

build() {
  cd expat
  [[ -x configure ]] || ./buildconf.sh
  ./configure --disable-static --without-docbook --without-tests --without-examples CFLAGS="-O2 -g"
  make -j"$jobs" -C lib
  gcc $cflags -Wall -Wextra -o expatloop "$drivers/expatloop.c" -Ilib -Llib/.libs -lexpat -lpthread -pie \
    -Wl,-rpath,'$ORIGIN'
}
