#!/usr/bin/env bash
# What the tests share: a test that found something says so by its exit status, too, however it ends.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"

ends() { # STATUS COMMANDS...: a test of those commands
    local status=$1
    shift
    bash -c '. tests/integration/lib.sh; eval "$1"' "$0" "$*" >/dev/null 2>&1
    [ $? -eq "$status" ]
}
check "a good test ends well" ends 0 'ok good; finish'
check "also without a word at its end" ends 0 'ok good; exit'
check "one that failed does not" ends 1 'not_ok bad; finish'
check "nor without a word at its end" ends 1 'not_ok bad; true'
check "nor when it says that it did" ends 1 'not_ok bad; exit 0'
check "its own status stays" ends 3 'ok good; exit 3'
check "what fails as it is to" refused not-found 'no thing' sh -c 'echo "error [not-found]: no thing
hint: look" >&2; exit 1'
refused . . true && not_ok "what succeeds is not refused" || ok "what succeeds is not refused"
finish
