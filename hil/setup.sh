#!/bin/sh
# Installs the programs that the tests and benchmarks talk to: independent
# Modbus and MQTT implementations. Needs root or sudo, Debian's apt and npm.
#
#   sh hil/setup.sh           install what is missing
#   sh hil/setup.sh --check   say what is missing, exit 1 if anything is
set -eu
cd "$(dirname "$0")/.."

packages="mosquitto mosquitto-clients socat mbpoll libmodbus-dev python3-pymodbus pkg-config gcc libc6-dev"

command -v npm >/dev/null 2>&1 || packages="$packages nodejs npm"

missing=""
for p in $packages; do
	dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
npmdirs=$(git ls-files '*package-lock.json' 2>/dev/null | xargs -r -n1 dirname)
npmmissing=""
for d in $npmdirs; do
	[ -e "$d/node_modules/.package-lock.json" ] && [ ! "$d/package-lock.json" -nt "$d/node_modules/.package-lock.json" ] || npmmissing="$npmmissing $d"
done

if [ "${1:-}" = --check ]; then
	[ -z "$missing$npmmissing" ] && exit 0
	echo "missing:$missing$npmmissing"
	exit 1
fi

if [ -n "$missing" ]; then
	as=""
	if [ "$(id -u)" != 0 ]; then
		if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
			as="sudo"
		else
			echo "setup: the tests against real peers need these packages:$missing"
			echo "setup: install them as root with: apt-get install$missing"
			echo "setup: going on without; the tests that need them are skipped"
			missing=""
		fi
	fi
	if [ -n "$missing" ]; then
		if ! command -v apt-get >/dev/null 2>&1; then
			echo "setup: no apt-get here; install by hand:$missing"
		else
			echo "setup: installing$missing"
			$as apt-get update -qq
			# A freshly installed broker must not start on its own: the tests
			# start theirs on ports of their own.
			$as env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $missing >/dev/null
		fi
	fi
fi

for d in $npmmissing; do
	if command -v npm >/dev/null 2>&1; then
		echo "setup: npm ci in $d"
		(cd "$d" && npm ci --silent --no-audit --no-fund)
	else
		echo "setup: npm is missing; the tests in $d are skipped"
	fi
done
