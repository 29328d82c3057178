#!/usr/bin/env bash
# make install: what is installed works, says what it should, and make uninstall removes it all.
. "$(dirname "$0")/lib.sh"

root=$work/root
prefix=/opt/polyvisor
make_quietly() { # TARGET: without building anything again
    make --no-print-directory -s BUILD="$build" PREFIX=$prefix DESTDIR="$root" \
        $(printf -- '-o %s ' "$build"/bin/{vmmd,vcpud,devd,vmctl}) "$1" >"$work/make.log" 2>&1
}
if make_quietly install; then
    ok "make install"
else
    not_ok "make install" "$(cat "$work/make.log")"
    exit
fi
tree=$root$prefix
check "vmctl runs from there" test "$("$tree/bin/vmctl" --version)" = "$("$vmctl" --version)"
"$tree/sbin/vmmd" --version >"$work/version"
check "vmmd runs from sbin" grep -q "^vmmd " "$work/version"
check "the unit names the installed vmmd" grep -q "^ExecStart=$prefix/libexec/polyvisor/vmmd " \
    "$tree/lib/systemd/system/vmmd.service"
if command -v systemd-analyze >/dev/null; then
    sed "s|^ExecStart=$prefix|ExecStart=$tree|" "$tree/lib/systemd/system/vmmd.service" >"$work/vmmd.service"
    systemd-analyze verify --man=no "$work/vmmd.service" >"$work/unit.log" 2>&1
    check "systemd accepts the unit" test $? -eq 0
fi

# The programs find each other: an error of vmmd comes back, not one about a missing program.
"$tree/bin/vmctl" run --kernel /nowhere </dev/null 2>"$work/run.err"
check "vmctl finds its vmmd" test $? -eq 7
check "and what images are built with" test -x "$tree/share/polyvisor/image/build-image" -a \
    -x "$tree/share/polyvisor/agent/riscv64/polyvisor-agent" -a -x "$tree/share/polyvisor/agent/arm64/polyvisor-agent" -a \
    -x "$tree/share/polyvisor/agent/x86_64/polyvisor-agent"
if [ -f "$guest/vmlinux" ]; then
    "$tree/sbin/vmmd" &
    daemon=$!
    wait_for 20 test -S "$POLYVISOR_RUNTIME_DIR/control.sock"
    "$tree/bin/vmctl" create one --kernel "$guest/vmlinux" && "$tree/bin/vmctl" start one &&
        "$tree/bin/vmctl" rm --force one
    check "vmmd finds vcpud and devd" test $? -eq 0
    "$tree/bin/vmctl" shutdown
    wait "$daemon"
    daemon=
fi

# Pages and completions.
missing=
for command in $("$vmctl" --quiet help); do
    [ -s "$tree/share/man/man1/vmctl-$command.1" ] || missing+="vmctl-$command.1 "
    "$vmctl" "$command" --help >"$work/help" 2>"$work/help.err" || missing+="$command --help "
    [ ! -s "$work/help.err" ] && grep -q "^Usage: vmctl $command" "$work/help" || missing+="$command usage "
    [ "$("$vmctl" help "$command")" = "$(cat "$work/help")" ] || missing+="help $command "
done
check "every command has a page and help (missing: $missing)" test -z "$missing"
if command -v groff >/dev/null; then
    warnings=$(for page in "$tree"/share/man/man*/*; do groff -man -Tutf8 -ww -z "$page" 2>&1; done)
    check "groff likes the pages $warnings" test -z "$warnings"
fi
check "no page has an unfilled place" sh -c "! grep -r '@[A-Z]*@' '$tree/share/man' '$tree/lib'"
check "bash accepts its completions" bash -n "$tree/share/bash-completion/completions/vmctl"
if command -v zsh >/dev/null; then
    check "zsh accepts its completions" zsh -n "$tree/share/zsh/site-functions/_vmctl"
fi

# What bash would offer for a line: "complete WORD..." with the cursor at the end of the last.
complete_line() {
    (
        . "$tree/share/bash-completion/completions/vmctl"
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
        _vmctl 2>/dev/null
        echo "${COMPREPLY[*]}"
    )
}
check "commands are completed" test "$(complete_line vmctl sh)" = "show shutdown"
check "options are completed" test "$(complete_line vmctl run --ini)" = "--initrd"
check "choices are completed" test "$(complete_line vmctl run --arch = risc)" = riscv64
check "choices are completed without =" test "$(complete_line vmctl run --engine int)" = interp
touch "$work/kernel-a"
check "files are completed" test "$(complete_line vmctl run --kernel "$work/kern")" = "$work/kernel-a"
check "disks are completed" test "$(complete_line vmctl run --disk path = "$work/kern")" = "$work/kernel-a"
check "nothing is made up" test -z "$(complete_line vmctl run --memory 5)"

check "docs/errors.md lists every code" sh -c "'$vmctl' help --errors | while read -r line; do
    grep -qxF \"\$line\" docs/errors.md || exit 1; done"

make_quietly uninstall
check "make uninstall" test $? -eq 0
check "leaves no file" test -z "$(find "$root" -not -type d)"
