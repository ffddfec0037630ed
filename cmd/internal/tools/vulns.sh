#!/bin/sh
# Runs govulncheck where its database can be reached; says so where it cannot.
set -eu
cd "$(dirname "$0")/../../.."
out=$(go tool -modfile=cmd/internal/tools/go.mod govulncheck ./... 2>&1) && { echo "govulncheck: nothing found"; exit 0; }
case "$out" in
*"fetching vulnerabilities"* | *"no such host"* | *"Forbidden"* | *"connection refused"* | *"i/o timeout"*)
	echo "govulncheck: the vulnerability database cannot be reached from here; skipped" ;;
*)
	echo "$out"
	exit 1 ;;
esac
