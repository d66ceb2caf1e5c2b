#!/bin/sh
# Draws the three secrets of compose.yaml into ./secrets, once: what is there stays. Keep the master key in a safe
# place too; without it nobody can read the signing secrets in the database.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets

draw() {
    [ -s "secrets/$1" ] || printf '%s%s\n' "$2" "$(openssl rand -hex 32)" > "secrets/$1"
}
draw master-key ''
draw bootstrap-api-key sk_operator_
draw db-password ''

# Compose binds the files as they are, and the server in its container is user 65532. The directory keeps the
# other users of this machine out.
if [ "$(id -u)" = 0 ]; then
    chown 65532:65532 secrets/*
    chmod 0400 secrets/*
else
    chmod 0444 secrets/*
fi
echo "the first API key is in $(pwd)/secrets/bootstrap-api-key"
