# For the integration tests that give a guest shell commands, one after the other, and look at what
# each of them printed. Source it after lib.sh; end with shells_end.

machine() { # NAME OPTION...: with a shell on its console
    local name=$1
    shift
    "$vmctl" create "$name" --arch riscv64 --kernel "$guest/vmlinux" --memory 192M \
        --initrd "$guest/test-initrd.cpio.gz" --append "quiet script=commands ${append:-}" "$@" >/dev/null &&
        "$vmctl" start "$name" >/dev/null || return 1
    [ -p "$work/$name.in" ] || mkfifo "$work/$name.in"
    : >"$work/$name.out"
    sleep 10000 >"$work/$name.in" &
    holders+=($!)
    "$vmctl" console "$name" <"$work/$name.in" >"$work/$name.out" 2>/dev/null &
}
holders=()
answers() { # NAME: how many
    tr -d '\r' <"$work/$1.out" 2>/dev/null | grep -c '^status '
}
answered() { # NAME COUNT
    [ "$(answers "$1")" -ge "$2" ]
}
tell() { # NAME COMMAND: start it in the guest
    asked=$(($(answers "$1") + 1))
    echo "$2" >"$work/$1.in"
}
outcome() { # NAME: wait for what was told to end, print its output; its status
    wait_for 240 answered "$1" "$asked" || return 99
    tr -d '\r' <"$work/$1.out" | awk -v n="$asked" '/^status /{c++; if (c == n) {s = $2; exit}; next}
        c == n - 1 {print} END {exit s}'
}
ask() { # NAME COMMAND
    tell "$1" "$2"
    outcome "$1"
}
pid_of() { # NAME ROLE
    "$vmctl" --json show "$1" | tr -d ' \n' | sed -nE "s/.*\"role\":\"${2//\//\\/}\",\"pid\":([0-9]+).*/\1/p;t
        s/.*\"pid\":([0-9]+),\"role\":\"${2//\//\\/}\".*/\1/p"
}
replaced() { # NAME ROLE PID: another process has taken its place
    local now
    now=$(pid_of "$1" "$2")
    [ -n "$now" ] && [ "$now" != "$3" ]
}
end() { # NAME
    "$vmctl" kill "$1" >/dev/null 2>&1
    "$vmctl" rm "$1" >/dev/null 2>&1
}
shells_end() {
    [ ${#holders[@]} -eq 0 ] || kill "${holders[@]}" 2>/dev/null
}
