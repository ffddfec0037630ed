#!/bin/sh
# Runs every fuzz target of the repository for the given time each.
set -eu
time=${1:-5s}
cd "$(dirname "$0")/../../.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT

fuzz() { go test "./$1" -run '^$' -fuzz "^$2\$" -fuzztime "$time" -parallel 2 >"$log" 2>&1 </dev/null; }

git grep -l '^func Fuzz' -- '*_test.go' | xargs -n1 dirname | sort -u | while read -r dir; do
	grep -ho '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go | sed 's/^func //' | sort -u | while read -r target; do
		echo "fuzz ./$dir $target"
		fuzz "$dir" "$target" && continue
		# A finding is always written down as a failing input. Without one, the
		# fuzzer itself was still busy when its time was over, which it calls a
		# failure on a loaded machine: it is run once more.
		if grep -q 'context deadline exceeded' "$log" && ! grep -q 'Failing input' "$log" && fuzz "$dir" "$target"; then
			continue
		fi
		cat "$log"
		exit 1
	done
done
