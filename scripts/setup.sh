# Run from the repository's root (bash scripts/setup.sh), or sourced by the entry scripts: makes .venv, installs
# requirements.txt into it once, and puts its programs first on the PATH. PYTHON=/path/to/python names the
# interpreter to start from; the array setup_lists names the lists to install in place of requirements.txt.
# An active conda or virtual environment is left alone: .venv is ours, and `rm -rf .venv` undoes everything.

if [ -z "${BASH_VERSION:-}" ]; then
    echo "setup: these scripts need bash" >&2
    return 1 2>/dev/null || exit 1
fi

setup_fail() {
    echo "setup: $*" >&2
    exit 1
}

# The first interpreter of the list that is Python 3.10 or newer and runs (a pyenv shim may exist and not run).
setup_find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python python3.13 python3.12 python3.11 python3.10}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

setup_make_venv() {
    local python
    python=$(setup_find_python) || setup_fail "no Python 3.10 or newer (tried ${PYTHON:-python3, python, python3.10-13});" \
        "install one, or name it: PYTHON=/path/to/python bash $0"
    "$python" -c 'import ensurepip, venv' 2>/dev/null || setup_fail "$python cannot make virtual environments" \
        "(ensurepip or venv is missing); on Debian and Ubuntu: sudo apt install python3-venv"
    echo "setup: making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv || setup_fail "$python -m venv .venv failed, see above"
}

setup_install() { # installs a list of packages; --no-compile: only what is imported is compiled, which saves 350 MB
    echo "setup: installing $1 into .venv; the first time this takes minutes (PyTorch is large)"
    .venv/bin/python -m pip install --disable-pip-version-check --no-compile -r "$1" ||
        setup_fail "pip could not install $1, see above; run bash $0 again once that is mended"
    local alone
    alone=$(sed -n 's/^# no-deps: *\([^ ]*\).*/\1/p' "$1")
    if [ -n "$alone" ]; then
        # shellcheck disable=SC2086 # one word per package
        .venv/bin/python -m pip install --disable-pip-version-check --no-compile --quiet --no-deps $alone ||
            echo "setup: $alone could not be installed; what needs it says so"
    fi
    cp "$1" ".venv/installed-$1"
    echo "setup: done"
}

# The stamp is a copy of each list as it was installed: written last, so an interrupted installation is taken up again.
setup() {
    local moved=no
    if [ -d .venv ] && ! .venv/bin/python -c '' 2>/dev/null; then
        moved=yes
        echo "setup: .venv does not run any more (moved, or its Python is gone)"
    fi
    if [ ! -d .venv ] || [ "$moved" = yes ]; then
        setup_make_venv
    fi
    local list
    for list in "${setup_lists[@]:-requirements.txt}"; do
        cmp -s "$list" ".venv/installed-$list" || setup_install "$list"
    done
    PATH="$PWD/.venv/bin:$PATH"
    export PATH
}

setup
