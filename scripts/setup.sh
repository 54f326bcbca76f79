#!/bin/sh
# Makes .venv, once: `sh scripts/setup.sh` installs the package and what it needs,
# `sh scripts/setup.sh dev` also the tools of the checks. It works again only when pyproject.toml
# or this file changed; after an interruption, run it again.
#
# DIFFUSSM_TORCH chooses the torch to install, in pip's words: DIFFUSSM_TORCH="torch==2.12.0".
set -eu
cd "$(dirname "$0")/.."
extra=${1:-}
stamp=.venv/ready${extra:+-$extra}

fail() {
    echo "setup: $*" >&2
    exit 1
}

# Only pip itself was stopped here, and it tidies up after itself: what is in .venv stays good.
give_up() {
    rm .venv/unfinished
    fail "installing failed for the reason above (no network?); run the same again to go on"
}

find_python() {
    for name in python3 python3.13 python3.12 python3.11; do
        # ensurepip is what Debian leaves out of a Python without python3-venv
        if "$name" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    fail "no Python 3.11 or newer with venv was found (on Debian or Ubuntu: apt install python3-venv)"
}

# uv is quicker but does not read pip's settings, so what it cannot install pip tries again.
install() {
    if command -v uv >/dev/null && uv pip install -q --python .venv/bin/python "$@" 2>/dev/null; then
        return
    fi
    .venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check "$@"
}

has_nvidia_driver() {
    [ -e /proc/driver/nvidia ] || nvidia-smi >/dev/null 2>&1
}

# The CPU build saves gigabytes. A version that ends in +cpu is met only by a CPU wheel that pip
# finds on this machine or in its own index, and fails at once where there is none.
install_torch() {
    torch=$(grep -o 'torch>=[0-9.]*' pyproject.toml)
    cpu_index=https://download.pytorch.org/whl/cpu
    if [ -n "${DIFFUSSM_TORCH:-}" ]; then
        # shellcheck disable=SC2086 # it may hold several words
        install $DIFFUSSM_TORCH && why="as DIFFUSSM_TORCH asks"
    elif [ "$(uname -sm)" != "Linux x86_64" ]; then
        install "$torch" && why="the one build for $(uname -sm)"
    elif has_nvidia_driver; then
        install "$torch" && why="with CUDA, for the NVIDIA driver of this machine"
    elif install "torch==2.13.0+cpu" 2>/dev/null; then
        why="a CPU build at hand, as there is no NVIDIA driver"
    elif install "$torch" --index-url "$cpu_index" 2>/dev/null; then
        why="PyTorch's CPU build, as there is no NVIDIA driver"
    else
        install "$torch" && why="the ordinary build, as PyTorch's CPU builds cannot be reached"
    fi
}

want="$(pwd) $(cat pyproject.toml scripts/setup.sh | cksum) ${DIFFUSSM_TORCH:-}"
works() { .venv/bin/python -c '' 2>/dev/null; }

if works && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then
    exit 0
fi

# An interrupted pip leaves half a package that the next pip takes for a whole one: start afresh.
if [ -e .venv/unfinished ] || { [ -e .venv ] && ! works; }; then
    echo "setup: .venv is incomplete; making it anew"
    rm -rf .venv
fi
if [ ! -e .venv ]; then
    python=$(find_python)
    echo "setup: making .venv with $("$python" --version)"
    mkdir .venv
    touch .venv/unfinished
    "$python" -m venv .venv || fail "$python could not make .venv"
fi
touch .venv/unfinished

echo "setup: installing torch (200 MB without CUDA, some GB with it)"
install_torch || give_up
version=$(.venv/bin/python -c 'from importlib.metadata import version; print(version("torch"))')
echo "setup: torch $version: $why"
echo "setup: installing diffussm${extra:+ with its $extra tools}"
install --editable ".${extra:+[$extra]}" || give_up

rm .venv/unfinished
echo "$want" >.venv/ready
echo "$want" >"$stamp"
echo "setup: done; everything is in .venv"
