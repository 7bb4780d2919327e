# What hack/setup, hack/test and hack/demo agree on. Sourced, never run.
#
# Everything that is not of the repository lives in one folder of the user's cache. The Cargo target
# directory is shared by all clones, so that a fresh clone finds its dependencies built.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-${HOME:?HOME is not set: set it, or XDG_CACHE_HOME, to a folder for build outputs}/.cache}/vas
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}
