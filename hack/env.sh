# What hack/setup, hack/test, hack/demo and hack/abuse agree on. Sourced, never run.
#
# Everything that is not of the repository lives in one folder of the user's cache. The Cargo target
# directory is shared by all clones, so that a fresh clone finds its dependencies built.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-${HOME:?HOME is not set: set it, or XDG_CACHE_HOME, to a folder for build outputs}/.cache}/vas
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}

# Makes the shared target directory this clone's, until the script ends. Cargo names what it builds of a
# workspace by paths relative to it, so two clones would take each other's builds for their own: what
# another clone left of the workspace is removed, its dependencies stay.
claim_target() {
    mkdir -p "$CARGO_TARGET_DIR"
    exec 9>"$CARGO_TARGET_DIR/.claim.lock"
    if ! flock --nonblock 9; then
        echo "waiting for another clone that builds in $CARGO_TARGET_DIR"
        flock 9
    fi
    local owner=$CARGO_TARGET_DIR/.claim
    if [ ! -f "$owner" ] || [ "$(<"$owner")" != "$root" ]; then
        [ ! -d "$CARGO_TARGET_DIR/debug" ] || (cd "$root" && cargo clean --quiet --workspace)
        printf '%s\n' "$root" >"$owner"
    fi
}

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}
