# Where the sanitizers of a build with SAN= write what they find, and whether they wrote anything. A report on
# standard error is not enough: the process that found something is a daemon's child, whose output nobody
# compares and whose death is healed by starting it again. Source it (bash).

export SANITIZERS_FOLDER # functions that are exported do not know their file
SANITIZERS_FOLDER=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# sanitizers_watch FOLDER: programs started from now on write their reports there, one file a process.
# Who runs a test may add options of their own in SANITIZER_OPTIONS: verbosity=1:report_thread_leaks=0
sanitizers_watch() {
    local own="log_path='$1/report':log_exe_name=1${SANITIZER_OPTIONS:+:$SANITIZER_OPTIONS}"
    mkdir -p "$1"
    # A call of abort() in a library is a finding as well.
    export ASAN_OPTIONS="handle_abort=1:detect_stack_use_after_return=1:strict_string_checks=1:$own"
    export UBSAN_OPTIONS="print_stacktrace=1:$own"
    export LSAN_OPTIONS="suppressions='$SANITIZERS_FOLDER/leaks.supp':print_suppressions=0"
    # The daemons' behaviour is what the test looks at, so a report changes nothing of it.
    export TSAN_OPTIONS="suppressions='$SANITIZERS_FOLDER/threads.supp':print_suppressions=0:halt_on_error=0:exitcode=0\
:second_deadlock_stack=1:$own"
}

# sanitizers_reports FOLDER: all that was found, with the program's name before it; false when there is nothing.
sanitizers_reports() {
    local file found=1
    for file in "$1"/report.*; do
        [ -s "$file" ] || continue
        found=0
        echo "${file##*/}:"
        head -n 120 "$file"
    done
    return $found
}

# sanitizers_without FOLDER PROGRAM...: from now on the programs of $bin, but these without sanitizers.
sanitizers_without() {
    local folder=$1 program
    shift
    [ $# -gt 0 ] || return 0
    mkdir -p "$folder/bin"
    ln -s "$bin/../share" "$folder/share"
    for program in "$bin"/*; do # no symbolic links: a daemon looks for the others beside itself
        ln "$program" "$folder/bin/" 2>/dev/null || cp "$program" "$folder/bin/"
    done
    for program in "$@"; do
        cp "$top/build/bin/$program" "$folder/bin/$program.plain" &&
            mv "$folder/bin/$program.plain" "$folder/bin/$program" || exit 1
    done
    bin=$folder/bin
    vmctl=$bin/vmctl
}
