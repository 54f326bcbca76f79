#!/bin/sh
# What the tests of the page in a real browser need, on Debian or Ubuntu, as root:
#     sh scripts/chromium.sh
# Without it those tests are skipped.
set -eu
apt-get update -qq
apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core
