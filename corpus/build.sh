#!/usr/bin/env bash
# Builds one half of a corpus case: a real program without (base) or with (fixed) a real security fix.
#
#   corpus/build.sh CASE base|fixed
#
# The work folder is target/corpus (or $CORPUS_WORK). What comes out:
#
#   CASE/base, CASE/fixed   the programs, and BUILT, which says from what they were made
#   CASE/work               the sources and the log of the last build
#   sources, apt            downloads, shared by all cases
#
# Both halves are built in the same folder, one after the other, so that paths in the debug information are equal and
# the fix is the only difference. A half that was built from the same recipe text is left alone.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
case_name=${1:?usage: build.sh CASE base|fixed}
variant=${2:?usage: build.sh CASE base|fixed}
work=${CORPUS_WORK:-$here/../target/corpus}
mkdir -p "$work"
work=$(cd "$work" && pwd)
# shellcheck source=lib.sh
. "$here/lib.sh"

[[ $variant == base || $variant == fixed ]] || fail "no variant '$variant': base or fixed"
recipe=$here/recipes/$case_name.sh
[[ -f $recipe ]] || fail "no case '$case_name'"

drivers=$here/drivers
home=$work/$case_name
out=$home/$variant
log=$home/work/$variant.log
mkdir -p "$home/work"

# One build of a case at a time: both halves share a folder.
exec 9>"$home/work/lock"
flock 9

# shellcheck source=/dev/null
. "$recipe"
# A case is built again when its recipe, the steps or one of its own drivers changed, not for the drivers of others.
stamp=$({
  cat "$recipe" "$here/lib.sh" "$here/build.sh"
  for name in "${uses[@]}"; do find "$drivers/$name" -type f -print0 | sort -z | xargs -0 cat; done
} | sha256sum | cut -d' ' -f1)
if is_built; then
  say "already built"
  exit 0
fi

begun=$SECONDS
unpack
apply_fix
say "building"
# Not `( … ) || …`: that would switch off -e inside, and a failed step would go unseen.
set +e
(set -e; cd "$tree"; build) >"$log" 2>&1
status=$?
set -e
[[ $status == 0 ]] || { tail -n 20 "$log" >&2; fail "the build failed, see $log"; }
publish
say "built in $((SECONDS - begun)) s"
