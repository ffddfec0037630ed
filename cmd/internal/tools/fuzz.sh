#!/bin/sh
# Runs every fuzz target of the repository for the given time each.
set -eu
time=${1:-5s}
cd "$(dirname "$0")/../../.."
git grep -l '^func Fuzz' -- '*_test.go' | xargs -n1 dirname | sort -u | while read -r dir; do
	grep -ho '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go | sed 's/^func //' | sort -u | while read -r target; do
		echo "fuzz ./$dir $target"
		go test "./$dir" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -parallel 2 >/tmp/holdfast-fuzz.$$ 2>&1 </dev/null || {
			cat /tmp/holdfast-fuzz.$$
			rm -f /tmp/holdfast-fuzz.$$
			exit 1
		}
		rm -f /tmp/holdfast-fuzz.$$
	done
done
